"""Losses of predictions along a series, by what was read alone."""

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..data import Series
from ..data.series import single
from ..numbers import positive, real
from ..shapes import Scalar
from .flow_reset import Flowed


def masked_gaussian(
    x: Float[Array, "*rows channels"],
    mean: Float[Array, "*rows channels"],
    mask: Bool[Array, "*rows channels"],
    log_variance: Any = 0.0,
) -> Scalar:
    r"""$\sum \log N(x; \mu, \sigma^2)$ over what is there.

    Args:
        x: the readings; what stands where `mask` is False has no say.
        mean: $\mu$.
        mask: which readings are there.
        log_variance: $\log \sigma^2$, one number or one for each reading.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        mask = jnp.array([[True, False]])
        value = nk.models.masked_gaussian(jnp.zeros((1, 2)), jnp.ones((1, 2)), mask)
        ```
    """
    off = jnp.where(mask, x - mean, 0)
    log_variance = jnp.where(mask, log_variance, 0)
    each = off**2 * jnp.exp(-log_variance) + log_variance + math.log(2 * math.pi)
    return -0.5 * jnp.sum(jnp.where(mask, each, 0))


def bayes_loss(
    said: Flowed, series: Series, *, mixing: float = 1e-4, noise_std: float = 0.01
) -> Scalar:
    r"""The loss of a [`ndekit.models.GRUODEBayes`][]: of what was read, minus the log likelihood
    before the row, and `mixing` times $\mathrm{KL}(N(\mu', \sigma'^2) \,\|\, N(x,
    \mathrm{noise\_std}^2))$ after it; sums over the series.

    Args:
        said: what the model said along the series.
        mixing: the weight of the second part.
        noise_std: of an observation, greater than 0.

    Raises:
        ValueError: for a batch (map over it), or numbers out of range.

    Reference: De Brouwer et al. (2019), arXiv 1905.12374, as their code has it: not the product of
    prediction and observation density that the paper has in its place.
    """
    positive("noise_std", noise_std)
    real("mixing", mixing, least=0.0)
    variance, read = noise_std**2, single(series, "bayes_loss")
    xs, mask = jnp.asarray(read.xs), jnp.asarray(read.mask)
    mean, log_variance = said.before[:, 0], said.before[:, 1]
    before = -masked_gaussian(xs, mean, mask, log_variance)
    mean, log_variance = said.after[:, 0], jnp.where(mask, said.after[:, 1], 0)
    off = jnp.where(mask, xs - mean, 0)
    ratio = jnp.exp(log_variance) / variance
    divergence = 0.5 * (ratio + off**2 / variance - 1 - jnp.log(ratio))
    return before + mixing * jnp.sum(jnp.where(mask, divergence, 0))


def jump_loss(said: Flowed, series: Series, *, weight: float = 0.5, eps: float = 1e-10) -> Scalar:
    r"""The loss whose minimum is the conditional expectation: the mean over the rows behind the
    first of $(2 w |x - y| + 2 (1 - w) |y - y^-|)^2$, with $y^-$ and $y$ the predictions before and
    after the row, and norms over the channels that were read.

    Args:
        said: what a [`ndekit.models.JumpODE`][] said along the series.
        weight: $w$, between 0 and 1.
        eps: inside the roots, whose derivative at 0 is infinite.

    Raises:
        ValueError: for a batch (map over it), or numbers out of range.

    Reference: Herrera, Krach and Teichmann (2021), arXiv 2006.04727, (11).
    """
    real("weight", weight, least=0.0, most=1.0)
    positive("eps", eps)
    series = single(series, "jump_loss")
    norm = lambda x: jnp.sqrt(jnp.sum(jnp.where(series.mask, x, 0) ** 2, axis=-1) + eps)
    off, jump = norm(series.xs - said.after), norm(said.after - said.before)
    each = (2 * weight * off + 2 * (1 - weight) * jump) ** 2
    counted = jnp.any(series.mask, axis=-1) & (jnp.arange(len(series.ts)) > 0)
    number = jnp.maximum(jnp.sum(counted), 1)
    return jnp.sum(jnp.where(counted, each, 0)) / number.astype(each.dtype)
