"""Derivatives of derivatives, by each of the ways that have them, in turns in one process.

`python tests/bench/second_derivatives.py [ROW ...]` prints, for each row of `ROWS`, how long each
way takes to trace and compile and to run, the latter also in gradients of the same solve by ndekit,
and in what ndekit's first form takes; its temporary memory; and by how much its numbers differ from
those of that form, relative to the largest. In float32 each way rounds its step sizes differently,
and their grids differ; with `JAX_ENABLE_X64=1` the numbers are the same.
"""

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from timing import run_in_turns

import ndekit as nk

UNTIL = 3.0
FITS = 16  # the least that `DirectAdjoint` rounds to; the solves take up to thirteen attempts
ROUNDS = 15
INNER_RATE = 0.01


class Way(NamedTuple):
    diffeqsolve: Callable
    adjoint: Any
    max_steps: int = 4096


NDEKIT = "ndekit"
WAYS = {
    NDEKIT: Way(nk.diffeqsolve, nk.ReplayAdjoint()),
    "ndekit, 16 steps": Way(nk.diffeqsolve, nk.ReplayAdjoint(), FITS),
    "direct, 16 steps": Way(diffrax.diffeqsolve, diffrax.DirectAdjoint(), FITS),
    "direct, 4096 steps": Way(diffrax.diffeqsolve, diffrax.DirectAdjoint()),
    "recursive, 4096 steps": Way(diffrax.diffeqsolve, diffrax.RecursiveCheckpointAdjoint()),
    "forward mode": Way(diffrax.diffeqsolve, diffrax.ForwardMode()),
}
FITTING = (NDEKIT, "ndekit, 16 steps", "direct, 16 steps")
SECOND = (*FITTING, "direct, 4096 steps")


def field(t: Any, y: Any, weights: Any) -> Any:
    first, bias, last = weights
    return last @ jnp.tanh(first @ y + bias)


def loss_of(way: Way) -> Callable:
    """`(weights, y0s) -> number`, the mean over all lanes."""

    def one(weights: Any, y0: Any) -> Any:
        end = way.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, UNTIL, 0.1, y0, weights,
            stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-5),
            adjoint=way.adjoint, max_steps=way.max_steps,
        ).ys[-1]  # fmt: skip
        return jnp.sum(end**2)

    def loss(weights: Any, y0s: Any) -> Any:
        if y0s.ndim == 1:
            return one(weights, y0s)
        return jnp.mean(jax.vmap(one, (None, 0))(weights, y0s))

    return loss


def penalty(loss: Callable) -> Callable:
    """By the weights, of the squares of the gradient by the starts."""
    squares = lambda weights, y0s: jnp.sum(jax.grad(loss, argnums=1)(weights, y0s) ** 2)
    return jax.grad(squares)


def penalty_by_hand(loss: Callable) -> Callable:
    """The same: twice the derivative of the gradient by the weights, along that by the starts."""

    def of(weights: Any, y0s: Any) -> Any:
        slope = jax.grad(loss, argnums=1)(weights, y0s)
        by_weights = lambda y0s: jax.grad(loss)(weights, y0s)
        return jax.jvp(by_weights, (y0s,), (2 * slope,))[1]

    return of


def meta(loss: Callable) -> Callable:
    """By the weights from which two steps of gradient descent start, in each of many tasks."""

    def adapted(weights: Any, y0s: Any) -> Any:
        for _ in range(2):
            weights = moved(weights, jax.grad(loss)(weights, y0s))
        return loss(weights, y0s)

    total = lambda weights, y0s: jnp.mean(jax.vmap(adapted, (None, 0))(weights, y0s))
    return jax.grad(total)


def meta_by_hand(loss: Callable) -> Callable:
    """The same: the last gradient pulled back through each step by a product with a Hessian."""

    def of(weights: Any, y0s: Any) -> Any:
        slope = lambda weights: jax.grad(loss)(weights, y0s)
        path = [weights]
        for _ in range(2):
            path.append(moved(path[-1], slope(path[-1])))
        ct = slope(path[-1])
        for weights in reversed(path[:-1]):
            ct = moved(ct, jax.jvp(slope, (weights,), (ct,))[1])
        return ct

    total = lambda weights, y0s: jax.vmap(of, (None, 0))(weights, y0s)
    return lambda *given: jax.tree.map(lambda x: jnp.mean(x, axis=0), total(*given))


def moved(weights: Any, slope: Any) -> Any:
    return jax.tree.map(lambda w, g: w - INNER_RATE * g, weights, slope)


def hessian(loss: Callable) -> Callable:
    return jax.hessian(loss, argnums=1)


def hessian_by_rows(loss: Callable) -> Callable:
    return jax.jacrev(jax.grad(loss, argnums=1), argnums=1)


def product(loss: Callable) -> Callable:
    """Of the Hessian by the weights with the weights."""
    return lambda w, y0s: jax.jvp(lambda w: jax.grad(loss)(w, y0s), (w,), (w,))[1]


def tangent(loss: Callable) -> Callable:
    return lambda weights, y0s: jax.jvp(partial(loss, weights), (y0s,), (jnp.ones_like(y0s),))[1]


class Row(NamedTuple):
    """The shape of the starts, and what is derived, by its name, in some ways."""

    shape: tuple[int, ...]
    forms: dict[str, Callable]
    ways: tuple[str, ...] = SECOND
    width: int = 32


TWICE, FORWARD = "reverse over reverse", "forward over reverse"
FIRST = ("ndekit", "recursive, 4096 steps", "direct, 16 steps", "direct, 4096 steps")
ROWS = {
    "gradient, 32 lanes": Row((32, 2), {"reverse": jax.grad}, FIRST),
    "penalty, 32 lanes": Row((32, 2), {TWICE: penalty, FORWARD: penalty_by_hand}),
    "meta, 8 tasks": Row((8, 8, 2), {TWICE: meta, FORWARD: meta_by_hand}, FITTING),
    "product, 32 lanes": Row((32, 2), {FORWARD: product}),
    "penalty, wide": Row((64, 16), {TWICE: penalty}, FITTING, 512),
    "product, wide": Row((64, 16), {FORWARD: product}, FITTING, 512),
    "hessian, 2": Row((2,), {FORWARD: hessian, TWICE: hessian_by_rows}),
    "hessian, 8": Row((8,), {FORWARD: hessian, TWICE: hessian_by_rows}),
    "jvp, single": Row((2,), {"forward": tangent}, (NDEKIT, "forward mode", "direct, 16 steps")),
    "jvp, 32 lanes": Row(
        (32, 2), {"forward": tangent}, (NDEKIT, "forward mode", "direct, 16 steps")
    ),
}


def given_to(row: Row) -> tuple:
    size, width, keys = row.shape[-1], row.width, jr.split(jr.key(0), 4)
    each = zip(keys[:3], ((width, size), (width,), (size, width)), strict=True)
    weights = [jr.normal(key, shape) / shape[-1] ** 0.5 for key, shape in each]
    return tuple(weights), jr.normal(keys[3], row.shape)


def unit(loss: Callable) -> Callable:
    """The gradient of all lanes by the weights, and for tasks of the mean over them."""

    def mean(weights: Any, y0s: Any) -> Any:
        return loss(weights, y0s.reshape(-1, y0s.shape[-1]) if y0s.ndim > 1 else y0s)

    return jax.grad(mean)


def measure(name: str) -> None:
    row = ROWS[name]
    given = given_to(row)
    make = {("gradient", NDEKIT): lambda: unit(loss_of(WAYS[NDEKIT]))}
    for form, derived in row.forms.items():
        for way in row.ways:
            make[form, way] = lambda derived=derived, way=way: derived(loss_of(WAYS[way]))
    compiled = {key: compiled_from_nothing(new(), given) for key, new in make.items()}
    found = {key: flat(program(*given)) for key, (program, _) in compiled.items()}
    calls = {key: partial(program, *given) for key, (program, _) in compiled.items()}
    run = {key: statistics.median(each) for key, each in run_in_turns(calls, ROUNDS).items()}
    one, (_, first, *_) = run["gradient", NDEKIT], make
    for key in make:
        program, seconds = compiled[key]
        memory: Any = program.memory_analysis()
        apart = 0.0 if key[0] == "gradient" else difference(found[key], found[first])
        print(
            f"| {name} | {key[0]} | {key[1]} | {seconds:.2f} s | {1e3 * run[key]:.3g} ms "
            f"| {run[key] / one:.2f} | {run[key] / run[first]:.2f} "
            f"| {memory.temp_size_in_bytes / 1024:.0f} KiB | {apart:.0e} |",
            flush=True,
        )


def compiled_from_nothing(function: Callable, given: tuple) -> tuple[Any, float]:
    """The program, and the seconds that tracing and compiling it takes."""
    jax.clear_caches()
    start = time.perf_counter()
    program = jax.jit(function).lower(*given).compile()
    return program, time.perf_counter() - start


def flat(found: Any) -> Any:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found)])


def difference(a: Any, b: Any) -> float:
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


def main(*names: str) -> None:
    for config in ("cpu_enable_async_dispatch", "enable_compilation_cache"):
        jax.config.update(f"jax_{config}", False)
    print("| row | written as | way | compile | run | gradients | of ndekit's | memory | apart |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in names or ROWS:
        measure(name)


if __name__ == "__main__":
    main(*sys.argv[1:])
