"""Pairs drawn from a transport plan that is smoothed by its entropy."""

import importlib.util
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from ..numbers import count, positive, real
from .cost import RandomKey, check_batches, pair_costs


class Sinkhorn(eqx.Module):
    r"""Pairs drawn from the plan $\pi$ with the least
    $\sum \pi_{ij} \lVert x_{0, i} - x_{1, j} \rVert^2 + \varepsilon \sum \pi_{ij} \log \pi_{ij}$.

    For each row of `x1` one of `x0` is drawn, so a row of `x0` may appear twice, or not at all.
    Small $\varepsilon$ is near [`ndekit.couplings.ExactOT`][] and slow, large $\varepsilon$ near
    [`ndekit.couplings.Independent`][]. By ott-jax: `pip install "ndekit[ott]"`.

    Args:
        epsilon: $\varepsilon$, in the unit of a squared distance, positive.
        condition_weight: as of `ExactOT`.
        threshold: how far from uniform the rows of the plan may be, summed, for the iteration to
            end; positive.
        max_iterations: after which it ends anyway, at least 1.

    Raises:
        ImportError: if ott-jax is not installed.
        ValueError: if a number is out of range; when called, if batches differ in shape.

    Example:
        ```{.python .no-run}
        import jax.random as jr, ndekit as nk

        x0, x1 = jr.normal(jr.key(0), (64, 2)), 3 + jr.normal(jr.key(1), (64, 2))
        x0, x1 = nk.couplings.Sinkhorn(0.1)(x0, x1, key=jr.key(2))
        ```

    Reference: Cuturi (2013), "Sinkhorn distances", arXiv 1306.0895.
    """

    epsilon: float | Array
    condition_weight: float | Array = 1.0
    threshold: float = eqx.field(default=1e-3, static=True)
    max_iterations: int = eqx.field(default=2000, static=True)

    def __check_init__(self):
        positive("epsilon", self.epsilon)
        real("condition_weight", self.condition_weight, least=0.0)
        positive("threshold", self.threshold)
        count("max_iterations", self.max_iterations)
        if importlib.util.find_spec("ott") is None:
            raise ImportError(
                "`Sinkhorn` and `SchroedingerBridge` need ott-jax, which is not installed. "
                'Run `pip install "ndekit[ott]"`, or take `nk.couplings.ExactOT()`.'
            )

    def __call__(
        self,
        x0: Float[Array, "n *shape"],
        x1: Float[Array, "n *shape"],
        *,
        key: RandomKey,
        condition: Any = None,
    ) -> tuple[Float[Array, "n *shape"], Float[Array, "n *shape"]]:
        check_batches(x0, x1)
        costs = pair_costs(x0, x1, condition, self.condition_weight)
        potential = self._potential(costs)
        logits = (potential[:, None] - costs) / self.epsilon
        return x0[jr.categorical(key, logits, axis=0)], x1

    def _potential(self, costs: Float[Array, "n n"]) -> Float[Array, " n"]:
        """Of the rows: the plan is exp((potential - costs) / epsilon), columns normalised."""
        from ott.geometry.geometry import Geometry  # pyright: ignore[reportMissingImports]
        from ott.solvers import linear  # pyright: ignore[reportMissingImports]

        # It promotes dtypes and ranks as JAX does by default.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            out = linear.solve(
                Geometry(cost_matrix=costs, epsilon=self.epsilon),
                threshold=self.threshold,
                max_iterations=self.max_iterations,
            )
        return jax.lax.stop_gradient(jnp.asarray(out.f, costs.dtype))


def SchroedingerBridge(sigma: float | Array, **options: Any) -> Sinkhorn:
    r"""`Sinkhorn` with $\varepsilon = 2 \sigma^2$: the pairs that a Brownian motion of standard
    deviation `sigma` at time 1 would most likely have made of the two batches.

    With [`ndekit.paths.Bridge`][] of the same `sigma` between them, the Schrödinger bridge.

    Args:
        sigma: of the Brownian motion, positive.
        **options: as of `Sinkhorn`.

    Raises:
        ImportError: if ott-jax is not installed.
        ValueError: if `sigma` is not positive.

    Example:
        ```{.python .no-run}
        import jax.random as jr, ndekit as nk

        x0, x1 = jr.normal(jr.key(0), (64, 2)), 3 + jr.normal(jr.key(1), (64, 2))
        x0, x1 = nk.couplings.SchroedingerBridge(1.0)(x0, x1, key=jr.key(2))
        ```

    Reference: Tong et al. (2024), "Simulation-free Schrödinger bridges via score and flow
    matching", arXiv 2307.03672, proposition 3.1.
    """
    positive("sigma", sigma)
    return Sinkhorn(2 * sigma**2, **options)
