"""Bounds of the log likelihood of a series under a latent ODE."""

import math
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..choices import check_choice
from ..data import Series
from ..numbers import positive
from ..shapes import Scalar
from .densities import Normal
from .latent_ode import LatentPath
from .series_losses import masked_gaussian

Bound = Literal["elbo", "iwae", "published"]


def latent_bound(
    path: LatentPath, series: Series, *, noise_std: float, beta: Any = 1.0, bound: Bound = "elbo"
) -> Scalar:
    r"""Minus a bound of the log likelihood of what was read; the mean over a batch.

    With $\mathrm{LL}_s$ the sum of $\log N(x; \hat x_s, \sigma^2)$ over all readings of a series,
    for sample $s$ of the posterior:

    - `"elbo"`: $\frac1S \sum_s \mathrm{LL}_s - \beta\, \mathrm{KL}$, with the divergence of the
      posterior from $N(0, 1)$ summed over the latent numbers.
    - `"iwae"`: $\log \frac1S \sum_s \exp(\mathrm{LL}_s + \beta \log (p(z_s) / q(z_s)))$, which is
      tighter the more samples there are, if $\beta = 1$.
    - `"published"`: what the code of Rubanova et al. maximises,
      $\log \sum_s \exp(\overline{\mathrm{LL}}_s - \beta\, \overline{\mathrm{KL}})$, where
      $\overline{\mathrm{LL}}$ is the mean over the batch of the mean over channels (those without
      a reading count as 0) of the mean over readings, and $\overline{\mathrm{KL}}$ the mean over
      latent numbers and the batch. It is no bound: with a small $\sigma$ the divergence hardly
      counts, so that reconstructions are good and samples of the prior are not.

    Args:
        path: what the model made of the series, at the times of its rows; or of a batch.
        series: the same series, or batch.
        noise_std: $\sigma$, greater than 0.
        beta: the weight of the divergence, such as
            `nk.regularize.schedules.kl_anneal(...)(step)`.
        bound: which.

    Raises:
        ValueError: for a path at other times than the rows, or arguments out of range.

    Reference: Kingma and Welling (2014); Burda, Grosse and Salakhutdinov (2016); Rubanova, Chen and
    Duvenaud (2019), arXiv 1907.03907.
    """
    positive("noise_std", noise_std)
    check_choice("bound", bound, get_args(Bound))
    series = series.clean()
    if path.values.shape[:-3] + path.values.shape[-2:] != series.xs.shape:
        raise ValueError(
            f"The path has values of shape (..., samples, times, channels) = {path.values.shape}, "
            f"which are not at the rows of a series of shape {series.xs.shape}. Call the model "
            "without `ts`."
        )
    variance = 2 * math.log(noise_std)
    if bound == "published":
        return _published(path, series, variance, beta)
    flat = lambda x, last: jnp.reshape(x, (-1, *x.shape[x.ndim - last :]))
    values, z0 = flat(path.values, 3), flat(path.z0, 2)
    mean, log_std = (flat(x, 1) for x in path.posterior)
    xs, mask = flat(jnp.asarray(series.xs), 2), flat(jnp.asarray(series.mask), 2)
    one = lambda *given: _of_series(bound, variance, beta, *given)
    return -jnp.mean(jax.vmap(one)(values, z0, mean, log_std, xs, mask))


def _of_series(
    bound: str, log_variance: float, beta: Any, values: Array, z0: Array, mean: Array,
    log_std: Array, xs: Array, mask: Array,
) -> Scalar:  # fmt: skip
    likely = jax.vmap(lambda x: masked_gaussian(xs, x, mask, log_variance))(values)
    if bound == "elbo":
        return jnp.mean(likely) - beta * _from_standard(mean, log_std)
    noise = (z0 - mean[None]) * jnp.exp(-log_std)[None]
    log_prior = -0.5 * jnp.sum(z0**2, axis=-1)
    log_posterior = -0.5 * jnp.sum(noise**2, axis=-1) - jnp.sum(log_std)
    weights = likely + beta * (log_prior - log_posterior)
    return jax.nn.logsumexp(weights) - math.log(len(z0))


def _published(path: LatentPath, series: Series, log_variance: float, beta: Any) -> Scalar:
    mask, xs = jnp.asarray(series.mask), jnp.asarray(series.xs)

    def of_sample(values: Array) -> Scalar:
        off = jnp.where(mask, xs - values, 0) ** 2 * math.exp(-log_variance)
        each = -0.5 * jnp.where(mask, off + log_variance + math.log(2 * math.pi), 0)
        number = jnp.sum(mask, axis=-2)
        return jnp.mean(jnp.sum(each, axis=-2) / jnp.maximum(number, 1).astype(each.dtype))

    likely = jax.vmap(of_sample, in_axes=-3)(path.values)
    mean, log_std = path.posterior
    divergence = _from_standard(mean, log_std) / mean.shape[-1]
    return -jax.nn.logsumexp(likely - beta * divergence)


def _from_standard(mean: Array, log_std: Array) -> Scalar:
    """The divergence of a posterior from N(0, 1), in the mean over leading axes."""
    nothing = jnp.zeros(mean.shape[-1], mean.dtype)
    return Normal(mean, log_std).kl(Normal(nothing, nothing))
