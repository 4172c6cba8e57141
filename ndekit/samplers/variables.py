r"""The variables that a flow is solved in, and the states that belong to them."""

import abc
from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from ..paths import AbstractGaussianPath
from ..paths.conversion import Prediction
from ..paths.roots import as_time
from ..shapes import Time

Variable = Literal["t", "sigma", "log_sigma", "rho", "log_rho"]


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


class OfTime(AbstractVariable):
    rate: ClassVar[Prediction] = "velocity"
    infinite: ClassVar[str] = "nothing"

    def at(self, path: AbstractGaussianPath, t: Time) -> Array:
        return as_time(t)

    def time(self, path: AbstractGaussianPath, u: Time) -> Array:
        return as_time(u)

    def scale(self, path: AbstractGaussianPath, t: Time) -> Array:
        return jnp.ones_like(as_time(t))


class Sigma(AbstractVariable):
    rate: ClassVar[Prediction] = "noise"
    infinite: ClassVar[str] = "a"

    def at(self, path: AbstractGaussianPath, t: Time) -> Array:
        return path.sigma(as_time(t))

    def time(self, path: AbstractGaussianPath, u: Time) -> Array:
        return path.t_of_sigma(u)

    def scale(self, path: AbstractGaussianPath, t: Time) -> Array:
        return path.a(as_time(t))


class LogSigma(Sigma):
    infinite: ClassVar[str] = "a or m"

    def at(self, path: AbstractGaussianPath, t: Time) -> Array:
        return -path.log_rho(as_time(t))

    def time(self, path: AbstractGaussianPath, u: Time) -> Array:
        return path.t_of_sigma(self.factor(u))

    def factor(self, u: Time) -> Array:
        return jnp.exp(as_time(u))


class Rho(AbstractVariable):
    rate: ClassVar[Prediction] = "data"
    infinite: ClassVar[str] = "m"

    def at(self, path: AbstractGaussianPath, t: Time) -> Array:
        return path.rho(as_time(t))

    def time(self, path: AbstractGaussianPath, u: Time) -> Array:
        level = as_time(u)
        return path.t_of_ratio(jnp.minimum(level, 1), 1 / jnp.maximum(level, 1))

    def scale(self, path: AbstractGaussianPath, t: Time) -> Array:
        return path.m(as_time(t))


class LogRho(Rho):
    infinite: ClassVar[str] = "a or m"

    def at(self, path: AbstractGaussianPath, t: Time) -> Array:
        return path.log_rho(as_time(t))

    def time(self, path: AbstractGaussianPath, u: Time) -> Array:
        return super().time(path, self.factor(u))

    def factor(self, u: Time) -> Array:
        return jnp.exp(as_time(u))


VARIABLES: dict[str, AbstractVariable] = {
    "t": OfTime(),
    "sigma": Sigma(),
    "log_sigma": LogSigma(),
    "rho": Rho(),
    "log_rho": LogRho(),
}
