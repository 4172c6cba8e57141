"""A linear CDE by torch-slices, and by ndekit: run it with either.

    python tests/bench/against_torch_slices.py torch-slices --steps 4000
    python tests/bench/against_torch_slices.py ndekit --steps 4000

torch-slices and PyTorch are not among this project's packages; any environment that has them will
do. Hidden size 64 in blocks of 4, 8 series of 6 channels and the time, one step from each of the
readings to the next; the recurrence of torch-slices (`use_parallel=False`), which is the faster one
on a CPU. Both have the same matrices and print the loss, the mean square of the last states; then
the median milliseconds of the forward solve and of the gradient by the matrices, with I + A and
with exp(A).
"""

import argparse
import os
import statistics
import time

import numpy as np

HIDDEN, BLOCK, CHANNELS, SERIES = 64, 4, 6, 8
BLOCKS = HIDDEN // BLOCK


def numbers(steps):
    """Increments of all channels but the time, matrices by block, and the first state."""
    rng = np.random.default_rng(0)
    dx = rng.normal(size=(SERIES, steps, CHANNELS)) / steps**0.5
    matrices = rng.normal(size=(BLOCKS, BLOCK, BLOCK, 1 + CHANNELS)) * 0.25 / BLOCK**0.5
    return [x.astype(np.float32) for x in (dx, matrices, rng.normal(size=(BLOCKS, BLOCK)))]


def with_torch_slices(steps, mode):
    import slices
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    dx, matrices, y0 = numbers(steps)
    layer = slices.SLiCE(
        CHANNELS, HIDDEN, bias=False, block_size=BLOCK, scale=1 / steps, use_parallel=False,
        path_mode="increments", transition_mode="euler" if mode == "euler" else "matrix_exp",
    )  # fmt: skip
    layer.vf_A.weight.data = torch.tensor(matrices.reshape(-1, 1 + CHANNELS))
    layer.init.data = torch.tensor(y0.ravel())
    given = torch.tensor(dx * np.float32(steps))

    def forward():
        with torch.no_grad():
            return float((layer(given)[:, -1] ** 2).mean())

    def gradient():
        layer.zero_grad()
        (layer(given)[:, -1] ** 2).mean().backward()

    return forward, gradient


def with_ndekit(steps, mode):
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    import ndekit as nk

    dx, matrices, y0 = numbers(steps)
    # Summed in float64: the model takes differences again.
    xs = np.concatenate([np.zeros((SERIES, 1, CHANNELS)), np.cumsum(dx, 1, np.float64)], axis=1)
    ts = np.arange(steps + 1, dtype=np.float32) / np.float32(steps)
    batch = nk.data.Series(np.broadcast_to(ts, xs.shape[:2]), xs.astype(np.float32))
    batch = jax.tree.map(jnp.asarray, batch)
    model = nk.models.LinearCDE(CHANNELS, HIDDEN, 1, block_size=BLOCK, flow=mode, key=jr.key(0))
    ours = jnp.asarray(matrices.transpose(3, 1, 2, 0))
    where = lambda m: (m.field.matrices, m.initial.weight, m.initial.bias)
    start = jnp.zeros_like(model.initial.weight), jnp.asarray(y0.T.ravel())
    model = eqx.tree_at(where, model, (ours, *start))

    def loss(matrices, batch):
        there = eqx.tree_at(lambda m: m.field.matrices, model, matrices)
        return jnp.mean(jax.vmap(there)(batch)[1].ys[:, -1] ** 2)

    value, grad = jax.jit(loss), jax.jit(jax.grad(loss))
    return lambda: float(value(ours, batch)), lambda: jax.block_until_ready(grad(ours, batch))


def middle(call, rounds):
    call()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        seconds.append(1e3 * (time.perf_counter() - start))
    return f"{statistics.median(seconds):.1f} ms, {min(seconds):.1f} at least"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("library", choices=("torch-slices", "ndekit"))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    make = {"torch-slices": with_torch_slices, "ndekit": with_ndekit}[given.library]
    for mode in ("euler", "exp"):
        forward, gradient = make(given.steps, mode)
        print(f"{given.library}, {given.steps} steps, {mode}: loss {forward():.6f}")
        print(f"  forward {middle(forward, given.rounds)}")
        print(f"  gradient {middle(gradient, given.rounds)}", flush=True)
