"""Solves as vectors of numbers: by the engine, and by diffrax on recorded times."""

import dataclasses
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from support.problems import PROBLEMS, SOLVERS, Problem, costs_for

import ndekit as nk

# What a user may differentiate by.
INPUTS = ("y0", "args", "t0", "t1", "ts")


@dataclasses.dataclass(frozen=True)
class Case:
    """One problem under one solver, loose enough that rounding is far below every error."""

    solver_name: str
    problem_name: str
    rtol: float = 1e-3
    first: float = 0.15  # dt0 by span: long, for the error of a short step is mostly rounding
    number: int = 64  # max_steps

    @property
    def problem(self) -> Problem:
        return PROBLEMS[self.problem_name]

    @property
    def solver(self):
        return SOLVERS[self.solver_name]

    @property
    def costs(self):
        return costs_for(self.solver_name)

    @property
    def controller(self):
        return diffrax.PIDController(rtol=self.rtol, atol=self.rtol / 10)

    @property
    def dt0(self):
        return (self.problem.t1 - self.problem.t0) * self.first

    @property
    def inputs(self):
        p = self.problem
        times = jnp.asarray(p.t0), jnp.asarray(p.t1), jnp.asarray(p.ts)
        return dict(zip(INPUTS, (p.state(), p.parameters(), *times), strict=True))


def numbers_of(ys, costs) -> Any:
    """A random projection of all saved values, and every cost."""
    flat, _ = ravel_pytree(ys)
    weights = np.random.default_rng(1).normal(size=flat.size)
    return jnp.stack([jnp.asarray(weights, flat.dtype) @ flat, *[costs[k] for k in sorted(costs)]])


def by_engine(case: Case, inputs, adjoint=None, close_over=False):
    field, args = case.problem.field, inputs["args"]
    if close_over:
        field, args = lambda t, y, _: case.problem.field(t, y, inputs["args"]), None
    sol = nk.diffeqsolve(
        diffrax.ODETerm(field), case.solver, inputs["t0"], inputs["t1"], case.dt0, inputs["y0"],
        args, saveat=diffrax.SaveAt(ts=inputs["ts"], t1=True), stepsize_controller=case.controller,
        adjoint=nk.ReplayAdjoint() if adjoint is None else adjoint,
        costs=case.costs, max_steps=case.number,
    )  # fmt: skip
    return numbers_of(sol.ys, sol.costs)


def by_diffrax(case: Case, inputs, adjoint=None, grid=None):
    """Diffrax's own loop; on a `grid`, only the first step sees t0 and only the last sees t1."""
    controller, dt0, max_steps = case.controller, case.dt0, case.number
    if grid is not None:
        times = jnp.asarray(grid).at[0].set(inputs["t0"]).at[-1].set(inputs["t1"])
        controller, dt0, max_steps = diffrax.StepTo(times), None, len(grid) - 1
    recorder = nk.Recorder(case.solver, case.costs, rtol=case.rtol, atol=case.rtol / 10)
    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(case.problem.field), recorder, inputs["t0"], inputs["t1"], dt0,
        inputs["y0"], inputs["args"], stepsize_controller=controller, max_steps=max_steps,
        saveat=diffrax.SaveAt(ts=inputs["ts"], t1=True, solver_state=True),
        adjoint=diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
    )  # fmt: skip
    return numbers_of(sol.ys, recorder.costs_of(sol))


def recorded_grid(case: Case):
    """The times between diffrax's own accepted steps."""
    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(case.problem.field), case.solver, case.problem.t0, case.problem.t1,
        case.dt0,
        case.problem.state(), case.problem.parameters(), stepsize_controller=case.controller,
        saveat=diffrax.SaveAt(t0=True, steps=True), max_steps=case.number,
    )  # fmt: skip
    ts = np.asarray(sol.ts)
    return ts[np.isfinite(ts)]


def names_of(case: Case):
    """What the entries of `numbers_of` are."""
    return ["ys", *sorted(case.costs)]


def gradients(function, inputs, number):
    """d(entry)/d(input) for each of `number` entries, compiled once."""
    weighted = jax.jit(jax.grad(lambda inputs, weights: function(inputs) @ weights))
    dtype = inputs["t0"].dtype
    rows = [weighted(inputs, jnp.asarray(row, dtype)) for row in np.eye(number)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def direction_like(tree):
    """A fixed random direction, the same for the same shapes."""
    flat, unravel = ravel_pytree(tree)
    return unravel(jnp.asarray(np.random.default_rng(2).normal(size=flat.size), flat.dtype))


WIDTH = 5e-5


def finite_difference(function, inputs, name, width=WIDTH):
    """The derivative along a random direction of one input: a central difference, order four."""
    direction = direction_like(inputs[name])

    def at(distance):
        moved = jax.tree.map(lambda x, d: x + distance * d, inputs[name], direction)
        return function(inputs | {name: moved})

    near, far = at(width) - at(-width), at(2 * width) - at(-2 * width)
    return (8 * near - far) / (12 * width)


def along_direction(gradient, like):
    """The same derivative from gradients stacked over entries."""
    direction, _ = ravel_pytree(direction_like(like))
    return jnp.stack(
        [
            ravel_pytree(jax.tree.map(lambda g, row=row: g[row], gradient))[0] @ direction
            for row in range(jax.tree.leaves(gradient)[0].shape[0])
        ]
    )
