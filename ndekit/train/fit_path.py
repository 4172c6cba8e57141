"""The probability path on which a given solver has least to do, found by its own error."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, Key, UInt

from ..numbers import count
from ..paths import AbstractGaussianPath, LearnedPath
from ..regularize import StepBudget
from .fit import fit
from .path_judge import Judge
from .path_solves import PathSolve
from .update import Row

Learn = Literal["both", "warp", "scale"]
JUDGED = 512  # at most so many of the starting points are looked at before, between and after


class PathFit(NamedTuple):
    """What [`ndekit.train.fit_path`][] found.

    Attributes:
        path: the best path, with the pinned ends, of those that were looked at (the start, and one
            for each twentieth of the updates) and whose samples end near enough to a fine solve: no
            more than a tenth further off than on `path0`, or within the tolerance. The start, if
            there is none.
        before, after: of all starting points (the first 512) on `path0` and on `path`, by name: of
            adaptive solves `steps` (accepted and rejected, the mean), `accepted`, `rejected`,
            `worst` (the most of one sample) and `count`, the differentiable count that was
            minimised; of fixed steps `error`, the sum of squared local errors. Of both `off`, how
            far $x / a$ ends from where a fine solve does, root mean square (a solve at a thousandth
            of the tolerance, in float32 at no less than 8e-6).
        history: of [`ndekit.train.fit`][]: `loss`, `steps` (or `error`) for each update.
        remarks: what a budget has to say at the end, whether paths were passed over because of
            their ends, whether there are more steps than on `path0`, and whether there were fewer
            steps than knots, between which a path can hide its errors.
    """

    path: LearnedPath
    before: dict[str, float]
    after: dict[str, float]
    history: list[Row]
    remarks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        names = ("steps", "rejected", "worst") if "steps" in self.after else ("error",)
        names = (*names, "off")
        told = [f"{name} {self.before[name]:.4g} -> {self.after[name]:.4g}" for name in names]
        return f"PathFit({', '.join(told)})"


def fit_path(
    path0: AbstractGaussianPath,
    field: Callable,
    solver: diffrax.AbstractSolver,
    tolerance: float | tuple[float, float] | None = None,
    pinned: tuple[float, float] = (0.002, 80.0),
    *,
    starts: Float[Array, "n *shape"],
    key: Key[Array, ""] | UInt[Array, "2"],
    learn: Learn = "both",
    start: LearnedPath | None = None,
    num_knots: int = 8,
    size: int | None = None,
    budget: StepBudget | None = None,
    optimizer: optax.GradientTransformation | None = None,
    num_updates: int = 200,
    batch_size: int = 64,
    progress: bool = True,
    **options: Any,
) -> PathFit:
    r"""The [`ndekit.paths.LearnedPath`][] on which `solver` takes the fewest steps at `tolerance`.

    A velocity field that is known on one path is known on all, exactly
    ([`ndekit.paths.scale_time`][]); what a path is chosen for is the work of a solver. The
    objective is the solver's own: its differentiable count of steps ([`ndekit.StepCount`][]), of
    samples that are solved each by itself, on the steps that the controller took, which are
    constants of the gradient. Both ends of the noise are pinned, and the tolerance is one of
    $x / a$ ([`ndekit.paths.PathUnits`][]), so a path cannot win by noising less or by being small.
    Nor can it win by what an error estimate does not see: of the paths on the way those are passed
    over that end further from a fine solve than on `path0`, and than the tolerance.

    Of fixed steps (`num_steps`, for solvers such as `diffrax.Euler()`) the sum of the squared local
    errors is minimised.

    Args:
        path0: the path that the field is known on.
        field: the velocity on it, called as `field(t, y, args)`.
        solver, tolerance, pinned: as of [`ndekit.train.PathSolve`][], which also takes `options`:
            `num_steps`, `in_sigma`, `data_std`, `first_step`, `max_steps`.
        starts: points $x / a$ where the noise is `sigma_max`: data plus `sigma_max` times noise.
        key: draws the batches.
        learn: the warp of time, the scale, or both; with `in_sigma` there is a warp alone.
        start: where to begin; by default near `path0`. The count, a sum of roots, gets stuck more
            easily than the squares: fit by `num_steps` first, more of them than knots, and start
            from what that finds.
        num_knots: of warp and scale, at least 4.
        size: number of coordinates, for a scale of each; `None` for one scale.
        budget: a [`ndekit.StepBudget`][]: in place of the fewest steps, the path nearest to the
            start on which there are at most so many.
        optimizer: of optax; by default Adam, at a rate that falls from 0.1 to 0.
        num_updates, batch_size: of the training.
        progress: whether to show a progress bar.
        options: see above.

    Returns:
        A `PathFit`: the path, and the counts before, after, and in each update.

    Raises:
        ValueError: if a number is out of range, levels are in the wrong order or not among those of
            `path0`, the solver has no error estimate, or `size` is not that of the points.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        law = nk.models.GaussianMixture(jnp.array([[-1.0], [1.0]]), 0.3)
        path0 = nk.paths.CondOT()
        x = law.sample((64,), key=jr.key(0)) + 20 * jr.normal(jr.key(1), (64, 1))
        found = nk.train.fit_path(
            path0, law.velocity(path0), diffrax.Heun(), 1e-2, (0.01, 20.0), starts=x,
            key=jr.key(2), num_updates=5, progress=False,
        )
        assert jnp.allclose(found.path.sigma(1.0), 0.01) and found.after["steps"] > 1
        ```

    Reference: Shaul et al. (2024), "Bespoke solvers for generative flow models", arXiv 2310.19075,
    whose paths these are; their objective compares with solutions, here that is a condition. The
    solver's own error as the objective is ours.
    """
    solve = PathSolve(path0, field, solver, tolerance, pinned, **options)
    starts = _checked_starts(starts, size, batch_size)
    if learn not in ("both", "warp", "scale") or (solve.in_sigma and learn == "scale"):
        raise ValueError(f"`learn` must be 'both', 'warp' or, in time, 'scale', got {learn!r}.")
    if budget is not None and solve.tolerance is None:
        raise ValueError("A `budget` is of adaptive steps: pass a `tolerance`, not `num_steps`.")
    count("num_updates", num_updates)
    levels = solve.sigma_min, solve.sigma_max
    if start is None:
        start = LearnedPath.like(path0, *levels, num_knots=num_knots, size=size)
    elif (start.sigma_min, start.sigma_max) != levels:
        raise ValueError(
            f"`start` must have the pinned levels {levels}, got "
            f"{(start.sigma_min, start.sigma_max)}."
        )
    judge = Judge(solve, starts[:JUDGED], start)
    optimizer = optimizer or optax.adam(optax.cosine_decay_schedule(0.1, num_updates))
    result = fit(
        start, _loss(solve, start, learn, budget), _batches(starts, batch_size, key),
        optimizer=optimizer, num_updates=num_updates, key=key, progress=progress,
        evaluate=None if budget else judge, monitor=judge.by,
        carry=None if budget is None else budget.init(),
    )  # fmt: skip
    if budget is None:
        path, after, remarks = judge.chosen()
    else:
        path, after, remarks = result.model, judge.told(result.model), result.remarks
        if after["off"] > judge.most:
            remarks = (*remarks, f"Samples end {after['off']:.2g} from where a fine solve does.")
    return PathFit(
        path, judge.before, after, result.history, remarks + _blind_to(solve, learn, path)
    )


def _blind_to(solve: PathSolve, learn: Learn, path: LearnedPath) -> tuple[str, ...]:
    """What a scale with more knots than the solve has steps is to be looked at for."""
    steps, knots = solve.num_steps, path.log_scale.shape[0]
    if steps is None or solve.in_sigma or learn == "warp" or steps > knots:
        return ()
    return (
        f"{steps} fixed steps saw a scale of {knots} knots, which can hide its errors between "
        "them: compare the end with that of a finer solve, or fit with more steps than knots.",
    )


def _loss(solve: PathSolve, start: LearnedPath, learn: Learn, budget: StepBudget | None) -> Any:
    held = {"both": (), "warp": ("log_scale",), "scale": ("warp",)}[learn]

    def solved(path: LearnedPath, batch: Array) -> tuple[LearnedPath, Any]:
        for name in held:
            part: Any = lambda p, name=name: getattr(p, name)
            path = eqx.tree_at(part, path, getattr(start, name))
        return path, jax.vmap(lambda x: solve(path, x))(batch)

    def least(path: LearnedPath, batch: Array, step: Any, *, key: Any) -> tuple[Array, Mapping]:
        _, sol = solved(path, batch)
        if solve.num_steps is not None:
            error = jnp.mean(sol.costs["error"])
            # Of its logarithm: errors may fall by many orders of magnitude.
            return jnp.log(error + jnp.finfo(error.dtype).tiny), {"error": error}
        return jnp.mean(sol.costs["steps"]), {"steps": _mean_steps(sol, batch)}

    def within(
        path: LearnedPath, batch: Array, step: Any, *, key: Any, carry: Any
    ) -> tuple[Array, Mapping, Any]:
        assert budget is not None
        path, sol = solved(path, batch)
        task = 1 + distance(path, start)
        steps = sol.stats["num_steps"]
        loss, carry, parts = budget(task, steps, sol.costs["steps"], carry)
        return loss, {"steps": _mean_steps(sol, batch), "distance": task - 1, **parts}, carry

    return least if budget is None else within


def distance(path: LearnedPath, other: LearnedPath) -> Float[Array, ""]:
    r"""Mean square of the differences of $\log\sigma$, as a share of its fall, and of the scale's
    logarithm, over 33 times.
    """
    ts = jnp.linspace(0.0, 1.0, 33)
    span = jnp.log(path.sigma_max / path.sigma_min)
    warp = (path.log_rho(ts) - other.log_rho(ts)) / span
    scale = (
        jnp.log(path.m(ts))
        - jnp.log(other.m(ts))
        - jnp.expand_dims(
            (jnp.log(path.ratio(ts)[1]) - jnp.log(other.ratio(ts)[1])),
            tuple(range(1, path.log_scale.ndim)),
        )
    )
    return jnp.mean(warp**2) + jnp.mean(scale**2)


def _mean_steps(sol: Any, batch: Array) -> Array:
    return jnp.mean(sol.stats["num_steps"].astype(batch.dtype))


def _batches(starts: Array, batch_size: int, key: Any) -> Callable[[int], Array]:
    size = min(batch_size, len(starts))
    return lambda step: jr.choice(jr.fold_in(key, step), starts, (size,), replace=False)


def _checked_starts(starts: Any, size: int | None, batch_size: Any) -> Array:
    count("batch_size", batch_size)
    starts = jnp.asarray(starts)
    if starts.ndim < 2 or not jnp.issubdtype(starts.dtype, jnp.floating) or len(starts) == 0:
        raise ValueError(f"`starts` must be floating points of shape (n, ...), got {starts.shape}.")
    if size is not None and starts.shape[1:] != (count("size", size),):
        raise ValueError(
            f"`size` must be the number of coordinates of the points, {starts.shape[1:]}, got "
            f"{size}."
        )
    return starts
