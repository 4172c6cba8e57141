"""A network whose inputs and outputs have the same size at every level of noise."""

import math
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numbers import positive
from ..paths import AbstractGaussianPath
from ..paths.roots import as_time
from ..shapes import Args, Time, time_in

# Of noise beside signal and of signal beside noise: below, the network sees no difference.
_LEAST = math.exp(-12.0)


class Preconditioned(eqx.Module):
    r"""EDM's preconditioning, on any Gaussian path: the data that a network expects in $x$.

    $$D = \frac{a s^2 x + m s\, r\, F(\tfrac14 \log \sigma,\, x / r)}{r^2}, \qquad
    r^2 = a^2 s^2 + m^2,$$

    with $s$ the standard deviation of the data. $F$ sees points of unit variance and has to return
    some, whatever the noise; where there is little of it $D$ is near $x / a$, where there is much,
    near the mean. The loss of the data times [`weight`][ndekit.fields.Preconditioned.weight] is the
    mean square error of $F$.

    Its `predicts` is `"data"`, which [`ndekit.models.Flow`][] and samplers check.

    Args:
        network: $F$, called as `network(noise, x, args)`, with a function of the noise for a time.
        path: the path.
        data_std: $s$, positive.

    Raises:
        ValueError: if `data_std` is not positive.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr, ndekit as nk

        path = nk.paths.EDM()
        network = nk.fields.MLP(2, width=64, depth=2, time="concat", key=jr.key(0))
        data = nk.fields.Preconditioned(network, path, data_std=0.5)
        flow = nk.models.Flow(data, path, 2, predicts="data", variable="log_sigma", data_std=0.5)
        loss = flow.loss(jnp.ones(2), key=jr.key(1), weight=data.weight)
        ```

    Reference: Karras et al. (2022), "Elucidating the design space of diffusion-based generative
    models", arXiv 2206.00364, table 1.
    """

    network: Callable
    path: AbstractGaussianPath
    data_std: float = eqx.field(static=True, default=1.0)
    predicts: ClassVar[str] = "data"

    def __check_init__(self):
        positive("data_std", self.data_std)

    def __call__(
        self, t: Time, y: Float[Array, "*shape"], args: Args = None
    ) -> Float[Array, "*shape"]:
        t, s = time_in(None, as_time(t), of_samples=True), self.data_std
        a, m = self.path.a(t), self.path.m(t)
        r = jnp.sqrt((a * s) ** 2 + m**2)
        # Not by clipping the logarithm: it is infinite at an end, and so is its slope.
        signal, spread = self.path.ratio(t)
        noise = jnp.log(jnp.maximum(spread, _LEAST * signal))
        noise = noise - jnp.log(jnp.maximum(signal, _LEAST * spread))
        cast = lambda x: x.astype(y.dtype)
        inside = self.network(cast(0.25 * noise), y / cast(r), args)
        return cast(a * (s / r) ** 2) * y + cast(m * s / r) * inside

    def weight(self, t: Time) -> Float[Array, "*size"]:
        r"""$r^2 / (m s)^2$, of a squared error of the data at a time: a number, or of a path with a
        scale of each coordinate one for each.
        """
        a, m = self.path.a(as_time(t)), self.path.m(as_time(t))
        return ((a * self.data_std) ** 2 + m**2) / (m * self.data_std) ** 2
