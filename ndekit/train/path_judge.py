"""What solves along a path come to: what they cost, and how far off they end."""

from collections.abc import Mapping
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..paths import AbstractGaussianPath, LearnedPath
from .path_solves import PathSolve


class Judge:
    """What solves along a path cost and how far off they end: the fewer the better, of those that
    end no further off than `path0` does, or than the tolerance.
    """

    def __init__(self, solve: PathSolve, x: Array):
        self.solve, self.x, self.looked_at, self.passed_over = solve, x, 0, 0
        self.fine = fine_ends(solve, x)
        self.before = self(solve.path0)
        self.most = self.before["off"]
        if solve.tolerance is not None:
            self.most = max(self.most, float(jnp.max(solve.tolerance[1] * solve.data_std)))

    def __call__(self, path: AbstractGaussianPath) -> dict[str, float]:
        return {name: float(x) for name, x in _judged(self.solve, path, self.x, self.fine).items()}

    def rank(self, found: Mapping[str, float]) -> float:
        """Less is better; beyond the most steps for ends that are too far off."""
        if found["off"] <= self.most:
            return found["error"] if "error" in found else found["steps"]
        return self.solve.max_steps + found["off"]

    def ranked(self, path: LearnedPath) -> dict[str, float]:
        found = self(path)
        self.looked_at += 1
        self.passed_over += found["off"] > self.most
        return found | {"rank": self.rank(found)}

    def remarks(self, after: Mapping[str, float]) -> tuple[str, ...]:
        told = f"further than {self.most:.2g} from a fine solve"
        if after["off"] > self.most:
            return (f"Samples end {after['off']:.2g}, {told}: the error estimate does not see it.",)
        if not self.passed_over:
            return ()
        return (
            f"{self.passed_over} of {self.looked_at} paths were passed over: their samples end "
            f"{told}, which the error estimate does not see.",
        )


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
    """Where points end by steps that are far smaller than asked for."""
    least = 64 * float(jnp.finfo(x.dtype).eps)
    asked = 1e-3 if solve.tolerance is None else jnp.min(jnp.stack(solve.tolerance))
    fine = PathSolve(
        solve.path0, solve.field, diffrax.Tsit5(), jnp.maximum(1e-3 * asked, least),
        (solve.sigma_min, solve.sigma_max), data_std=solve.data_std,
        max_steps=max(4096, 16 * solve.max_steps),
    )  # fmt: skip
    return fine.end_of(solve.path0, jax.vmap(lambda x: fine(solve.path0, x))(x))
