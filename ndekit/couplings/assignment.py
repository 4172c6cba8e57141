"""The best pairs of two batches, by exact assignment."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Float, Int
from scipy.optimize import linear_sum_assignment

from ..numbers import real
from .cost import RandomKey, check_batches, pair_costs


class ExactOT(eqx.Module):
    r"""The permutation of `x0` with the least $\sum_i \lVert x_{0, i} - x_{1, i} \rVert^2$.

    Every row is used once. Paths between such pairs cross less, so the field is straighter and
    cheaper to solve; in many dimensions a batch is too small for it to matter much. The time is
    cubic, of one step after another: for batches of up to some hundred rows. Called on its own the
    assignment is SciPy's, on the host; inside of `jax.jit` it is optax's, which takes some five
    times as long on a CPU. Both find the least.

    With a condition (a label, say) pairs by distance alone make the noise depend on the condition,
    and a conditional model worse; so it is part of the cost. Row $i$ of `x0` then comes with row
    $i$ of `condition`.

    Args:
        condition_weight: price of another label, or factor of the squared distance of conditions
            that are real numbers; at least 0.

    Raises:
        ValueError: if `condition_weight` is out of range; when called, if batches differ in shape.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        x0, x1 = jnp.array([[0.0], [2.0]]), jnp.array([[2.1], [0.3]])
        pairs = nk.couplings.ExactOT()
        assert jnp.all(pairs(x0, x1)[0] == jnp.array([[2.0], [0.0]]))
        labels = jnp.array([0, 1])
        heavy = nk.couplings.ExactOT(condition_weight=100.0)
        assert jnp.all(heavy(x0, x1, condition=labels)[0] == x0)
        ```

    Reference: Tong et al. (2024), "Improving and generalizing flow-based generative models with
    minibatch optimal transport", arXiv 2302.00482; with conditions Cheng and Schwing (2025), "The
    curse of conditions", arXiv 2503.10636.
    """

    condition_weight: float | Array = 1.0

    def __check_init__(self):
        real("condition_weight", self.condition_weight, least=0.0)

    def __call__(
        self,
        x0: Float[Array, "n *shape"],
        x1: Float[Array, "n *shape"],
        *,
        key: RandomKey | None = None,
        condition: Any = None,
    ) -> tuple[Float[Array, "n *shape"], Float[Array, "n *shape"]]:
        check_batches(x0, x1)
        costs = pair_costs(x0, x1, condition, self.condition_weight)
        # What is not finite would keep the search from its end. A row at one price with all has no
        # say in who goes with whom.
        costs = jnp.where(jnp.isfinite(costs), costs, 0)
        return x0[partners(costs)], x1


def partners(costs: Float[Array | np.ndarray, "n n"]) -> Int[Array | np.ndarray, " n"]:
    """For each column the row that the cheapest assignment gives it."""
    if not isinstance(costs, Tracer):
        return linear_sum_assignment(np.asarray(costs).T)[1]
    rows, columns = optax.assignment.hungarian_algorithm(costs)
    return jnp.zeros_like(rows).at[columns].set(rows)
