"""Motion that keeps an energy."""

from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..shapes import Args, Time
from .gradient import Gradient, one_number
from .over_samples import halves, over_samples


class SeparableEnergy(eqx.Module):
    r"""$H(t, [q, p]) = T(t, p) + V(t, q)$: the energy of a motion with a symplectic solver.

    Args:
        kinetic: `kinetic(t, p, args)`, one number.
        potential: `potential(t, q, args)`, one number.

    Raises:
        ValueError: when called, if the state has no two halves.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        energy = nk.fields.SeparableEnergy(
            lambda t, p, args: 0.5 * jnp.sum(p**2), lambda t, q, args: -jnp.sum(jnp.cos(q))
        )
        assert energy(0.0, jnp.array([0.0, 2.0])) == 1.0
        ```
    """

    kinetic: Callable
    potential: Callable

    def __call__(self, t: Time, y: Float[Array, " both"], args: Args = None) -> Float[Array, ""]:
        q, p = halves(y)
        return self.kinetic(t, p, args) + self.potential(t, q, args)


class Hamiltonian(eqx.Module):
    r"""$q' = \partial H / \partial p, \; p' = -\partial H / \partial q$ of the state $y = [q, p]$.

    A solution keeps $H$, if that does not depend on the time, and volumes, whatever the network in
    it has learnt: a model without friction. A solver keeps them up to its error: over long times an
    explicit Runge-Kutta method drifts away by a little at each step, while the error of a
    symplectic one stays bounded. Use `terms` for that, with $H = T(p) + V(q)$.

    `y` may have leading axes, `(..., 2 * size)`; $H$ is given one sample at a time.

    Args:
        energy: `energy(t, y, args)`, one number for `y = [q, p]` of `(2 * size,)`: for example an
            [`ndekit.fields.MLP`][] with `out=()` and `final="linear"`, or an
            [`ndekit.fields.SeparableEnergy`][]. Its second derivative enters the training: no
            kinks.

    Raises:
        ValueError: when called, if the state has no two halves or the energy gives no single
            number.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        pendulum = nk.fields.Hamiltonian(
            nk.fields.SeparableEnergy(
                lambda t, p, args: 0.5 * jnp.sum(p**2), lambda t, q, args: -jnp.sum(jnp.cos(q))
            )
        )
        q, p = jnp.array([1.0]), jnp.array([0.0])
        sol = nk.diffeqsolve(
            pendulum.terms(), diffrax.SemiImplicitEuler(), 0.0, 10.0, 0.01, (q, p),
            stepsize_controller=diffrax.ConstantStepSize(),
        )
        y1 = jnp.concatenate([sol.ys[0][-1], sol.ys[1][-1]])
        change = pendulum.energy(10.0, y1) - pendulum.energy(0.0, jnp.array([1.0, 0.0]))
        assert abs(change) < 0.01
        ```

    Reference: Greydanus, Dzamba and Yosinski (2019), "Hamiltonian neural networks", arXiv
    1906.01563; separable and through a symplectic solver: Chen, Zhang, Arjovsky and Bottou (2020),
    "Symplectic recurrent neural networks", arXiv 1909.13334.
    """

    energy: Callable

    def __call__(
        self, t: Time, y: Float[Array, "*batch both"], args: Args = None
    ) -> Float[Array, "*batch both"]:
        halves(y)
        energy = one_number(self.energy, "energy")
        by_q, by_p = halves(over_samples(lambda y: jax.grad(energy, 1)(t, y, args), y, 1))
        return jnp.concatenate([by_p, -by_q], axis=-1)

    def terms(self) -> tuple[diffrax.ODETerm, diffrax.ODETerm]:
        r"""$q' = T'(p)$ and $p' = -V'(q)$, as `diffrax.SemiImplicitEuler` takes them.

        Its state is the pair `(q, p)`: `(y[..., :size], y[..., size:])`.

        Raises:
            ValueError: if the energy is no [`ndekit.fields.SeparableEnergy`][].
        """
        if not isinstance(self.energy, SeparableEnergy):
            raise ValueError(
                "`terms` needs an energy that is a sum, T(p) + V(q): make the `Hamiltonian` of a "
                "`SeparableEnergy(kinetic, potential)`. Any other is solved as one `ODETerm`."
            )
        fields = Gradient(self.energy.kinetic, ascend=True), Gradient(self.energy.potential)
        of_q, of_p = map(diffrax.ODETerm, fields)  # pyright: ignore[reportArgumentType]
        return of_q, of_p
