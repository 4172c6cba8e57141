"""Positions and velocities, moved by an acceleration."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..shapes import Args, Time
from .over_samples import halves


class SecondOrder(eqx.Module):
    r"""$q' = v, \; v' = a(t, [q, v])$: the state is $y = [q, v]$, two halves of the last axis.

    For motion: what is learnt is the acceleration, and $q' = v$ holds exactly. Paths of $q$ alone
    may cross, so that it is also a way to give a state more room.

    `lift` makes a first state of positions, `drop` gives back the positions. Leading axes are
    allowed if the acceleration allows them.

    Args:
        acceleration: `acceleration(t, y, args)` of the whole state `(..., 2 * size)`, as long as
            $q$: for example an [`ndekit.fields.MLP`][] with `out=size`.
        velocity: `velocity(q)`, the first velocity in `lift`, for example an
            [`ndekit.fields.Affine`][]; zero if `None`.

    Raises:
        ValueError: when called, if the state has no two halves, or the acceleration another shape
            than $q$.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        spring = nk.fields.SecondOrder(lambda t, y, args: -y[..., :1])
        y0 = spring.lift(jnp.array([1.0]))  # position 1, velocity 0
        sol = nk.diffeqsolve(
            diffrax.ODETerm(spring), diffrax.Tsit5(), 0.0, jnp.pi, None, y0,
            stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
        )
        assert jnp.allclose(spring.drop(sol.ys[-1]), -1.0, atol=1e-4)
        ```

    Reference: Norcliffe, Bodnar, Day, Simidjievski and Liò (2020), "On second order behaviour in
    neural ODEs", arXiv 2006.07220.
    """

    acceleration: Callable
    velocity: Callable | None = None

    def __call__(
        self, t: Time, y: Float[Array, "*batch both"], args: Args = None
    ) -> Float[Array, "*batch both"]:
        q, v = halves(y)
        a = self.acceleration(t, y, args)
        if jnp.shape(a) != q.shape:
            raise ValueError(
                f"The acceleration must have the shape of the positions, {q.shape}, but has "
                f"{jnp.shape(a)}. Of a network, give it `out={q.shape[-1]}`."
            )
        return jnp.concatenate([v, a], axis=-1)

    def lift(self, q: Float[Array, "*batch size"]) -> Float[Array, "*batch both"]:
        """The state at these positions, with the first velocity."""
        v = jnp.zeros_like(q) if self.velocity is None else self.velocity(q)
        if jnp.shape(v) != q.shape:
            raise ValueError(
                f"The velocity must have the shape of the positions, {q.shape}, but has "
                f"{jnp.shape(v)}."
            )
        return jnp.concatenate([q, v], axis=-1)

    def drop(self, y: Float[Array, "*batch both"]) -> Float[Array, "*batch size"]:
        """The positions."""
        return halves(y)[0]
