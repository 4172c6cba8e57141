"""Networks that are led to a class or a condition."""

from collections.abc import Callable
from typing import Any, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..choices import check_choice
from ..numbers import real
from ..paths import AbstractGaussianPath
from ..paths.conversion import Prediction, times
from ..shapes import Args, Time
from .probability_flow import check_agreement


class ClassifierFree(eqx.Module):
    r"""$f(\varnothing) + w\, (f(c) - f(\varnothing))$: from what a network says without a
    condition, past what it says with it.

    Whether $f$ is a noise, a velocity, a score or the data makes no difference. Weight 0 is the
    network without condition, 1 with it; above 1 samples are more typical of $c$ and less varied,
    and no longer those of a noising process: the ODE has a density, but not that of the data.

    Args:
        network: called as `network(t, x, args)` with the condition as `args`; trained with `none`
            in its place now and then.
        none: the `args` of no condition, of the same structure.
        weight: $w$.

    Raises:
        ValueError: if `weight` is not finite.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        net = lambda t, x, c: c - x
        guided = nk.samplers.ClassifierFree(net, none=jnp.zeros(2), weight=2.0)
        assert jnp.allclose(guided(0.5, jnp.zeros(2), jnp.ones(2)), 2.0)
        ```

    Reference: Ho and Salimans (2022), "Classifier-free diffusion guidance", arXiv 2207.12598.
    """

    network: Callable
    none: Args
    weight: float = 1.0

    def __check_init__(self):
        real("weight", self.weight)

    @property
    def predicts(self) -> Any:
        """What the network says that it predicts, if it does."""
        network: Any = self.network
        return network.predicts

    @property
    def path(self) -> Any:
        """The path that the network says it is for, if it does."""
        network: Any = self.network
        return network.path

    def __call__(
        self, t: Time, x: Float[Array, "*shape"], args: Args = None
    ) -> Float[Array, "*shape"]:
        without = self.network(t, x, self.none)
        return without + self.weight * (self.network(t, x, args) - without)


class ClassifierGuided(eqx.Module):
    r"""A network whose score is led by $w\, \nabla_x \log p(c \mid x_t)$ of a classifier.

    What is added to a prediction is what a change of the score makes of it: $-m w \nabla$ to the
    noise, $(m^2 / a)\, w \nabla$ to the data, $(g^2 / 2)\, w \nabla$ to the velocity. At noise
    alone ($a = 0$) the last two are infinite unless the classifier knows nothing there: begin at
    `path.t_of_sigma(80.0)`.

    Args:
        network: called as `network(t, x, args)`.
        log_prob: called as `log_prob(t, x, args)`, the logarithm of the probability that the noisy
            point `x` at time `t` has what `args` says; a number for each sample.
        path: the path of both.
        predicts: what the network returns.
        weight: $w$; 1 is Bayes' rule.

    Raises:
        ValueError: if `weight` is not finite, `predicts` none of the four, or the network says
            otherwise.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        path = nk.paths.VP()
        guided = nk.samplers.ClassifierGuided(
            lambda t, x, args: path.m(t) * x, lambda t, x, args: -jnp.sum((x - args) ** 2),
            path, predicts="noise", weight=0.5,
        )
        x = jnp.zeros(2)
        assert jnp.allclose(guided(0.5, x, jnp.ones(2)), -path.m(0.5))
        ```

    Reference: Dhariwal and Nichol (2021), "Diffusion models beat GANs", arXiv 2105.05233.
    """

    network: Callable
    log_prob: Callable
    path: AbstractGaussianPath
    predicts: Prediction = eqx.field(static=True, default="velocity")
    weight: float = 1.0

    def __check_init__(self):
        real("weight", self.weight)
        check_choice("predicts", self.predicts, get_args(Prediction))
        check_agreement(self.network, self.predicts, self.path)

    def __call__(
        self, t: Time, x: Float[Array, "*shape"], args: Args = None
    ) -> Float[Array, "*shape"]:
        led = jax.grad(lambda x: jnp.sum(self.log_prob(t, x, args)))(x)
        share = (self.weight * self._share(t)).astype(x.dtype)
        return self.network(t, x, args) + times(share, led)

    def _share(self, t: Time) -> Array:
        """What the prediction changes by with the score."""
        path = self.path
        shares = {
            "noise": lambda: -path.m(t),
            "data": lambda: path.m(t) ** 2 / path.a(t),
            "velocity": lambda: 0.5 * path.squared_diffusion(t),
            "score": lambda: jnp.ones_like(path.m(t)),
        }
        return shares[self.predicts]()
