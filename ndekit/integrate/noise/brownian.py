"""Brownian motion that costs one draw a step."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

from ... import tree
from ...shapes import Time
from ..times import is_concrete, promote_times
from .any_interval import between
from .bridge import AREAS, split, whole
from .threefry import written_out


class BrownianMotion(diffrax.AbstractBrownianPath):
    r"""Brownian motion $w(t)$, each step of a solve at the price of one draw.

    Time is cut into *cells*; what happens in a cell is a Brownian bridge, cut in halves as often as
    somebody asks. The random numbers come from `key`, the time at which a cell begins, and which of
    its halves it is, so the path does not depend on tolerances. The cells are

    - the steps, in a solve with a fixed step size (told by `t0` and their number);
    - the gaps between `t0`, the times of `SaveAt(ts=...)`, those that a
      `diffrax.ClipStepSizeController` steps to, and `t1` in an adaptive solve: its steps are then
      halves of halves of a cell, and saved values are ends of steps, not interpolated;
    - $[n, n + 1)$ for whole $n$ elsewhere: for `evaluate`, in diffrax's own loop, with a solver or
      a controller of one's own.

    So two solves see the same path if they agree on the cells. With `ts` these are what lies
    between two neighbours of `ts`, whatever the solve; then the path is always evaluated, at some
    thirty draws a step. A path evaluated at the ends of a solve's cells is that of the solve.

    Args:
        shape: of $w$: a tuple of integers, or a PyTree of `jax.ShapeDtypeStruct`s.
        key: a JAX random key.
        levy_area: what solvers are given: `diffrax.BrownianIncrement`,
            `diffrax.SpaceTimeLevyArea` or `diffrax.SpaceTimeTimeLevyArea`. The path differs with
            it.
        ts: the ends of the cells, increasing; they must cover whatever is asked for.
        saved: how an adaptive solve comes to its values at `SaveAt(ts=...)`. `"ends"`: each of
            these times is the end of a step. `"bridge"`: steps are as long as the tolerances allow,
            and at a time $s$ between the ends $t_n$ and $t_{n+1} = t_n + h$ of one the value is

            $$y_n + \theta (y_{n+1} - y_n) + g(t_n, y_n) \bigl(w_s - w_{t_n}
            - \theta (w_{t_{n+1}} - w_{t_n})\bigr), \qquad \theta = (s - t_n) / h,$$

            with $g$ the diffusion and $w$ the path, which is the same for both. That is of order
            $h$ from the solution, and $h^{3/2}$ with additive noise.

    Raises:
        ValueError: for a shape that is not of floating-point numbers, another `levy_area` or
            `saved`, or `ts` that do not increase. By a solve: with `saved="bridge"`, where its
            steps are not those of an adaptive solve along cells, or do not know their inside.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        w = nk.BrownianMotion((), jr.key(0))
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, y, args: -y),
            diffrax.ControlTerm(lambda t, y, args: 0.5 * y, w),
        )
        sol = nk.diffeqsolve(terms, diffrax.Euler(), 0.0, 1.0, 0.01, jnp.array(1.0))
        ```

    Reference: Foster, Lyons and Oberhauser (2020) for the bridge with Levy areas; Jelincic, Foster
    and Kidger (2024), "Single-seed generation of Brownian paths and integrals for adaptive and
    high order SDE solvers", for trees of seeds.
    """

    shape: PyTree[jax.ShapeDtypeStruct] = eqx.field(static=True)
    key: Any
    levy_area: Any = eqx.field(static=True)
    ts: Float[Array, " cells"] | None
    saved: str = eqx.field(static=True)

    def __init__(
        self,
        shape: Any,
        key: Any,
        levy_area: Any = diffrax.BrownianIncrement,
        ts: Any = None,
        *,
        saved: str = "ends",
    ):
        if isinstance(shape, tuple) and all(isinstance(size, int) for size in shape):
            shape = jax.ShapeDtypeStruct(shape, jnp.result_type(float))
        leaves = jax.tree.leaves(shape)
        is_floating = lambda x: hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)
        if not all(map(is_floating, leaves)):
            raise ValueError(
                "`shape` must be a tuple of integers or a PyTree of `jax.ShapeDtypeStruct`s of "
                f"floating-point numbers, but got {shape}."
            )
        if levy_area not in AREAS:
            names = ", ".join(f"diffrax.{area.__name__}" for area in AREAS)
            raise ValueError(f"`levy_area` must be one of {names}, but got {levy_area}.")
        if saved not in ("ends", "bridge"):
            raise ValueError(f'`saved` must be "ends" or "bridge", but got {saved!r}.')
        self.shape, self.key, self.levy_area, self.saved = shape, key, levy_area, saved
        self.ts = None if ts is None else _checked(ts)

    @property
    def t0(self) -> Any:
        return -jnp.inf if self.ts is None else self.ts[0]

    @property
    def t1(self) -> Any:
        return jnp.inf if self.ts is None else self.ts[-1]

    @property
    def num_areas(self) -> int:
        """How many numbers an interval is told by: W, then H, then K."""
        return AREAS.index(self.levy_area) + 1

    def evaluate(
        self, t0: Time, t1: Time | None = None, left: bool = True, use_levy: bool = False
    ) -> Any:
        """The increment from `t0` to `t1` (from 0 to `t0` if `t1` is not given), and with
        `use_levy` its Levy areas, as an object of the class `levy_area`.

        Costs some thirty draws, where a solve that knows its cells needs one. Times are
        resolved to a cell's length times 2^-30; they have no derivative.
        """
        ends = (0.0, t0) if t1 is None else (t0, t1)
        begin, end = map(lax.stop_gradient, promote_times(*ends))
        # An increment backwards is the one forwards, taken back.
        first, last = jnp.minimum(begin, end), jnp.maximum(begin, end)
        sign = jnp.where(end < begin, -1, 1)
        x = [sign.astype(x.dtype) * x for x in between(self, first, last)]
        return self.dressed(x, end - begin, use_levy)

    def dressed(self, x: list[Any], h: Time, use_levy: bool) -> Any:
        """W, or W with its areas, as diffrax's terms want them."""
        treedef = jax.tree.structure(self.shape)
        of = lambda i: jax.tree.unflatten(treedef, [leaf[i] for leaf in x])
        if not use_levy:
            return of(0)
        dt = jax.tree.map(lambda like: h.astype(like.dtype), self.shape)
        return self.levy_area(dt, *(of(i) for i in range(self.num_areas)))

    # Below, what an interval draws is a list: for each array of the motion W, H and K, stacked.

    def whole(self, key: Any, h: Time) -> list[Any]:
        """What a cell of length `h` draws; `key` is the cell's."""
        return self._whole_of(self._normals(key), h)

    def halves(self, key: Any, node: Any, x: list[Any], h: Time) -> tuple[list[Any], list[Any]]:
        """An interval of length `h` in two: `key` is its cell's, `node` its number in the heap of
        the cell's halves, the cell itself being 1.
        """
        return self._split(self._normals(jr.fold_in(key, node)), x, h)

    def drawn_below(self, key: Any, node: Any, x: list[Any], h: Time) -> tuple[list[Any], ...]:
        """What the cell draws, if `node` is 0, and the two `halves`, if not: of one draw, for a
        loop that begins with a cell.
        """
        key = jnp.where(jnp.equal(node, 0), key, jr.fold_in(key, node))
        normals = self._normals(key)
        return self._whole_of(normals, h), *self._split(normals, x, h)

    def _normals(self, key: Any) -> list[Any]:
        likes = jax.tree.leaves(self.shape)
        draw = lambda key, like: jr.normal(key, (self.num_areas, *like.shape), like.dtype)
        return list(map(draw, _keys(key, len(likes)), likes))

    def _whole_of(self, normals: list[Any], h: Time) -> list[Any]:
        return [whole(normal, h) for normal in normals]

    def _split(self, normals: list[Any], x: list[Any], h: Time) -> tuple[list[Any], list[Any]]:
        pairs = [split(normal, leaf, h) for normal, leaf in zip(normals, x, strict=True)]
        return [left for left, _ in pairs], [right for _, right in pairs]

    def cell_key(self, start: Time) -> Any:
        """Where a cell's random numbers begin: with the bits of its first time."""
        key = written_out(self.key)
        for word in _words(start):
            key = jr.fold_in(key, word)
        return key

    def part(self, key: Any, length: Time, level: Any, index: Any) -> list[Any]:
        """What part `index`, of 2^`level` equal ones, of a cell draws."""

        def down(loop: tuple) -> tuple:
            drawn, h, x = loop
            is_cell, at = drawn == 0, index >> (level - drawn)
            node = jnp.where(is_cell, 0, (_ONE << jnp.maximum(drawn, 1) - 1) | (at >> 1))
            cell, left, right = self.drawn_below(key, node, x, h)
            half = tree.where((at & 1) == 1, right, left)
            return drawn + 1, jnp.where(is_cell, h, h / 2), tree.where(is_cell, cell, half)

        x = tree.zeros_like(jax.eval_shape(self.whole, key, length))
        first = (jnp.zeros_like(level), length, x)
        return lax.while_loop(lambda loop: loop[0] <= level, down, first)[2]


_ONE = np.uint32(1)


def _words(t: Time) -> list[Any]:
    """The bits of a time, 32 at a time; 0 and -0 are the same time."""
    # Not t + 0, which the compiler takes for t.
    bits = lax.bitcast_convert_type(jnp.where(t == 0, jnp.zeros_like(t), t), jnp.uint32)
    return [bits] if bits.ndim == 0 else [bits[0], bits[1]]


def _keys(key: Any, number: int) -> list[Any]:
    return [key] if number == 1 else list(jr.split(key, number))


def _checked(ts: Any) -> Any:
    ts = jnp.asarray(ts)
    if not jnp.issubdtype(ts.dtype, jnp.floating):
        ts = ts.astype(jnp.result_type(float))
    if ts.ndim != 1 or ts.size < 2:
        raise ValueError(f"`ts` must be an array of at least two times, but got {ts.shape}.")
    if is_concrete(ts) and not bool(jnp.all(ts[1:] > ts[:-1])):
        raise ValueError("`ts` must increase.")
    return ts


def levy_area_for(solver: diffrax.AbstractSolver) -> Any:
    """The least that a path must give to a solver."""
    needs = getattr(solver, "minimal_levy_area", diffrax.AbstractBrownianIncrement)
    if issubclass(needs, diffrax.AbstractSpaceTimeTimeLevyArea):
        return diffrax.SpaceTimeTimeLevyArea
    if issubclass(needs, diffrax.AbstractSpaceTimeLevyArea):
        return diffrax.SpaceTimeLevyArea
    return diffrax.BrownianIncrement
