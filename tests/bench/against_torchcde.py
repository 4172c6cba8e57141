"""An update of a neural CDE by torchcde, and by ndekit: run it with either.

    python tests/bench/against_torchcde.py torchcde            # backward through the solver
    python tests/bench/against_torchcde.py torchcde --adjoint  # its default, a second solve
    python tests/bench/against_torchcde.py ndekit

torchcde and PyTorch are not among this project's packages; any environment that has them will do.
Model and sizes are those of torchcde's example of classification: 128 spirals of 100 positions,
hidden size 8, a network 8-128-24 with relu and a final tanh, a Hermite control, RK4 (the 3/8 rule,
which is torchdiffeq's) from reading to reading, Adam. Both begin with the same numbers and print
the loss before the first update, then the median seconds of an update.
"""

import argparse
import math
import os
import statistics
import time

import numpy as np

SERIES, LENGTH, HIDDEN, WIDTH, RATE = 128, 100, 8, 128, 1e-2


def numbers():
    """Times, positions, labels, and the weights, `(out, in)`, and biases of four layers."""
    rng = np.random.default_rng(0)
    ts = np.linspace(0.0, 4 * math.pi, LENGTH)
    angle = rng.uniform(0, 2 * math.pi, (SERIES, 1)) + 2 * ts
    turn = np.where(np.arange(SERIES) < SERIES // 2, -1.0, 1.0)[:, None]
    xs = np.exp(-0.3 * ts)[:, None] * np.stack([turn * np.cos(angle), np.sin(angle)], axis=-1)
    sizes = [(3, HIDDEN), (HIDDEN, WIDTH), (WIDTH, 3 * HIDDEN), (HIDDEN, 1)]
    layers = [
        (rng.uniform(-1, 1, (b, a)) / a**0.5, rng.uniform(-1, 1, b) / a**0.5) for a, b in sizes
    ]
    single = lambda x: np.asarray(x, np.float32)
    layers = [(single(weight), single(bias)) for weight, bias in layers]
    return single(ts), single(xs), single(turn[:, 0] < 0), layers


def with_torchcde(adjoint):
    import torch
    import torchcde

    torch.set_num_threads(os.cpu_count() or 1)
    ts, xs, labels, layers = numbers()

    def linear(weight, bias):
        layer = torch.nn.Linear(*weight.shape[::-1])
        layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
        return layer

    class Field(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = linear(*layers[1]), linear(*layers[2])

        def forward(self, t, z):
            return self.last(self.first(z).relu()).tanh().view(*z.shape[:-1], HIDDEN, 3)

    initial, field, readout = linear(*layers[0]), Field(), linear(*layers[3])
    channels = np.concatenate([np.broadcast_to(ts[:, None], (SERIES, LENGTH, 1)), xs], axis=-1)
    path = torchcde.CubicSpline(
        torchcde.hermite_cubic_coefficients_with_backward_differences(torch.tensor(channels))
    )
    weights = [*initial.parameters(), *field.parameters(), *readout.parameters()]
    optimizer, labels = torch.optim.Adam(weights, lr=RATE), torch.tensor(labels)

    def update():
        optimizer.zero_grad()
        zs = torchcde.cdeint(
            X=path, func=field, z0=initial(path.evaluate(path.interval[0])), t=path.interval,
            adjoint=adjoint, method="rk4", options={"step_size": 1.0},
        )  # fmt: skip
        said = readout(zs[:, 1])[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(said, labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    print("torch", torch.__version__, "threads", torch.get_num_threads())
    return update


def with_ndekit(adjoint):
    import diffrax
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import optax

    import ndekit as nk

    class ThreeEighths(diffrax.AbstractERK):
        tableau = diffrax.ButcherTableau(
            a_lower=(np.array([1 / 3]), np.array([-1 / 3, 1.0]), np.array([1.0, -1.0, 1.0])),
            b_sol=np.array([1, 3, 3, 1]) / 8,
            b_error=np.zeros(4),
            c=np.array([1 / 3, 2 / 3, 1.0]),
        )
        interpolation_cls = diffrax.LocalLinearInterpolation

        def order(self, terms):
            return 4

    ts, xs, labels, layers = numbers()
    labels = jnp.asarray(labels)
    batch = nk.data.Series(np.broadcast_to(ts, (SERIES, LENGTH)), xs)
    batch = jax.tree.map(jnp.asarray, batch)
    field = nk.fields.CDEField(HIDDEN, 3, WIDTH, 1, activation=jax.nn.relu, key=jr.key(0))
    model = nk.models.NeuralCDE(
        2, HIDDEN, 1, field=field, scheme="hermite", solver=ThreeEighths(), key=jr.key(0)
    )  # fmt: skip
    affine = lambda m: [m.initial, *m.field.layers, m.readout]
    where = lambda m: [x for layer in affine(m) for x in (layer.weight, layer.bias)]
    new = [jnp.asarray(x) for weight, bias in layers for x in (weight.T, bias)]
    model = eqx.tree_at(where, model, new)
    optimizer = optax.adam(RATE)

    @eqx.filter_jit
    def step(model, state):
        def loss(model):
            said = jax.vmap(model)(batch)[0][:, 0]
            return jnp.mean(optax.sigmoid_binary_cross_entropy(said, labels))

        value, grads = eqx.filter_value_and_grad(loss)(model)
        changes, state = optimizer.update(grads, state)
        return eqx.apply_updates(model, changes), state, value

    now = [model, optimizer.init(eqx.filter(model, eqx.is_inexact_array))]

    def update():
        *now[:], value = step(*now)
        jax.block_until_ready(eqx.filter(now[0], eqx.is_array))
        return float(value)

    print("jax", jax.__version__, jax.devices()[0])
    return update


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("library", choices=("torchcde", "ndekit"))
    parser.add_argument("--adjoint", action="store_true", help="torchcde's second solve")
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    update = {"torchcde": with_torchcde, "ndekit": with_ndekit}[given.library](given.adjoint)
    print(f"loss before the first update: {update():.6f}")
    seconds = []
    for _ in range(given.rounds):
        start = time.perf_counter()
        update()
        seconds.append(time.perf_counter() - start)
    middle, least = statistics.median(seconds), min(seconds)
    print(f"{given.library}: {1e3 * middle:.1f} ms an update, {1e3 * least:.1f} at least")
