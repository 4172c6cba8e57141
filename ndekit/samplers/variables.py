r"""The variables that a flow is solved in, and the states that belong to them."""

import abc
from collections.abc import Callable
from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from ..paths import AbstractGaussianPath
from ..paths.conversion import Prediction
from ..paths.roots import as_time, not_below_zero
from ..shapes import Time

Variable = Literal["t", "sigma", "log_sigma", "rho", "log_rho", "angle"]
Turned = Callable[[Prediction], Array]  # what a network says at a point, as any prediction


class AbstractVariable(eqx.Module):
    """A monotone function `u` of time, and the state `x / scale` whose rate by `u` is a prediction
    times a factor.

    Attributes:
        rate: which prediction that is.
        infinite: what has to be 0 where `u`, or the state, is infinite.
    """

    rate: ClassVar[Prediction]
    infinite: ClassVar[str]

    @abc.abstractmethod
    def at(self, path: AbstractGaussianPath, t: Time) -> Array:
        """`u` at a time."""

    @abc.abstractmethod
    def time(self, path: AbstractGaussianPath, u: Time) -> Array:
        """The time at which `u` is reached."""

    @abc.abstractmethod
    def scale(self, path: AbstractGaussianPath, t: Time) -> Array:
        """What a point is divided by."""

    def factor(self, u: Time) -> Array:
        """Of the prediction in the rate."""
        return jnp.ones_like(as_time(u))

    def rate_of(self, u: Time, turned: Turned) -> Array:
        """The rate of the state by `u`."""
        value = turned(self.rate)
        return self.factor(u).astype(value.dtype) * value


class OfTime(AbstractVariable):
    rate: ClassVar[Prediction] = "velocity"
    infinite: ClassVar[str] = "nothing"

    def at(self, path: AbstractGaussianPath, t: Time) -> Array:
        return as_time(t)

    def time(self, path: AbstractGaussianPath, u: Time) -> Array:
        return as_time(u)

    def scale(self, path: AbstractGaussianPath, t: Time) -> Array:
        return jnp.ones_like(as_time(t))


class AbstractLevel(AbstractVariable):
    """A function of the level of noise alone."""

    @abc.abstractmethod
    def of_noise(self, u: Time) -> tuple[Array, Array]:
        r"""Of the reverse SDE with $\gamma = g$: what multiplies the noise that is added to the
        rate, and the square of the diffusion.
        """


class Sigma(AbstractLevel):
    rate: ClassVar[Prediction] = "noise"
    infinite: ClassVar[str] = "a"

    def at(self, path: AbstractGaussianPath, t: Time) -> Array:
        return path.sigma(as_time(t))

    def time(self, path: AbstractGaussianPath, u: Time) -> Array:
        return path.t_of_sigma(u)

    def scale(self, path: AbstractGaussianPath, t: Time) -> Array:
        return path.a(as_time(t))

    def of_noise(self, u: Time) -> tuple[Array, Array]:
        factor = self.factor(u)
        return factor, 2 * u * factor


class LogSigma(Sigma):
    infinite: ClassVar[str] = "a or m"

    def at(self, path: AbstractGaussianPath, t: Time) -> Array:
        return -path.log_rho(as_time(t))

    def time(self, path: AbstractGaussianPath, u: Time) -> Array:
        return path.t_of_sigma(self.factor(u))

    def factor(self, u: Time) -> Array:
        return jnp.exp(as_time(u))

    def of_noise(self, u: Time) -> tuple[Array, Array]:
        return self.factor(u), 2 * self.factor(u) ** 2


class Rho(AbstractLevel):
    rate: ClassVar[Prediction] = "data"
    infinite: ClassVar[str] = "m"

    def at(self, path: AbstractGaussianPath, t: Time) -> Array:
        return path.rho(as_time(t))

    def time(self, path: AbstractGaussianPath, u: Time) -> Array:
        level = as_time(u)
        return path.t_of_ratio(jnp.minimum(level, 1), 1 / jnp.maximum(level, 1))

    def scale(self, path: AbstractGaussianPath, t: Time) -> Array:
        return path.m(as_time(t))

    # The noise is taken from x / a to data, against which the state grows.
    def of_noise(self, u: Time) -> tuple[Array, Array]:
        return -1 / as_time(u), 2 / as_time(u)


class LogRho(Rho):
    infinite: ClassVar[str] = "a or m"

    def at(self, path: AbstractGaussianPath, t: Time) -> Array:
        return path.log_rho(as_time(t))

    def time(self, path: AbstractGaussianPath, u: Time) -> Array:
        return super().time(path, self.factor(u))

    def factor(self, u: Time) -> Array:
        return jnp.exp(as_time(u))

    def of_noise(self, u: Time) -> tuple[Array, Array]:
        one = jnp.ones_like(as_time(u))
        return -one, 2 * one


class Angle(AbstractLevel):
    """The state lies on the trigonometric path, cos(u) data + sin(u) noise, whatever the path."""

    rate: ClassVar[Prediction] = "velocity"
    infinite: ClassVar[str] = "nothing"

    def at(self, path: AbstractGaussianPath, t: Time) -> Array:
        a, m = path.ratio(as_time(t))
        return jnp.arctan2(m, a)

    def time(self, path: AbstractGaussianPath, u: Time) -> Array:
        u = as_time(u)
        return path.t_of_ratio(not_below_zero(jnp.cos(u)), not_below_zero(jnp.sin(u)))

    def scale(self, path: AbstractGaussianPath, t: Time) -> Array:
        return jnp.hypot(path.a(as_time(t)), path.m(as_time(t)))

    def rate_of(self, u: Time, turned: Turned) -> Array:
        data, noise, u = turned("data"), turned("noise"), as_time(u)
        return jnp.cos(u).astype(noise.dtype) * noise - jnp.sin(u).astype(data.dtype) * data

    def of_noise(self, u: Time) -> tuple[Array, Array]:
        u = as_time(u)
        return 1 / jnp.cos(u), 2 * jnp.tan(u)


VARIABLES: dict[str, AbstractVariable] = {
    "t": OfTime(),
    "sigma": Sigma(),
    "log_sigma": LogSigma(),
    "rho": Rho(),
    "log_rho": LogRho(),
    "angle": Angle(),
}
