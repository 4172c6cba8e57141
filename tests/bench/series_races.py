"""Models of irregular series beside what a user would write without them."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jax import lax
from notebook_cde import notebook_race
from notebook_cnf import notebook_race as flow_race
from races import KEPT, Asked, Race, Way

import ndekit as nk
from ndekit.models.linear_flow import Increments, flow_matrices, moved
from ndekit.models.observations import observations

OBSERVATIONS, SPAN, CHANNELS, HIDDEN, BATCH = 100, 10.0, 5, 32, 32
FITS = 16  # steps of a gap, for diffrax, whose buffer is as long


def irregular(batch: int, rows: int, channels: int) -> nk.data.Series:
    """Readings of noise at irregular times."""
    gaps = jr.uniform(jr.key(1), (batch, rows), minval=0.05, maxval=1.95)
    ts = jnp.cumsum(gaps, axis=1) * SPAN / rows
    return nk.data.Series(ts, jr.normal(jr.key(2), (batch, rows, channels)))


def gradient_way(model: Any, loss: Callable, batch: nk.data.Series) -> Way:
    """Of the mean of `loss(model, series)` over the batch, by the weights."""
    weights, static = eqx.partition(model, eqx.is_inexact_array)

    def make() -> Callable:
        def mean(weights: Any, batch: Any) -> Any:
            one = lambda series: loss(eqx.combine(weights, static), series)
            return jnp.mean(jax.vmap(one)(batch))

        return jax.grad(mean)

    return Way(make, (weights, batch))


def forward_way(model: Any, loss: Callable, batch: nk.data.Series) -> Way:
    weights, static = eqx.partition(model, eqx.is_inexact_array)

    def make() -> Callable:
        return lambda weights, batch: jax.vmap(
            lambda series: loss(eqx.combine(weights, static), series)
        )(batch)

    return Way(make, (weights, batch))


def ode_rnn_race() -> Race:
    """Readings at 100 irregular times, Tsit5, 1e-3; the loss is of the states before and after."""
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-3)
    batch = irregular(BATCH, OBSERVATIONS, CHANNELS)
    model = nk.models.ODERNN(
        CHANNELS, HIDDEN, CHANNELS, t0=0.0, controller=controller, max_steps=1024, key=jr.key(0)
    )
    squares = lambda before, last: jnp.sum(before**2) + jnp.sum(last**2)

    def ours(model: Any, series: Any) -> Any:
        said, _ = model(series)
        return squares(said.before, said.state)

    def scan(model: Any, series: Any) -> Any:
        rows = observations(series, jnp.zeros(()))

        def gap(carry: tuple, given: tuple) -> tuple:
            (y, before), (t, row) = carry, given
            # The whole gap at first, as ours does.
            sol = diffrax.diffeqsolve(
                diffrax.ODETerm(model.flow), model.solver, before, t, t - before, y,
                stepsize_controller=controller, max_steps=FITS,
            )  # fmt: skip
            return (model.reset(sol.ys[-1], row), t), sol.ys[-1]

        start = jnp.zeros(HIDDEN), jnp.zeros(())
        (last, _), before = lax.scan(gap, start, (series.ts, rows))
        return squares(jax.vmap(model.readout)(before), last)

    counts = jax.jit(jax.vmap(lambda series: model(series)[1].stats["num_steps"]))(batch)
    most = int(np.max(counts))

    def plain(model: Any, series: Any) -> Any:
        sol = nk.diffeqsolve(
            diffrax.ODETerm(model.flow), model.solver, 0.0, SPAN, None,
            jnp.ones(HIDDEN) * series.xs[0, 0], max_steps=1024,
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3, dtmax=SPAN / most),
        )  # fmt: skip
        return jnp.sum(sol.ys[-1] ** 2)

    ways = {
        "ndekit": gradient_way(model, ours, batch),
        "scan of diffrax": gradient_way(model, scan, batch),
        "plain solve": gradient_way(model, plain, batch),
    }

    def agree() -> None:
        mine, theirs = (jax.jit(ways[w].make())(*ways[w].arguments) for w in list(ways)[:2])
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-2 * np.max(abs(b)))
        jax.tree.map(close, mine, theirs)

    return Race(
        ways,
        (
            Asked("gradient: scan of diffrax / ndekit", "scan of diffrax", "ndekit", 5.0, True),
            Asked(f"gradient: ndekit / plain solve, {most} steps", "ndekit", "plain solve", 1.3),
        ),
        (Asked("trace + compile: ndekit / scan of diffrax", "ndekit", "scan of diffrax"),),
        {"ndekit": (KEPT, 1.0), "scan of diffrax": (KEPT, None)},
        agree=agree,
    )  # fmt: skip


PATHS, GRID, PATH_BATCH = 20_000, 100, 200
AUTHORS_EPOCH = 65.0  # seconds, in the files that the authors released


def jump_ode_race() -> Race:
    """An epoch of the published set of Black-Scholes paths: Euler on the grid, batches of 200."""
    made = nk.data.black_scholes(PATHS, key=jr.key(0))
    in_batches = lambda x: jnp.asarray(x).reshape(-1, PATH_BATCH, *x.shape[1:])
    paths = jax.tree.map(in_batches, made.series)
    optimizer = optax.adamw(1e-3, weight_decay=5e-4)
    grid = jnp.linspace(0.0, 1.0, GRID + 1)
    model = nk.models.JumpODE(1, t0=0.0, solver=diffrax.Euler(), max_steps=GRID, key=jr.key(1))
    weights, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(weights: Any, batch: Any) -> Any:
        model = eqx.combine(weights, static)
        # The grid is not to be trained.
        model = eqx.tree_at(lambda model: model.controller, model, diffrax.StepTo(grid))
        said = jax.vmap(lambda series: model(series, grid[-1:])[0])(batch)
        return jnp.mean(jax.vmap(nk.models.jump_loss)(said, batch))

    def update(carry: tuple, batch: Any) -> tuple:
        weights, state = carry
        value, grads = jax.value_and_grad(loss)(weights, batch)
        changes, state = optimizer.update(grads, state, weights)
        return (eqx.apply_updates(weights, changes), state), value

    epoch = lambda weights, state, paths: lax.scan(update, (weights, state), paths)
    first = jax.tree.map(lambda x: x[0], paths)
    gradient = lambda: lambda weights, batch: jax.grad(loss)(weights, batch)
    ways = {
        "ndekit": Way(lambda: epoch, (weights, optimizer.init(weights), paths)),
        "gradient of a batch": Way(gradient, (weights, first)),
    }
    asked = Asked(
        "an epoch: ndekit / the authors' 65 s", "ndekit", AUTHORS_EPOCH, target=1 / 30
    )  # fmt: skip
    return Race(ways, (asked,), memory={"gradient of a batch": (KEPT, 1.0)}, rounds=5)


BLOCKS, LINEAR_HIDDEN, LINEAR_CHANNELS, LINEAR_BATCH = 4, 64, 6, 8
PLAIN, CHUNKED = "plain scan", "chunks of 128"


def linear_race(steps: int) -> Race:
    """Hidden 64 in blocks of 4, along 8 random walks of 6 channels; the loss is of the last state.

    Until the same end, however many steps: the generators of a step are as small as they are.
    """
    noise = irregular(LINEAR_BATCH, steps + 1, LINEAR_CHANNELS)
    batch = nk.data.Series(noise.ts / SPAN, jnp.cumsum(noise.xs, axis=1) / steps**0.5)

    def model_with(chunk: int) -> nk.models.LinearCDE:
        return nk.models.LinearCDE(
            LINEAR_CHANNELS, LINEAR_HIDDEN, 1, block_size=BLOCKS, chunk=chunk, key=jr.key(0)
        )

    def chunked(model: Any, series: Any) -> Any:
        return model(series)[0][0] ** 2

    def plain(model: Any, series: Any) -> Any:
        path = nk.controls.linear(nk.controls.channels(series, True, "none"))

        def across(y: Any, dx: Any) -> tuple:
            matrices, _ = flow_matrices(model.field, Increments((dx,)), model.flow)
            return moved(model.field, matrices, y), None

        last, _ = lax.scan(across, model.initial(path.xs[0]), jnp.diff(path.xs, axis=0))
        return model.readout(last)[0] ** 2

    chunks = (32, 128, 512, steps) if steps == 4000 else (128,)
    by_chunk = {f"chunks of {chunk}": model_with(chunk) for chunk in chunks}
    ways, model = {}, by_chunk[CHUNKED]
    for work, way in (("forward", forward_way), ("gradient", gradient_way)):
        ways[f"{work}, {PLAIN}"] = way(model, plain, batch)
        ways |= {f"{work}, {name}": way(each, chunked, batch) for name, each in by_chunk.items()}
    asked = [
        Asked(f"{work}: {name} / {PLAIN}", f"{work}, {name}", f"{work}, {PLAIN}")
        for work in ("forward", "gradient")
        for name in by_chunk
    ]
    matrices = LINEAR_BATCH * steps * LINEAR_HIDDEN * BLOCKS * 4
    memory = {f"gradient, {name}": (matrices, None) for name in (*by_chunk, PLAIN)}

    def agree() -> None:
        one, other = (jax.jit(ways[f"gradient, {w}"].make()) for w in (PLAIN, CHUNKED))
        given = ways[f"gradient, {PLAIN}"].arguments
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-3 * np.max(abs(b)))
        jax.tree.map(close, one(*given), other(*given))

    return Race(ways, tuple(asked), memory=memory, rounds=10, agree=agree)


# Made when asked for: nothing runs at import.
RACES: dict[str, Callable[[], Race]] = {
    "an update of the notebook's neural cde, Heun": lambda: notebook_race(on_grid=True),
    "an update of the notebook's neural cde, Tsit5": lambda: notebook_race(on_grid=False),
    "an update of the notebook's flow, exact trace": lambda: flow_race(exact=True),
    "an update of the notebook's flow, one probe": lambda: flow_race(exact=False),
    "ode-rnn, 100 irregular readings": ode_rnn_race,
    "jump ode, 20000 paths": jump_ode_race,
    "linear cde, 1000 steps": lambda: linear_race(1000),
    "linear cde, 4000 steps": lambda: linear_race(4000),
    "linear cde, 16000 steps": lambda: linear_race(16000),
}
