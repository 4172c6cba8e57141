r"""Flow maps: networks $u(t, x, s)$ that say in one evaluation where a flow leads.

From $x$ at the time $t$ the flow is at $x + (s - t)\, u(t, x, s)$ at the time $s$. So $u$ is the
mean velocity on the way, and the velocity itself where $s = t$: a learnt solver of one field.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.core import Tracer
from jaxtyping import Array, Float

from ..numbers import real
from ..paths import AbstractGaussianPath
from ..shapes import Time
from .matching import AnyKey, Sample, called, drawn, mean_square, one_time


def mean_flow(
    flow_map: Callable,
    path: AbstractGaussianPath,
    x1: Sample,
    *,
    key: AnyKey,
    x0: Sample | None = None,
    t: Time | None = None,
    s: Time | None = None,
    teacher: Callable | None = None,
) -> Float[Array, ""]:
    r"""$|u(t, x_t, s) - \mathrm{sg}(v + (s - t)\, \tfrac{d u}{d t})|^2 / d$, with
    $\tfrac{d u}{d t} = \partial_t u + (v \cdot \nabla) u$ along the flow at fixed $s$.

    That is the derivative of $(s - t)\, u = \int_t^s v$ by $t$. One evaluation with its derivative
    along $(1, v, 0)$; nothing is differentiated through it.

    Args:
        flow_map: called as `flow_map(t, x, s)`.
        path: a Gaussian path, whose velocity is that of the pair.
        x1: one sample of the data.
        key: draws what is not given.
        x0: its noise; standard normal if `None`.
        t, s: from where to where; two uniform times in order if `None`.
        teacher: a velocity field `teacher(t, x, None)` in place of the pair's velocity: then the
            flow map of that field is learnt, exactly, rather than that of the data's.

    Returns:
        The loss of this sample.

    Raises:
        ValueError: if only one of `t` and `s` is given, or a network returns another shape than
            `x1` has.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr, ndekit as nk

        # Along x' = -x the flow multiplies by exp(t - s).
        flow = lambda t, x, s: x * jnp.expm1(t - s) / jnp.where(s == t, 1, s - t)
        loss = nk.losses.mean_flow(
            flow, nk.paths.CondOT(), jnp.ones(2), key=jr.key(0),
            teacher=lambda t, x, args: -x,
        )
        assert loss < 1e-10
        ```

    Reference: Geng et al. (2025), "Mean flows for one-step generative modeling", arXiv 2505.13447.
    """
    key, of_times = jr.split(key)
    t, s = _in_order(of_times, x1, t, s)
    x0, t = drawn(key, x1, x0, t)
    x, v = _point(path, t, x0, x1, teacher)
    along = (jnp.ones_like(t), v, jnp.zeros_like(s))
    said, change = jax.jvp(lambda t, x, s: called(flow_map, t, x, s, x1), (t, x, s), along)
    target = v + (s - t).astype(x.dtype) * change
    return mean_square(said - jax.lax.stop_gradient(target), None, t)


def shortcut(
    flow_map: Callable,
    path: AbstractGaussianPath,
    x1: Sample,
    *,
    key: AnyKey,
    x0: Sample | None = None,
    t: Time | None = None,
    step: Time = 0.0,
    teacher: Callable | None = None,
) -> Float[Array, ""]:
    r"""Two steps in one: $|u(t, x_t, t + 2h) - \mathrm{sg}(u_1 + u_2) / 2|^2 / d$ with
    $u_1 = u(t, x_t, t + h)$ and $u_2 = u(t + h, x_t + h u_1, t + 2h)$.

    Without a step ($h = 0$) it is flow matching, $|u(t, x_t, t) - v|^2 / d$. A training takes both,
    three quarters of the batch by flow matching in the paper, the rest with steps of 1/128 to 1/2.

    Args:
        flow_map: called as `flow_map(t, x, s)`.
        path: a Gaussian path.
        x1, key, x0: as for [`ndekit.losses.mean_flow`][].
        t: from where; uniform in $[0, 1 - 2h]$ if `None`.
        step: $h$, in [0, 1/2]; may be traced.
        teacher: a velocity field in place of the pair's velocity, for $h = 0$.

    Returns:
        The loss of this sample.

    Raises:
        ValueError: for a known `step` out of range, or if a network returns another shape than `x1`
            has.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr, ndekit as nk

        flow = lambda t, x, s: x * jnp.expm1(t - s) / jnp.where(s == t, 1, s - t)
        given = flow, nk.paths.CondOT(), jnp.ones(2)
        assert nk.losses.shortcut(*given, key=jr.key(0), step=0.25) < 1e-10
        ```

    Reference: Frans et al. (2025), "One step diffusion via shortcut models", arXiv 2410.12557.
    """
    real("step", step, least=0.0, most=0.5)
    h = jnp.asarray(step, x1.dtype)
    key, of_time = jr.split(key)
    if t is None:
        t = jr.uniform(of_time, (), x1.dtype) * (1 - 2 * h)
    else:
        _check_ahead(t, 2 * step, "t + 2 step")
    x0, t = drawn(key, x1, x0, t)
    x, v = _point(path, t, x0, x1, teacher)
    first = called(flow_map, t, x, t + h, x1)
    second = called(flow_map, t + h, x + h * first, t + 2 * h, x1)
    target = jnp.where(h > 0, (first + second) / 2, v)
    said = called(flow_map, t, x, t + 2 * h, x1)
    return mean_square(said - jax.lax.stop_gradient(target), None, t)


def consistency(
    net: Callable,
    path: AbstractGaussianPath,
    x1: Sample,
    *,
    key: AnyKey,
    step: Time,
    x0: Sample | None = None,
    t: Time | None = None,
    teacher: Callable | None = None,
    target_net: Callable | None = None,
) -> Float[Array, ""]:
    r"""$|D(t, x_t) - \mathrm{sg}(D(t + h, x_{t + h}))|^2 / d$: what a network says of the end of
    the flow does not change along it.

    $x_{t + h}$ is the same pair's (consistency training), or a step of Heun's method of a `teacher`
    (distillation). Where $t + h$ is the end, the target is $x_{t + h}$ itself.

    Args:
        net: called as `net(t, x, None)`, the data at the end of the flow through `x`. Of itself it
            should return `x` at $t = 1$, for example
            `lambda t, x, args: t * x + (1 - t) * inner(t, x)`.
        path: a Gaussian path.
        x1, key, x0: as for [`ndekit.losses.mean_flow`][].
        step: $h$, in (0, 1]; may be traced.
        t: from where; uniform in $[0, 1 - h]$ if `None`.
        teacher: a velocity field `teacher(t, x, None)`.
        target_net: in place of `net` in the target, for example a mean of its weights.

    Returns:
        The loss of this sample.

    Raises:
        ValueError: for a known `step` out of range, or if a network returns another shape than `x1`
            has.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr, ndekit as nk

        # Data of one point: every flow ends there.
        point = jnp.array([2.0, -1.0])
        loss = nk.losses.consistency(
            lambda t, x, args: point, nk.paths.CondOT(), point, key=jr.key(0), step=0.1
        )
        assert loss == 0
        ```

    Reference: Song et al. (2023), "Consistency models", arXiv 2303.01469.
    """
    real("step", step, above=0.0, most=1.0)
    h = jnp.asarray(step, x1.dtype)
    key, of_time = jr.split(key)
    if t is None:
        t = jr.uniform(of_time, (), x1.dtype) * (1 - h)
    else:
        _check_ahead(t, step, "t + step")
    x0, t = drawn(key, x1, x0, t)
    x, end = path.sample(t, x0, x1), t + h
    if teacher is None:
        ahead = path.sample(end, x0, x1)
    else:
        first = called(teacher, t, x, None, x1)
        second = called(teacher, end, x + h * first, None, x1)
        ahead = x + h * (first + second) / 2
    said_ahead = called(net if target_net is None else target_net, end, ahead, None, x1)
    # To rounding: t may have been drawn right before the end.
    is_end = end >= 1 - jnp.finfo(end.dtype).eps
    target = jax.lax.stop_gradient(jnp.where(is_end, ahead, said_ahead))
    return mean_square(called(net, t, x, None, x1) - target, None, t)


def _point(
    path: AbstractGaussianPath, t: Time, x0: Sample, x1: Sample, teacher: Callable | None
) -> tuple[Sample, Sample]:
    """A point of the path, and the velocity there: the pair's, or the teacher's."""
    x = path.sample(t, x0, x1)
    if teacher is None:
        return x, path.velocity(t, x0, x1)
    return x, called(teacher, t, x, None, x1)


def _check_ahead(t: Time, ahead: Time, name: str) -> None:
    """Pass over a stretch that ends at the data or before, as far as it is known."""
    if not (isinstance(t, Tracer) or isinstance(ahead, Tracer)):
        end = float(t) + float(ahead)
        # Of a sum that is 1 but for rounding.
        real(name, end, most=1 + 1e-6, advice="Data are at 1.")


def _in_order(key: AnyKey, like: Array, t: Any, s: Any) -> tuple[Array, Array]:
    if (t is None) != (s is None):
        raise ValueError("Give both `t` and `s`, or neither: they are drawn together.")
    if t is None:
        t, s = jnp.sort(jr.uniform(key, (2,), like.dtype))
    return one_time("t", t), one_time("s", s)
