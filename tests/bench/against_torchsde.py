"""An update of a latent SDE on Lorenz' system by torchsde, and by ndekit: run it with either.

    python tests/bench/against_torchsde.py torchsde
    python tests/bench/against_torchsde.py ndekit

torchsde and PyTorch are not among this project's packages; any environment that has them will do.
The model and the sizes are those of torchsde's example `latent_sde_lorenz`: a batch of 1024 series
of 3 numbers at 100 times in [0, 2], latent size 4, context 64, hidden width 128, Euler, steps of
0.01, Adam. Each prints the median seconds of an update.
"""

import argparse
import os
import statistics
import time

SIZE, LATENT, CONTEXT, WIDTH = 3, 4, 64, 128
TIMES, END, DT, NOISE = 100, 2.0, 0.01, 0.01


def median_seconds(update, rounds):
    update()  # compiles, allocates
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        update()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def with_torchsde(batch):
    import torch
    import torchsde
    from torch import nn

    def mlp(inputs, outputs):
        return nn.Sequential(
            nn.Linear(inputs, WIDTH), nn.Softplus(), nn.Linear(WIDTH, WIDTH), nn.Softplus(),
            nn.Linear(WIDTH, outputs),
        )  # fmt: skip

    class Model(nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def __init__(self):
            super().__init__()
            self.gru, self.to_context = nn.GRU(SIZE, WIDTH), nn.Linear(WIDTH, CONTEXT)
            self.to_first, self.decoder = nn.Linear(CONTEXT, 2 * LATENT), nn.Linear(LATENT, SIZE)
            self.posterior, self.prior = mlp(LATENT + CONTEXT, LATENT), mlp(LATENT, LATENT)
            self.diffusions = nn.ModuleList(
                nn.Sequential(nn.Linear(1, WIDTH), nn.Softplus(), nn.Linear(WIDTH, 1), nn.Sigmoid())
                for _ in range(LATENT)
            )
            self.first = nn.Parameter(torch.zeros(2, LATENT))

        def f(self, t, z):
            index = min(int(torch.searchsorted(self.ts, t, right=True)), TIMES - 1)
            return self.posterior(torch.cat((z, self.contexts[index]), dim=1))

        def h(self, t, z):
            return self.prior(z)

        def g(self, t, z):
            parts = torch.split(z, 1, dim=1)
            return torch.cat([g(z) for g, z in zip(self.diffusions, parts, strict=True)], dim=1)

        def loss(self, ts, xs):
            states, _ = self.gru(torch.flip(xs, dims=(0,)))
            self.ts, self.contexts = ts, self.to_context(torch.flip(states, dims=(0,)))
            mean, log_std = self.to_first(self.contexts[0]).chunk(2, dim=1)
            posterior = torch.distributions.Normal(mean, log_std.exp())
            prior = torch.distributions.Normal(self.first[0], self.first[1].exp())
            zs, log_ratio = torchsde.sdeint(
                self, posterior.rsample(), ts, dt=DT, logqp=True, method="euler"
            )
            likelihood = torch.distributions.Normal(self.decoder(zs), NOISE).log_prob(xs)
            kl = torch.distributions.kl_divergence(posterior, prior).sum(1).mean()
            return kl + log_ratio.sum(0).mean() - likelihood.sum((0, 2)).mean()

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    ts, xs = torch.linspace(0.0, END, TIMES), torch.randn(TIMES, batch, SIZE)

    def update():
        optimizer.zero_grad()
        model.loss(ts, xs).backward()
        optimizer.step()

    print("torch", torch.__version__, "threads", torch.get_num_threads())
    return update


def with_ndekit(batch):
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import optax

    import ndekit as nk

    model = nk.models.LatentSDE(SIZE, LATENT, CONTEXT, WIDTH, dt0=DT, key=jr.key(0))
    optimizer = optax.adam(1e-2)
    ts, xs = jnp.linspace(0.0, END, TIMES), jr.normal(jr.key(1), (batch, TIMES, SIZE))

    @eqx.filter_jit(donate="all")
    def step(model, state, key):
        loss = lambda model: model.loss(ts, xs, noise_std=NOISE, key=key)[0]
        grads = eqx.filter_grad(loss)(model)
        changes, state = optimizer.update(grads, state)
        return eqx.apply_updates(model, changes), state, jr.split(key)[0]

    now = [model, optimizer.init(eqx.filter(model, eqx.is_array)), jr.key(2)]

    def update():
        now[:] = step(*now)
        jax.block_until_ready(eqx.filter(now[0], eqx.is_array))

    print("jax", jax.__version__, jax.devices()[0])
    return update


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("library", choices=("torchsde", "ndekit"))
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    update = {"torchsde": with_torchsde, "ndekit": with_ndekit}[given.library](given.batch)
    print(f"{given.library}: {median_seconds(update, given.rounds):.3f} s an update")
