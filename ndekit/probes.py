"""The trace of a Jacobian from products with it: in full, or by random probes."""

import abc
import math
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import lax
from jaxtyping import Array, Float, Key, UInt

from .numbers import count

__all__ = ["AbstractTrace", "Exact", "HutchPP", "Hutchinson", "value_and_trace"]

# So many products are written out one by one. Stacked, the derivative by a matrix of weights sums
# over two axes, the stack and the batch, for which XLA's CPU compiler transposes everything: of two
# products in a batch of 512 it took five times as long.
FEW = 4

Kind = Literal["rademacher", "gaussian"]
Map = Callable[[Array], Array]


class AbstractTrace(eqx.Module):
    r"""A choice of directions $v_i$ such that $\mathrm{tr}\, J = E \sum_i v_i^T J v_i$.

    They are chosen once for a whole solve: then the integrand is smooth, adaptive steps see no
    noise, a reverse pass sees the same numbers, and the error of a log density is that of one
    estimate of the trace of $\int J\, dt$. `value_and_trace` takes them.
    """

    @abc.abstractmethod
    def directions(
        self,
        fn: Map,
        x: Float[Array, "*batch_and_shape"],
        ndim: int,
        *,
        key: Key[Array, ""] | UInt[Array, "2"] | None,
    ) -> Float[Array, "number ..."]:
        """The directions, stacked; each can be broadcast to the shape of `x`.

        Args:
            fn: the map at the start of the solve, from `x` to the same shape.
            x: where it starts.
            ndim: how many of the last axes of `x` make up one sample; the others are a batch, whose
                samples `fn` does not mix.
            key: for those that draw.
        """


class Exact(AbstractTrace):
    r"""The trace itself: $v_i$ are the unit vectors, $d$ of them for a sample of $d$ numbers.

    The value of the map is computed once, its $d$ products beside one another: for two numbers
    about twice a plain evaluation, and worth it up to some tens.

    Example:
        ```python
        import jax.numpy as jnp
        from ndekit.probes import Exact, value_and_trace

        fn, x = lambda x: x**2, jnp.array([1.0, 3.0])
        value, trace = value_and_trace(fn, x, Exact().directions(fn, x, 1, key=None), 1)
        assert trace == 8.0
        ```
    """

    def directions(self, fn: Map, x: Array, ndim: int, *, key: Any = None) -> Array:
        shape = x.shape[x.ndim - ndim :]
        size = math.prod(shape)
        return jnp.eye(size, dtype=x.dtype).reshape(size, *[1] * (x.ndim - ndim), *shape)


class Hutchinson(AbstractTrace):
    r"""$\tfrac1n \sum_i \epsilon_i^T J \epsilon_i$, unbiased, at the price of `n` products.

    The variance is $2 \lVert S \rVert_F^2 / n$ for Gaussian probes, $S = (J + J^T) / 2$, and
    $2 (\lVert S \rVert_F^2 - \sum_i S_{ii}^2) / n$ for Rademacher ones: never more.

    Args:
        kind: `"rademacher"`, signs, or `"gaussian"`.
        n: the number of probes, at least 1.

    Raises:
        ValueError: for another kind or number; when it is to draw without a key.

    Example:
        ```python
        import jax.random as jr, ndekit as nk

        flow = nk.models.CNF(
            nk.fields.MLP(2, width=16, depth=2, time="concat", key=jr.key(0)),
            nk.models.StandardNormal(2), trace=nk.probes.Hutchinson(n=2),
        )
        ```

    Reference: Hutchinson (1990); Grathwohl et al. (2019), "FFJORD", eq. 8.
    """

    kind: Kind = eqx.field(static=True, default="rademacher")
    n: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        count("n", self.n)
        if self.kind not in ("rademacher", "gaussian"):
            raise ValueError(f"`kind` must be 'rademacher' or 'gaussian', but got {self.kind!r}.")

    def directions(self, fn: Map, x: Array, ndim: int, *, key: Any = None) -> Array:
        return _drawn(self.kind, _given("Hutchinson", key), (self.n, *x.shape), x) / self.n**0.5


class HutchPP(AbstractTrace):
    r"""$\mathrm{tr}(Q^T J Q) + \tfrac1n \sum_i \epsilon_i^T P J P \epsilon_i$ with
    $P = 1 - Q Q^T$: exact on the subspace that $J$ maps `n` random vectors to, Hutchinson's
    estimate on the rest.

    Of $J$ at the start of the solve $Q$ is an orthonormal basis of $J G$, and then stays. As the
    probes $\epsilon_i$ do not depend on it, the estimate is unbiased whatever $J$ becomes; its
    variance is small for as long as the large part of $J$ stays where it was. It costs `2n`
    products an evaluation. Nothing is differentiated through $Q$.

    Args:
        n: columns of $Q$, and probes for the rest; at least 1.

    Raises:
        ValueError: for another number; when it is to draw without a key, or for samples of fewer
            than `n` numbers.

    Example:
        ```python
        import ndekit as nk

        trace = nk.probes.HutchPP(4)
        ```

    Reference: Meyer, Musco, Musco and Woodruff (2021), "Hutch++: optimal stochastic trace
    estimation", algorithm 1; for flows, Liu et al. (2025), arXiv 2502.18808.
    """

    n: int = eqx.field(static=True)

    def __check_init__(self):
        count("n", self.n)

    def directions(self, fn: Map, x: Array, ndim: int, *, key: Any = None) -> Array:
        first_key, rest_key = jr.split(_given("HutchPP", key))
        batch, shape = x.shape[: x.ndim - ndim], x.shape[x.ndim - ndim :]
        size = math.prod(shape)
        if self.n > size:
            raise ValueError(
                f"`HutchPP({self.n})` wants samples of at least {self.n} numbers, but these have "
                f"{size}. Use `Exact()`."
            )
        # Not signs: of few numbers two vectors of signs are often the same line.
        drawn = _drawn("gaussian", first_key, (self.n, *x.shape), x)
        mapped = lax.stop_gradient(_products(fn, x, drawn)[1])
        columns = jnp.moveaxis(mapped.reshape(self.n, *batch, size), 0, -1)
        q, _ = jnp.linalg.qr(columns)
        probes = _drawn("rademacher", rest_key, (*batch, size, self.n), x) / self.n**0.5
        rest = probes - q @ (jnp.swapaxes(q, -1, -2) @ probes)
        both = jnp.moveaxis(jnp.concatenate([q, rest], axis=-1), -1, 0)
        return lax.stop_gradient(both.reshape(2 * self.n, *x.shape))


def value_and_trace(
    fn: Map, x: Float[Array, "*batch_and_shape"], directions: Float[Array, "number ..."], ndim: int
) -> tuple[Float[Array, "*batch_and_shape"], Float[Array, "*batch"]]:
    r"""$f(x)$, and $\sum_i v_i^T J v_i$ of each sample, $J = \partial f / \partial x$.

    By forward mode: the map is evaluated once, and its products with all directions are batched.

    Args:
        fn: from `x` to the same shape.
        x: one sample, or a batch of which `fn` does not mix the samples.
        directions: $v_i$, as an [`ndekit.probes.AbstractTrace`][] gives them.
        ndim: how many of the last axes of `x` make up one sample, at least 0.

    Raises:
        ValueError: for an `ndim` that is no whole number from 0, or a `fn` that returns another
            shape.
    """
    count("ndim", ndim, 0)
    value, moved = _products(fn, x, directions)
    axes = (0, *range(moved.ndim - ndim, moved.ndim))
    directions = jnp.broadcast_to(directions.astype(moved.dtype), moved.shape)
    return value, jnp.sum(directions * moved, axis=axes)


def _products(fn: Map, x: Array, directions: Array) -> tuple[Array, Array]:
    # Points of half precision may have become those of a field in single precision.
    directions = directions.astype(x.dtype)
    along = lambda v: jax.jvp(fn, (x,), (jnp.broadcast_to(v, x.shape),))
    if len(directions) > FEW:
        value, moved = jax.vmap(along, out_axes=(None, 0))(directions)
        return _like(x, value), moved
    value, product = jax.linearize(fn, x)
    _like(x, value)
    return value, jnp.stack([product(jnp.broadcast_to(v, x.shape)) for v in directions])


def _like(x: Array, value: Array) -> Array:
    if jnp.shape(value) != x.shape:
        raise ValueError(
            f"A trace is of a map from points to rates of their shape, {x.shape}, but this one "
            f"returns {jnp.shape(value)}."
        )
    return value


def _drawn(kind: Kind, key: Array, shape: tuple[int, ...], x: Array) -> Array:
    draw = jr.rademacher if kind == "rademacher" else jr.normal
    return draw(key, shape, x.dtype)


def _given(name: str, key: Any) -> Any:
    if key is None:
        raise ValueError(
            f"`{name}` draws its probes and needs a key. Pass `key=...`, or use `Exact()`."
        )
    return key
