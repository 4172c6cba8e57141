"""Programs with rules of their own: for `jax.vmap`, for forward mode and for its transpose.

What JAX makes of a loop is right, but seldom what one wants, and a loop of unknown length it cannot
reverse at all. Such a program is an operation of its own that says what its derivative is.
"""

import abc
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


class AbstractProgram(abc.ABC):
    """A function of arrays, `run`, that is called as `program(*arrays)`."""

    primitive: ClassVar[Primitive]

    def __call__(self, *arrays: Any) -> list[Any]:
        return self.primitive.bind(*map(jnp.asarray, arrays), program=self)

    @abc.abstractmethod
    def run(self, *arrays: Any) -> list[Any]: ...

    @abc.abstractmethod
    def avals(self, *arrays: Any) -> list[Any]:
        """Shapes and dtypes of what `run` gives, from those of what it takes."""

    @abc.abstractmethod
    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Values and tangents; `ad.Zero` for one that is not there."""

    def batch(self, arrays: list[Any], axes: tuple[int | None, ...]) -> tuple[list[Any], list]:
        return mapped(self, arrays, axes)

    def when_mapped(self, over: Sequence[bool]) -> "AbstractProgram":
        """What `jax.vmap` maps over these arrays, where that is another program for the same."""
        return self

    def is_shared(self) -> Sequence[bool]:
        """Which of the results are the same for all rows of a `jax.vmap`."""
        return ()

    def transpose(self, cts: Sequence[Any], arrays: Sequence[Any]) -> list[Any]:
        raise NotImplementedError(f"{type(self).__name__} is not linear.")


def operation(name: str) -> Primitive:
    """The primitive of one kind of programs."""
    new = Primitive(name)
    new.multiple_results = True
    run = lambda *arrays, program: program.run(*arrays)
    new.def_impl(run)
    new.def_abstract_eval(lambda *arrays, program: program.avals(*arrays))
    mlir.register_lowering(new, mlir.lower_fun(run, multiple_results=True))
    batch = lambda arrays, axes, *, program: program.batch(list(arrays), tuple(axes))
    batching.primitive_batchers[new] = batch
    # Literals come as Python's scalars.
    known = lambda xs: [x if ad.is_undefined_primal(x) else jnp.asarray(x) for x in xs]
    ad.primitive_jvps[new] = lambda xs, tangents, *, program: program.jvp(known(xs), tangents)
    ad.primitive_transposes[new] = lambda cts, *xs, program: program.transpose(cts, known(xs))
    return new


def is_smooth(x: Any) -> bool:
    """Whether an array can have a derivative."""
    return jnp.issubdtype(x.dtype, jnp.inexact)


def has_tangent(tangent: Any) -> bool:
    return type(tangent) is not ad.Zero and tangent.dtype != jax.dtypes.float0


def no_tangent(value: Any) -> ad.Zero:
    """The tangent of what does not move, or cannot: an integer."""
    dtype = value.dtype if is_smooth(value) else jax.dtypes.float0
    return ad.Zero(ShapedArray(value.shape, dtype))


def instantiated(tangent: Any) -> Any:
    """A tangent or cotangent as an array."""
    return tangent if has_tangent(tangent) else jnp.zeros(tangent.aval.shape, tangent.aval.dtype)


def mapped(
    program: AbstractProgram, arrays: list[Any], axes: tuple[int | None, ...]
) -> tuple[list[Any], list[int | None]]:
    """`jax.vmap` of a program's `run`, as a program."""
    size = next(x.shape[axis] for x, axis in zip(arrays, axes, strict=True) if axis is not None)
    new = Mapped(program.when_mapped([axis is not None for axis in axes]), axes, size)
    out = new(*arrays)
    return out, new.out_axes(len(out))


def placed(arrays: list[Any], axes: Sequence[int | None], targets: Sequence[int | None]) -> list:
    """Arrays with the axis of a `jax.vmap` where it is wanted; one that has none is repeated."""
    each = list(zip(arrays, axes, targets, strict=True))
    size = next(x.shape[axis] for x, axis, _ in each if axis is not None)

    def put(x: Any, axis: int | None, target: int | None) -> Any:
        if target is None:
            assert axis is None  # or rows would be lost
            return x
        if axis is not None:
            return jnp.moveaxis(x, axis, target)
        rows = jnp.expand_dims(x, target)
        shape = list(rows.shape)
        shape[target] = size
        return jnp.broadcast_to(rows, shape)

    return [put(*given) for given in each]


@dataclass(frozen=True, eq=False)
class Mapped(AbstractProgram):
    """A program mapped from outside, as JAX does. Its rules are those of the program, mapped."""

    primitive = operation("ndekit_mapped")

    inner: AbstractProgram
    axes: tuple[int | None, ...]
    size: int

    def run(self, *arrays: Any) -> list[Any]:
        number = len(self.avals(*map(jax.typeof, arrays)))
        run = lambda arrays: self.inner.run(*arrays)
        return self._map(run, list(self.axes), out_axes=self.out_axes(number))(list(arrays))

    def avals(self, *arrays: Any) -> list[Any]:
        rows = self.inner.avals(*map(_without, arrays, self.axes))
        sizes = [() if axis is None else (self.size,) for axis in self.out_axes(len(rows))]
        return [
            ShapedArray((*size, *x.shape), x.dtype) for size, x in zip(sizes, rows, strict=True)
        ]

    def when_mapped(self, over: Sequence[bool]) -> AbstractProgram:
        return dataclasses.replace(self, inner=self.inner.when_mapped(over))

    def is_shared(self) -> Sequence[bool]:
        return self.inner.is_shared()

    def out_axes(self, number: int) -> list[int | None]:
        shared = self.is_shared() or [False] * number
        return [None if is_shared else 0 for is_shared in shared]

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        moves = [has_tangent(t) for t in tangents]
        out_axes = self.out_axes(len(self.avals(*map(jax.typeof, primals))))
        moved: list[bool] = []

        def rule(primals: list, directions: list) -> tuple[list, list]:
            rest = iter(directions)
            each = zip(primals, moves, strict=True)
            given = [next(rest) if is_moved else no_tangent(x) for x, is_moved in each]
            out, d_out = self.inner.jvp(primals, given)
            moved[:] = map(has_tangent, d_out)
            return out, [d for d in d_out if has_tangent(d)]

        axes = [axis for axis, is_moved in zip(self.axes, moves, strict=True) if is_moved]
        directions = [t for t in tangents if has_tangent(t)]
        run = self._map(rule, list(self.axes), axes, out_axes=(out_axes, 0))
        out, found = run(list(primals), directions)
        rest = iter(found)
        each = zip(out, moved, strict=True)
        return out, [next(rest) if is_moved else no_tangent(x) for x, is_moved in each]

    def transpose(self, cts: Sequence[Any], arrays: Sequence[Any]) -> list[Any]:
        each = list(zip(arrays, self.axes, strict=True))
        known = [(x, axis) for x, axis in each if not ad.is_undefined_primal(x)]
        said = [ct for ct in cts if has_tangent(ct)]

        def pulled(known: list, said: list) -> list:
            values, spoken = iter(known), iter(said)
            given = [
                ad.UndefinedPrimal(_without(x.aval, axis))
                if ad.is_undefined_primal(x)
                else next(values)
                for x, axis in each
            ]
            own = [next(spoken) if has_tangent(ct) else ad.Zero(_without(ct.aval, 0)) for ct in cts]
            found = self.inner.transpose(own, given)
            linear = map(ad.is_undefined_primal, given)
            return [
                instantiated(x) for x, is_linear in zip(found, linear, strict=True) if is_linear
            ]

        axes = [axis for _, axis in known]
        found = iter(self._map(pulled, axes, [0] * len(said))([x for x, _ in known], said))
        return [
            _put_back(next(found), axis) if ad.is_undefined_primal(x) else None for x, axis in each
        ]

    def _map(self, fn: Any, *axes: list, out_axes: Any = 0) -> Any:
        return jax.vmap(fn, axes, out_axes, axis_size=self.size)


def _without(aval: Any, axis: int | None) -> Any:
    if axis is None:
        return aval
    shape = list(aval.shape)
    del shape[axis]
    return ShapedArray(tuple(shape), aval.dtype)


def _put_back(rows: Any, axis: int | None) -> Any:
    """The cotangent of what each row had for itself, or of what all of them shared."""
    return jnp.sum(rows, axis=0) if axis is None else jnp.moveaxis(rows, 0, axis)
