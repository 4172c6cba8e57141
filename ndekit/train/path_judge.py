"""What solves along a path come to: what they cost, and how far off they end."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..paths import AbstractGaussianPath, LearnedPath
from .path_solves import PathSolve


class Judge:
    """Keeps the best of the paths that it looks at: the one that costs least of those whose samples
    end near enough to a fine solve.

    Args:
        start: what is the best until a better one is seen, if it ends near enough.

    Attributes:
        by: what a path costs, one of what is told.
        most: how far off samples may end: a tenth further than on `path0`, or as far as an absolute
            or a relative tolerance says.
    """

    def __init__(self, solve: PathSolve, x: Array, start: LearnedPath):
        self.solve, self.x, self.start = solve, x, start
        self.by = "steps" if solve.num_steps is None else "error"
        self.looked_at, self.passed_over, self.best = 0, 0, None
        self.fine = fine_ends(solve, x)
        self.before = self.told(solve.path0)
        self.most = 1.1 * self.before["off"]
        if solve.tolerance is not None:
            size = jnp.sqrt(jnp.mean(self.fine**2))
            rtol, atol = solve.tolerance
            told = jnp.maximum(jnp.max(jnp.asarray(atol * solve.data_std)), rtol * size)
            self.most = max(self.most, float(told))
        self.at_start = self.told(start)
        self._keep(start, self.at_start)

    def told(self, path: AbstractGaussianPath) -> dict[str, float]:
        return {name: float(x) for name, x in _judged(self.solve, path, self.x, self.fine).items()}

    def __call__(self, path: LearnedPath) -> dict[str, float]:
        found = self.told(path)
        self.looked_at += 1
        self.passed_over += not self._keep(path, found)
        return found

    def _keep(self, path: LearnedPath, found: dict[str, float]) -> bool:
        """Whether it ends near enough."""
        near = found["off"] <= self.most
        if near and (self.best is None or found[self.by] < self.best[1][self.by]):
            self.best = path, found
        return near

    def chosen(self) -> tuple[LearnedPath, dict[str, float], tuple[str, ...]]:
        """The best path, or the start, and remarks."""
        told = (
            f"further than {self.most:.2g} from a fine solve, which an error estimate may not see"
        )
        path, found = self.best or (self.start, self.at_start)
        remarks = []
        if self.best is None:
            remarks.append(f"This is the start, and its samples end {found['off']:.2g}, {told}.")
        if self.passed_over:
            remarks.append(
                f"{self.passed_over} of {self.looked_at} paths were passed over: their samples end "
                f"{told}."
            )
        if found.get("steps", 0.0) > self.before.get("steps", 0.0):
            remarks.append("It takes more steps than `path0`.")
        return path, found, tuple(remarks)


@eqx.filter_jit
def _judged(solve: PathSolve, path: AbstractGaussianPath, x: Array, fine: Array) -> dict[str, Any]:
    """Over points that are solved each by itself."""
    sol = jax.vmap(lambda x: solve(path, x))(x)
    mean = lambda values: jnp.mean(values.astype(x.dtype))
    off = jnp.sqrt(jnp.mean((solve.end_of(path, sol) - fine) ** 2))
    if solve.num_steps is not None:
        return {"error": mean(sol.costs["error"]), "off": off}
    stats = sol.stats
    return {
        "steps": mean(stats["num_steps"]),
        "accepted": mean(stats["num_accepted_steps"]),
        "rejected": mean(stats["num_rejected_steps"]),
        "worst": jnp.max(stats["num_steps"]).astype(x.dtype),
        "count": mean(sol.costs["steps"]),
        "off": off,
    }


@eqx.filter_jit
def fine_ends(solve: PathSolve, x: Array) -> Array:
    """Where points end by a tolerance of a thousandth, as far as the dtype has it."""
    least = 64 * float(jnp.finfo(x.dtype).eps)
    asked = 1e-3 if solve.tolerance is None else jnp.min(jnp.stack(solve.tolerance))
    fine = PathSolve(
        solve.path0, solve.field, diffrax.Tsit5(), jnp.maximum(1e-3 * asked, least),
        (solve.sigma_min, solve.sigma_max), data_std=solve.data_std,
        max_steps=max(4096, 16 * solve.max_steps),
    )  # fmt: skip
    return fine.end_of(solve.path0, jax.vmap(lambda x: fine(solve.path0, x))(x))
