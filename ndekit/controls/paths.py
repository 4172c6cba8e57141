"""The paths that the schemes give: pieces of straight lines or cubics, at rest behind the end."""

from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .lookup import piece_at


class AbstractTimedPath(diffrax.AbstractPath):
    """A path whose places are the times of its series, at rest behind the last row."""

    knots: eqx.AbstractVar[Array]
    length: eqx.AbstractVar[Array]

    @property
    def t0(self) -> Float[Array, ""]:
        return self.knots[0]

    @property
    def t1(self) -> Float[Array, ""]:
        return self.knots[jnp.maximum(self.length - 1, 0)]

    def parameter(self, t: Any, left: bool = False) -> Float[Array, ""]:
        """Where on the path the time `t` of the series lies: at `t`, held between the ends."""
        return jnp.clip(jnp.asarray(t).astype(self.knots.dtype), self.t0, self.t1)

    def time(self, parameter: Any) -> Float[Array, ""]:
        """The time of the series at this place of the path."""
        return self.parameter(parameter)


class LinearPath(AbstractTimedPath):
    """Straight lines from knot to knot.

    The derivative jumps at the knots. Let steps end there: `diffrax.StepTo(path.knots)`, or
    `diffrax.ClipStepSizeController(..., jump_ts=path.knots)`. Of a padded series the knots behind
    `t1` increase too, and the path rests between them.

    Attributes:
        ts: times of the series.
        knots: where pieces meet; `ts` itself.
        xs: values at the knots.
        slopes: of the piece behind each knot; 0 from `length - 1` on.
        length: rows that are no padding.
    """

    ts: Float[Array, " time"]
    knots: Float[Array, " knots"]
    xs: Float[Array, "knots channel"]
    slopes: Float[Array, "knots channel"]
    length: Int[Array, ""]

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True) -> Float[Array, " channel"]:
        """The values at `t0`, or their increment from `t0` to `t1`."""
        if t1 is not None:
            return self.evaluate(t1, left=left) - self.evaluate(t0, left=left)
        i = piece_at(self.knots, t0, left)
        return self.xs[i] + since(self.knots[i], t0, self.xs) * self.slopes[i]

    def derivative(self, t: Any, left: bool = True) -> Float[Array, " channel"]:
        """The slopes of the piece that ends at or holds `t`; that begins at `t` if not `left`."""
        return self.slopes[piece_at(self.knots, t, left)]


class RectilinearPath(diffrax.AbstractPath):
    r"""Time moves while the values rest, then the values move while time rests.

    The path has an axis of its own, $s$ from 0 to $2n - 2$ for $n$ readings: on $[2j, 2j + 1]$ time
    goes from $t_j$ to $t_{j+1}$, on $[2j + 1, 2j + 2]$ the values go from those of reading $j$ to
    those of reading $j + 1$. Solve along $s$, from `path.t0` to `path.t1`, and save at
    `jax.vmap(path.parameter)(ts)`. The derivative jumps at whole numbers: see `knots`.

    Attributes:
        ts: times of the series.
        knots: the whole numbers from 0 to twice the last row, padding included.
        xs: values at the knots.
        slopes: of the piece behind each knot; 0 from `2 * length - 2` on.
        length: rows that are no padding.
    """

    ts: Float[Array, " time"]
    knots: Float[Array, " knots"]
    xs: Float[Array, "knots channel"]
    slopes: Float[Array, "knots channel"]
    length: Int[Array, ""]

    @property
    def t0(self) -> Float[Array, ""]:
        return self.knots[0]

    @property
    def t1(self) -> Float[Array, ""]:
        return self.knots[jnp.maximum(2 * self.length - 2, 0)]

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True) -> Float[Array, " channel"]:
        """The values at `t0`, or their increment from `t0` to `t1`, both places on the path."""
        if t1 is not None:
            return self.evaluate(t1, left=left) - self.evaluate(t0, left=left)
        i = self._piece(t0, left)
        return self.xs[i] + since(self.knots[i], t0, self.xs) * self.slopes[i]

    def derivative(self, t: Any, left: bool = True) -> Float[Array, " channel"]:
        """By $s$: on the piece that ends at or holds `t`; that begins at `t` if not `left`."""
        return self.slopes[self._piece(t, left)]

    def parameter(self, t: Any, left: bool = False) -> Float[Array, ""]:
        """Where on the path the time `t` of the series lies.

        At a reading's own time that is behind the reading, or before it with `left`: there the
        state knows of the earlier readings alone. Times before the first and behind the last
        reading are taken to these.
        """
        t = jnp.clip(jnp.asarray(t).astype(self.ts.dtype), *self._ends)
        j = piece_at(self.ts, t, left)
        after = jnp.minimum(j + 1, len(self.ts) - 1)
        width = jnp.where(after > j, self.ts[after] - self.ts[j], 1)
        return jnp.minimum(2 * j.astype(t.dtype) + (t - self.ts[j]) / width, self.t1)

    def time(self, parameter: Any) -> Float[Array, ""]:
        """The time of the series at this place of the path."""
        s = jnp.clip(jnp.asarray(parameter).astype(self.ts.dtype), self.t0, self.t1)
        j = jnp.floor(s / 2).astype(jnp.int32)
        after = jnp.minimum(j + 1, len(self.ts) - 1)
        part = jnp.minimum(s - 2 * j.astype(s.dtype), 1)
        return jnp.minimum(self.ts[j] + part * (self.ts[after] - self.ts[j]), self._ends[1])

    @property
    def _ends(self) -> tuple[Array, Array]:
        return self.ts[0], self.ts[jnp.maximum(self.length - 1, 0)]

    def _piece(self, s: Any, left: bool) -> Int[Array, ""]:
        s = jnp.asarray(s).astype(self.knots.dtype)
        i = jnp.ceil(s) - 1 if left else jnp.floor(s)
        return jnp.clip(i.astype(jnp.int32), 0, len(self.knots) - 1)


class HermitePath(AbstractTimedPath):
    r"""A cubic $a + b u + c u^2 + d u^3$ behind each knot, with $u$ the time since it.

    Attributes:
        ts: times of the series.
        knots: where pieces meet; `ts` itself.
        coefficients: $a, b, c, d$ of each piece; $b = c = d = 0$ from `length - 1` on.
        length: rows that are no padding.
    """

    ts: Float[Array, " time"]
    knots: Float[Array, " knots"]
    coefficients: Float[Array, "knots 4 channel"]
    length: Int[Array, ""]

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True) -> Float[Array, " channel"]:
        """The values at `t0`, or their increment from `t0` to `t1`."""
        if t1 is not None:
            return self.evaluate(t1, left=left) - self.evaluate(t0, left=left)
        u, (a, b, c, d) = self._at(t0, left)
        return a + u * (b + u * (c + u * d))

    def derivative(self, t: Any, left: bool = True) -> Float[Array, " channel"]:
        """The rates at `t`."""
        u, (_, b, c, d) = self._at(t, left)
        return b + u * (2 * c + u * (3 * d))

    def _at(self, t: Any, left: bool) -> tuple[Array, Array]:
        i = piece_at(self.knots, t, left)
        return since(self.knots[i], t, self.coefficients), self.coefficients[i]


def since(knot: Array, t: Any, like: Array) -> Array:
    """Time since the knot, in the dtype of the values."""
    return (jnp.asarray(t).astype(knot.dtype) - knot).astype(like.dtype)
