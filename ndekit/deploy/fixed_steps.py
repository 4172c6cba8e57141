"""The smallest scheme of fixed steps that predicts as the adaptive solve does."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..integrate.steppers.explicit import ExplicitRungeKutta, explicit_runge_kutta
from ..models import NeuralODE
from ..numbers import count, positive

SOLVERS = (
    diffrax.Euler(),
    diffrax.Midpoint(),
    diffrax.Heun(),
    diffrax.Bosh3(),
    diffrax.Tsit5(),
    diffrax.Dopri8(),
)


class Scheme(NamedTuple):
    """A solver with a number of equal steps from `t0` to `t1`."""

    solver: diffrax.AbstractSolver
    num_steps: int
    evals: int  # of the vector field, in one solve
    error: float  # of the predictions, against the adaptive solve


class FixedSteps(NamedTuple):
    """What comes out of [`ndekit.deploy.fix_steps`][]; printed, a table.

    Attributes:
        model: the model with the best scheme.
        best: the scheme.
        found: for each solver the least steps that keep the error, where there are any.
        adaptive_evals: evaluations of one adaptive solve, the mean over a batch in lanes and over
            the solves of a model; not a number if neither the model nor `predict` returns a
            solution.
        max_error: what was asked for.
    """

    model: PyTree
    best: Scheme
    found: list[Scheme]
    adaptive_evals: float
    max_error: float

    def __str__(self) -> str:
        lines = [f"{'solver':<12}{'steps':>6}{'evals':>7}{'error':>12}"]
        for scheme in self.found:
            mark = "  <-" if scheme == self.best else ""
            name = type(scheme.solver).__name__
            lines.append(
                f"{name:<12}{scheme.num_steps:>6}{scheme.evals:>7}{scheme.error:>12.3g}{mark}"
            )
        kept = f"error at most {self.max_error:g}"
        if self.adaptive_evals == self.adaptive_evals:
            ratio = self.best.evals / self.adaptive_evals
            kept = f"adaptive: {self.adaptive_evals:g} evaluations; now x{ratio:.2f}, {kept}"
        lines.append(kept)
        return "\n".join(lines)


def fix_steps(
    model: PyTree,
    data: Any,
    max_error: float,
    *,
    predict: Callable[[PyTree, Any], Any] | None = None,
    error: Callable[[Any, Any], Array] | None = None,
    solvers: Sequence[diffrax.AbstractSolver] = SOLVERS,
    max_steps: int = 256,
) -> FixedSteps:
    r"""Replace the adaptive solve of a trained model by the fewest evaluations that predict alike.

    For each solver the least number of equal steps whose predictions on `data` are within
    `max_error` of the adaptive ones, by bisection between a number that fails and one that holds;
    of these schemes, the one with the fewest evaluations of the vector field. A fixed number of
    steps has no controller, no rejected step, and the same run time for each input.

    Args:
        model: a [`ndekit.models.NeuralODE`][], or a PyTree that holds one or several. Its own
            tolerances set what counts as the truth.
        data: inputs like those of use: what the scheme does on others is not known.
        max_error: what may be lost, in the unit of `error`; positive.
        predict: `predict(model, data)`, an array or a PyTree of arrays; by default `model(data)`,
            of a solution its `ys`, of a tuple the first entry.
        error: `error(fixed, adaptive)`, a scalar; by default the largest absolute difference of any
            entry. To count changed classes: `lambda a, b: jnp.mean(a.argmax(-1) != b.argmax(-1))`.
        solvers: explicit Runge-Kutta solvers to choose from.
        max_steps: the most steps to try.

    Returns:
        A [`ndekit.deploy.FixedSteps`][].

    Raises:
        ValueError: if `model` holds no `NeuralODE`, a solver is no explicit Runge-Kutta solver,
            `max_error` is not positive, or no scheme of `max_steps` steps keeps it.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr, ndekit as nk

        ode = nk.models.NeuralODE(nk.fields.MLP(2, width=16, depth=1, key=jr.key(0)))
        report = nk.deploy.fix_steps(ode, jnp.ones((8, 2)), max_error=1e-3)
        print(report)
        fast = report.model
        ```
    """
    if not any(map(_is_ode, jax.tree.leaves(model, is_leaf=_is_ode))):
        raise ValueError("`model` holds no `ndekit.models.NeuralODE`, whose steps could be fixed.")
    positive("max_error", max_error)
    count("max_steps", max_steps)
    steppers = [_stepper_of(solver) for solver in solvers]
    whole = _whole if predict is None else predict
    predict = _predict if predict is None else predict
    error = _largest_difference if error is None else error
    model = _map_odes(lambda ode: dataclasses.replace(ode, costs={}), model)
    truth = eqx.filter_jit(predict)(model, data)
    found, least = [], None
    for solver, stepper in zip(solvers, steppers, strict=True):
        judge = _Judge(model, data, predict, error, truth, solver, stepper)
        most = max_steps if least is None else judge.steps_below(least)
        scheme = _least_steps(judge, max_error, min(most, max_steps))
        if scheme is not None:
            found.append(scheme)
            least = scheme.evals if least is None else min(least, scheme.evals)
    if not found:
        raise ValueError(
            f"No scheme of up to {max_steps} steps stays within {max_error:g} of the adaptive "
            "solve. Allow a larger `max_error` or more `max_steps`, or train with "
            "`StepCount()` for a model that is easier to solve."
        )
    best = min(found, key=lambda scheme: scheme.evals)
    fixed = with_fixed_steps(model, best.solver, best.num_steps)
    return FixedSteps(fixed, best, found, _evals_of(whole, model, data), max_error)


def with_fixed_steps(model: PyTree, solver: diffrax.AbstractSolver, num_steps: Any) -> PyTree:
    """The model with every solve by `num_steps` equal steps from its `t0` to its `t1`."""
    # The times of the steps are sums of rounded ones: without this there could be a last, tiny one.
    longer = 1 + num_steps * float(jnp.finfo(jnp.result_type(float)).eps)

    def fixed(ode: NeuralODE) -> NeuralODE:
        return dataclasses.replace(
            ode, solver=solver, controller=diffrax.ConstantStepSize(),
            dt0=(ode.t1 - ode.t0) / num_steps * longer, costs={},
        )  # fmt: skip

    return _map_odes(fixed, model)


def _stepper_of(solver: diffrax.AbstractSolver) -> ExplicitRungeKutta:
    """How the engine steps, which says what a step takes."""
    stepper = explicit_runge_kutta(solver)
    if stepper is None:
        raise ValueError(
            f"`solvers` must be explicit Runge-Kutta solvers, but `{type(solver).__name__}` is "
            "none: what its steps take is not known. Leave it out."
        )
    return stepper


class _Judge:
    """The error of one solver with any number of steps, compiled once, and what they take."""

    def __init__(
        self,
        model: PyTree,
        data: Any,
        predict: Callable,
        error: Callable,
        truth: Any,
        solver: diffrax.AbstractSolver,
        stepper: ExplicitRungeKutta,
    ):
        # Too few steps may blow up, which is an error like another.
        quiet = _map_odes(lambda ode: dataclasses.replace(ode, throw=False), model)
        from_steps = lambda steps: error(
            predict(with_fixed_steps(quiet, solver, steps), data), truth
        )
        self.solver = solver
        self._error = eqx.filter_jit(from_steps)
        self._first, self._each = int(stepper.first_same_as_last), stepper.evals_per_step

    def evals(self, num_steps: int) -> int:
        return self._first + self._each * num_steps

    def steps_below(self, evals: int) -> int:
        """The most steps that take fewer evaluations."""
        return (evals - 1 - self._first) // self._each

    def __call__(self, num_steps: int) -> float:
        found = float(self._error(jnp.asarray(float(num_steps))))
        return found if found == found else float("inf")


def _least_steps(judge: _Judge, max_error: float, most: int) -> Scheme | None:
    """By doubling, then by bisection; `None` if not even the most steps will do."""
    fails, holds = 0, 1
    while holds <= most and judge(holds) > max_error:
        fails, holds = holds, 2 * holds
    if holds > most:
        holds = most
        if holds <= fails or judge(holds) > max_error:
            return None
    while holds - fails > 1:
        middle = (fails + holds) // 2
        if judge(middle) > max_error:
            fails = middle
        else:
            holds = middle
    return Scheme(judge.solver, holds, judge.evals(holds), judge(holds))


def _is_ode(x: Any) -> bool:
    return isinstance(x, NeuralODE)


def _map_odes(fn: Callable[[NeuralODE], NeuralODE], model: PyTree) -> PyTree:
    return jax.tree.map(lambda x: fn(x) if _is_ode(x) else x, model, is_leaf=_is_ode)


def _predict(model: Any, data: Any) -> Any:
    out = _whole(model, data)
    out = out[0] if isinstance(out, tuple) else out
    return out.ys if isinstance(out, diffrax.Solution) else out


def _largest_difference(fixed: Any, adaptive: Any) -> Array:
    largest = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), fixed, adaptive)
    return jnp.max(jnp.stack(jax.tree.leaves(largest)))


def _whole(model: Any, data: Any) -> Any:
    return model(data)


def _evals_of(run: Callable, model: PyTree, data: Any) -> float:
    """Evaluations of an adaptive solve, where what `run` gives says them."""
    leaves = jax.tree.leaves(
        eqx.filter_jit(run)(model, data), is_leaf=lambda x: isinstance(x, diffrax.Solution)
    )
    counts = [x.stats["num_evals"] for x in leaves if isinstance(x, diffrax.Solution)]
    means = [float(jnp.mean(count)) for count in counts]
    return sum(means) / len(means) if means else float("nan")
