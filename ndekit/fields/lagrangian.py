"""Motion by the principle of least action."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from ..numbers import real
from ..shapes import Args, Time, time_in
from .gradient import one_number
from .over_samples import halves, over_samples


class Lagrangian(eqx.Module):
    r"""$q' = v, \; v' = M^{-1} \big(\partial_q L - (\partial_t + v \cdot \partial_q)\,
    \partial_v L\big)$ with $M = \partial_v^2 L$: the Euler-Lagrange equation of $L(t, [q, v])$,
    with the state $y = [q, v]$.

    For motion whose momenta are not known: an energy is kept, as by
    [`ndekit.fields.Hamiltonian`][], but from positions and velocities in any coordinates. All
    derivatives are exact; the system with the mass matrix $M$ is solved by `lineax.LU`, a single
    equation by division.

    A mass matrix that is singular, as that of an $L$ that is linear in $v$, gives rates that are
    not finite, and no error from here: a solve then ends with a result that says so. Derivatives
    of such rates do raise, in `lineax`. One that is nearly singular gives large rates. A network
    alone has such matrices before it is trained: give it an `inertia`.

    `y` may have leading axes, `(..., 2 * size)`; $L$ is given one sample at a time.

    Args:
        lagrangian: `lagrangian(t, y, args)`, one number for `y = [q, v]` of `(2 * size,)`: for
            example an [`ndekit.fields.MLP`][] with `out=()` and `final="linear"`. Its third
            derivative enters the training: no kinks, nor kinks in its slope.
        inertia: $m \ge 0$ of $\tfrac12 m \lVert v \rVert^2$, which is added to the Lagrangian; 1 is
            a good choice for a network, 0 for a Lagrangian that is known.

    Raises:
        ValueError: for an `inertia` out of range; when called, if the state has no two halves or
            the Lagrangian gives no single number.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        pendulum = nk.fields.Lagrangian(
            lambda t, y, args: 0.5 * y[1] ** 2 + jnp.cos(y[0])
        )
        rate = pendulum(0.0, jnp.array([1.0, 0.3]))
        assert jnp.allclose(rate, jnp.array([0.3, -jnp.sin(1.0)]))
        network = nk.fields.MLP(2, 32, 2, out=(), final="linear", key=jr.key(0))
        learnt = nk.fields.Lagrangian(network, inertia=1.0)
        ```

    Reference: Cranmer, Greydanus, Hoyer, Battaglia, Spergel and Ho (2020), "Lagrangian neural
    networks", arXiv 2003.04630, equation 6.
    """

    lagrangian: Callable
    inertia: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        real("inertia", self.inertia, least=0.0)

    def __call__(
        self, t: Time, y: Float[Array, "*batch both"], args: Args = None
    ) -> Float[Array, "*batch both"]:
        halves(y)
        return over_samples(lambda y: self._rate(t, y, args), y, 1)

    def _rate(self, t: Time, y: Float[Array, " both"], args: Args) -> Float[Array, " both"]:
        network = one_number(self.lagrangian, "Lagrangian")
        q, v = halves(y)
        t = time_in(None, t)
        if not jnp.issubdtype(t.dtype, jnp.inexact):
            t = t.astype(y.dtype)

        def action(t: Array, q: Array, v: Array) -> Array:
            return network(t, jnp.concatenate([q, v]), args) + 0.5 * self.inertia * jnp.sum(v**2)

        momentum = jax.grad(action, 2)
        # d/dt of the momentum, had the velocity not changed.
        along = (jnp.ones_like(t), v, jnp.zeros_like(v))
        _, drift = jax.jvp(momentum, (t, q, v), along)
        mass = jax.jacfwd(momentum, 2)(t, q, v)
        force = jax.grad(action, 1)(t, q, v) - drift
        acceleration = _solve(mass, force)
        return jnp.concatenate([v, acceleration])


def _solve(mass: Float[Array, "size size"], force: Float[Array, " size"]) -> Float[Array, " size"]:
    """The mass matrix is symmetric, but that of a network not positive: no Cholesky factors."""
    if len(force) == 1:  # a division, where a call of LAPACK for each sample would take longer
        operator, solver = lx.DiagonalLinearOperator(mass[0]), lx.Diagonal(well_posed=True)
    else:
        operator, solver = lx.MatrixLinearOperator(mass), lx.LU()
    return lx.linear_solve(operator, force, solver, throw=False).value
