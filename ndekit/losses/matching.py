"""Regressions on what is known of a sample along a path."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, UInt

from ..numbers import real
from ..paths import AbstractBridge, AbstractGaussianPath, convert
from ..paths.conversion import Prediction
from ..paths.roots import as_time
from ..shapes import Args, Time

Weight = Callable[[Time], Any] | None
AnyKey = Key[Array, ""] | UInt[Array, "2"]
Sample = Float[Array, "*shape"]


def flow_matching(
    field: Callable,
    path: AbstractGaussianPath,
    x1: Sample,
    *,
    key: AnyKey,
    x0: Sample | None = None,
    t: Time | None = None,
    weight: Weight = None,
    args: Args = None,
) -> Float[Array, ""]:
    r"""$w(t)\, |f(t, x_t) - (\dot a x_1 + \dot m x_0)|^2 / d$ at $x_t = a x_1 + m x_0$.

    Its expectation is least where $f$ is the mean velocity of the samples that pass through a
    point, and that field carries noise to data.

    Args:
        field: called as `field(t, x, args)`, the velocity.
        path: a Gaussian path.
        x1: one sample of the data.
        key: draws what is not given.
        x0: its noise, or the sample that a coupling has found for it; standard normal if `None`.
        t: the time in [0, 1]; uniform if `None`. See [`ndekit.losses.stratified_times`][].
        weight: a function of the time; 1 if `None`.
        args: for the field: a class or condition.

    Returns:
        The loss of this sample.

    Raises:
        ValueError: if the field returns another shape than `x1` has.

    Example:
        ```python
        import jax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        def loss(field, data, *, key):
            keys = jr.split(key, len(data))
            one = lambda x1, key: nk.losses.flow_matching(
                field, nk.paths.CondOT(), x1, key=key
            )
            return jnp.mean(jax.vmap(one)(data, keys))

        field = nk.fields.MLP(2, 64, 2, time="concat", key=jr.key(0))
        loss(field, jnp.ones((128, 2)), key=jr.key(1))
        ```

    Reference: Lipman et al. (2023), "Flow matching for generative modeling", arXiv 2210.02747.
    """
    x0, t = drawn(key, x1, x0, t)
    said = called(field, t, path.sample(t, x0, x1), args, x1)
    return mean_square(said - path.velocity(t, x0, x1), weight, t)


def denoising(
    net: Callable,
    path: AbstractGaussianPath,
    x1: Sample,
    *,
    key: AnyKey,
    predicts: Prediction = "noise",
    x0: Sample | None = None,
    t: Time | None = None,
    weight: Weight = None,
    args: Args = None,
) -> Float[Array, ""]:
    r"""$w(t)\, |f(t, x_t) - \mathrm{target}|^2 / d$, with the data, the noise, the velocity or the
    score as target.

    The score is that of $x_t$ given $x_1$, $-x_0 / m$; its error is measured times $m$, or it would
    have no mean. All are the same regression with other weights: an error of the noise is
    $m / a$ times one of the data, and $1 / (a \dot\sigma)$ times one of the velocity.

    Args:
        net: called as `net(t, x, args)`.
        path: a Gaussian path.
        x1, key, x0, t, weight, args: as for [`ndekit.losses.flow_matching`][].
        predicts: what `net` returns: `"data"`, `"noise"`, `"velocity"` or `"score"`.

    Returns:
        The loss of this sample.

    Raises:
        ValueError: if `predicts` is none of the four, or `net` returns another shape than `x1` has.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr, ndekit as nk

        net = lambda t, x, args: jnp.zeros_like(x)
        path, x1, x0 = nk.paths.VP(), jnp.ones(3), jnp.array([1.0, -1.0, 1.0])
        loss = nk.losses.denoising(net, path, x1, key=jr.key(0), x0=x0)
        assert loss == 1
        ```

    Reference: Ho, Jain and Abbeel (2020), "Denoising diffusion probabilistic models", arXiv
    2006.11239.
    """
    x0, t = drawn(key, x1, x0, t)
    x = path.sample(t, x0, x1)
    said = called(net, t, x, args, x1)
    if predicts == "score":
        m = path.m(t).astype(x.dtype)
        return mean_square(m * said + x0, weight, t)
    known = {"data": x1, "noise": x0}
    if predicts in known:
        return mean_square(said - known[predicts], weight, t)
    target = convert(path, t, x, path.velocity(t, x0, x1), src="velocity", dst=predicts)
    return mean_square(said - target, weight, t)


def bridge_matching(
    field: Callable,
    bridge: AbstractBridge,
    x0: Sample,
    x1: Sample,
    *,
    key: AnyKey,
    score: Callable | None = None,
    t: Time | None = None,
    weight: Weight = None,
    args: Args = None,
) -> Float[Array, ""]:
    r"""Flow matching between two samples along a bridge, and if there is a `score` its regression
    too.

    $$|f(t, x_t) - u_t|^2 / d + |\sigma_t\, s(t, x_t) + z|^2 / d, \qquad
    x_t = (1 - t) x_0 + t x_1 + \sigma_t z,$$

    with the bridge's velocity $u_t$ and deviation $\sigma_t$. With pairs of an entropic coupling
    of $\varepsilon = 2 \sigma^2$ that is SF2M: $f + \tfrac{\sigma^2}{2} s$ is the drift of the
    Schrödinger bridge, and $f$ the field of an ODE with the same marginals. With a
    [`ndekit.paths.NoisyLine`][] it is I-CFM between independent pairs, and OT-CFM between those of
    optimal transport.

    Args:
        field: called as `field(t, x, args)`, the velocity.
        bridge: a Brownian [`ndekit.paths.Bridge`][], or a `NoisyLine`.
        x0, x1: one pair.
        key: draws what is not given.
        score: called as `score(t, x, args)`, the score of $x_t$.
        t: the time; uniform if `None`. Of a Brownian bridge away from the ends: there its velocity
            has no finite variance if `sigma` is not 0.
        weight, args: as for [`ndekit.losses.flow_matching`][].

    Returns:
        The loss of this pair.

    Raises:
        ValueError: if a network returns another shape than `x1` has.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr, ndekit as nk

        straight = lambda t, x, args: jnp.ones_like(x)
        bridge = nk.paths.Bridge(0.0)
        loss = nk.losses.bridge_matching(
            straight, bridge, jnp.zeros(2), jnp.ones(2), key=jr.key(0)
        )
        assert loss == 0
        ```

    References: Tong et al. (2024), "Improving and generalizing flow-based generative models with
    minibatch optimal transport", arXiv 2302.00482; and "Simulation-free Schrödinger bridges via
    score and flow matching", arXiv 2307.03672.
    """
    check_sample("x0", x0, x1)
    z, t = drawn(key, x1, None, t)
    x = bridge.sample(t, x0, x1, z)
    off = called(field, t, x, args, x1) - bridge.velocity(t, x, x0, x1)
    loss = mean_square(off, weight, t)
    if score is None:
        return loss
    said = called(score, t, x, args, x1)
    return loss + mean_square(bridge.deviation(t).astype(x.dtype) * said + z, weight, t)


def drawn(key: AnyKey, x1: Sample, x0: Sample | None, t: Time | None) -> tuple[Sample, Array]:
    check_sample("x1", x1, x1)
    of_noise, of_time = jr.split(key)
    if x0 is None:
        x0 = jr.normal(of_noise, x1.shape, x1.dtype)
    check_sample("x0", x0, x1)
    return x0, jr.uniform(of_time, (), x1.dtype) if t is None else one_time("t", t)


def check_sample(name: str, x: Any, like: Any) -> None:
    """Pass over one sample of floating numbers, of the shape of another.

    Raises:
        ValueError: for anything else.
    """
    if jnp.shape(x) != jnp.shape(like) or not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        raise ValueError(
            f"`{name}` must be one sample of floating numbers of shape {jnp.shape(like)}, got "
            f"{jnp.result_type(x)}{list(jnp.shape(x))}."
        )


def one_time(name: str, t: Time) -> Array:
    """A time as an array.

    Raises:
        ValueError: for several, or a known one that is not in [0, 1].
    """
    t = as_time(t)
    if t.ndim:
        raise ValueError(
            f"`{name}` must be one time, got shape {t.shape}. A loss is of one sample: map over a "
            "batch with `jax.vmap`."
        )
    real(name, t, least=0.0, most=1.0, advice="Noise is at 0, data are at 1.")
    return t


def called(net: Callable, t: Time, x: Sample, args: Args, like: Sample) -> Sample:
    said = net(t, x, args)
    if jnp.shape(said) != jnp.shape(like):
        raise ValueError(
            f"The network must return the shape of a sample, {jnp.shape(like)}, but returned "
            f"{jnp.shape(said)}. A loss is of one sample: map over a batch with `jax.vmap`."
        )
    return said


def mean_square(off: Sample, weight: Weight, t: Time) -> Float[Array, ""]:
    squares = jax.lax.square(off)
    # A weight may be one for each coordinate.
    return jnp.mean(squares) if weight is None else jnp.mean(weight(t) * squares)
