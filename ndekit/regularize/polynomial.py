"""The distance of a trajectory from a polynomial in time as a cost."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array

from .. import tree
from ..integrate import AbstractTrajectoryCost
from ..integrate.times import promote_times
from ..numbers import count
from ..shapes import Scalar, State, Time
from .mean_square import mean_square


class TrajectoryPolynomial(AbstractTrajectoryCost):
    r"""The mean square of what a polynomial of degree $p$ in time leaves of the trajectory, at both
    ends and `points` uniformly drawn times between.

    $\lVert (I - U U^T) Y \rVert^2 / (n d)$: row $i$ of $Y$ is $y(t_i)$, the columns of $U$ are an
    orthonormal basis of the polynomials at the $n$ times, $d$ is the number of entries of the
    state. In units of state squared. A solver of order at least $p$ makes no error on a polynomial.

    The solve saves at these times, and evaluates nothing besides. It draws from
    `diffeqsolve(key=...)`: give it a new one for each update.

    Args:
        degree: $p$, at least 0; 1 is a straight line.
        points: how many times between the ends, at least `degree`, or nothing could be left.

    Raises:
        ValueError: for numbers out of range; when solving, without a `key`.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), 0.0, 1.0, 0.1, jnp.ones(2),
            costs={"bent": nk.TrajectoryPolynomial()}, key=jr.key(0),
        )
        ```

    Reference: Huang and Yeh, "Accelerating continuous normalizing flow with trajectory polynomial
    regularization", AAAI 2021 (TPR). They sum over the entries of the state: their weight of 5 is
    $5d$ here.
    """

    degree: int = eqx.field(static=True, default=1)
    points: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        count("degree", self.degree, 0)
        if count("points", self.points, 0) < max(self.degree, 1):
            raise ValueError(
                f"`points` must be at least 1 and at least `degree` ({self.degree}), or every "
                f"trajectory were a polynomial there; but got {self.points}."
            )

    def times(self, t0: Time, t1: Time, *, key: Array | None) -> Array:
        if key is None:
            raise ValueError(
                "`TrajectoryPolynomial` draws times and needs a key. Pass `diffeqsolve(key=...)`."
            )
        t0, t1 = promote_times(t0, t1)
        inner = t0 + jr.uniform(key, (self.points,), t0.dtype) * (t1 - t0)
        return jnp.concatenate([t0[None], inner, t1[None]])

    def of_states(self, ts: Array, ys: State) -> Scalar:
        t0, t1 = ts[0], ts[-1]
        span = jnp.where(t0 == t1, 1, t1 - t0)
        # From -1 to 1, where powers are far from parallel.
        scaled = 2 * (ts - t0) / span - 1
        powers = [scaled**power for power in range(self.degree + 1)]
        basis, _ = jnp.linalg.qr(jnp.stack(powers, axis=1))
        # Infinite where the solve stopped before.
        there = tree.all_finite(ys)
        ys = tree.masked(there, ys)

        def left(y: Array) -> Array:
            rows, u = y.reshape(len(ts), -1), basis.astype(y.dtype)
            return rows - u @ (u.T @ rows)

        return jnp.where(there, mean_square(jax.tree.map(left, ys)), 0)
