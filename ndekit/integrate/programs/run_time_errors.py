"""Errors at run time, by programs that JAX's persistent compilation cache can keep.

A program that calls Python back belongs to its process, and JAX does not keep it. Of an error
nothing has to come back. On CPU it is raised by a call through XLA's foreign function interface, of
which a program holds the name alone; elsewhere by a callback.
"""

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...shapes import Flag

# Before the message, so that it can be told from what JAX puts before it.
_MARK = "ndekit: "
_INTERNAL = 13  # XLA_FFI_Error_Code_INTERNAL
_METADATA, _VERSION = 1, (0, 3)  # XLA_FFI_Extension_Metadata; of the interface, below
_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_size_t


def _struct(name: str, *fields: tuple[str, Any]) -> type[ctypes.Structure]:
    """One of the structures of `xla/ffi/api/c_api.h`, which begin alike."""
    start = [("struct_size", _SIZE), ("extension_start", _POINTER)]
    return type(name, (ctypes.Structure,), {"_fields_": [*start, *fields]})


_Version = _struct("Version", ("major", ctypes.c_int), ("minor", ctypes.c_int))
_Buffer = _struct(
    "Buffer", ("dtype", ctypes.c_int), ("data", _POINTER), ("rank", ctypes.c_int64),
    ("dims", ctypes.POINTER(ctypes.c_int64)),
)  # fmt: skip
_Args = _struct(
    "Args", ("size", ctypes.c_int64), ("types", _POINTER),
    ("args", ctypes.POINTER(ctypes.POINTER(_Buffer))),
)  # fmt: skip
_Error = _struct("Error", ("message", ctypes.c_char_p), ("code", ctypes.c_int))
_Api = _struct(
    "Api", ("version", _Version), ("internal", _POINTER),
    ("create_error", ctypes.CFUNCTYPE(_POINTER, ctypes.POINTER(_Error))),
)  # fmt: skip
_Frame = _struct(
    "Frame", ("api", ctypes.POINTER(_Api)), ("context", _POINTER), ("stage", ctypes.c_int),
    ("args", _Args),
)  # fmt: skip


class _Extension(ctypes.Structure):
    _fields_ = [("struct_size", _SIZE), ("type", ctypes.c_int), ("next", _POINTER)]


class _Metadata(ctypes.Structure):
    _fields_ = [("struct_size", _SIZE), ("version", _Version), ("traits", ctypes.c_uint32)]


class _MetadataExtension(ctypes.Structure):
    _fields_ = [("base", _Extension), ("metadata", ctypes.POINTER(_Metadata))]


class RunTimeError:
    """A kind of error, known by its `name` to programs of whatever process.

    `describe(numbers, text)` is the message: of a vector of numbers that are known when the program
    runs, and of a text that was known when it was traced.
    """

    def __init__(self, name: str, describe: Callable[[np.ndarray, str], str]):
        self.name, self.describe = name, describe
        self._handler = ctypes.CFUNCTYPE(_POINTER, ctypes.POINTER(_Frame))(self._handle)
        try:
            pointer = jax.ffi.pycapsule(self._handler)
            jax.ffi.register_ffi_target(name, pointer, platform="cpu")
            self._is_registered = True
        except Exception:  # of another version of the interface
            self._is_registered = False

    def raised_if(self, bad: Flag, x: Any, numbers: Callable[[], Any], text: str) -> Any:
        """`x`, or an error if `bad` in any lane; `numbers()` is computed only then."""
        bad = eqxi.unvmap_any(bad)
        if not self._is_registered or jax.default_backend() != "cpu":
            return self._raised_by_callback(bad, x, numbers, text)
        letters = np.frombuffer(text.encode() or b" ", np.uint8)

        def call() -> Any:
            run = jax.ffi.ffi_call(self.name, jax.ShapeDtypeStruct((), jnp.int32))
            return run(numbers(), jnp.asarray(letters))

        return _bound_to(x, lax.cond(bad, call, lambda: jnp.int32(0)))

    def _handle(self, frame: Any) -> Any:
        """Called by XLA: when it is registered, and then by programs that fail."""
        extension = frame.contents.extension_start
        if (
            extension
            and ctypes.cast(extension, ctypes.POINTER(_Extension)).contents.type == _METADATA
        ):
            about = ctypes.cast(extension, ctypes.POINTER(_MetadataExtension)).contents.metadata
            about.contents.version.major, about.contents.version.minor = _VERSION
            about.contents.traits = 0
            return None
        try:
            numbers, letters = map(_array_of, (frame.contents.args.args[i] for i in range(2)))
            message = self.describe(np.asarray(numbers, np.float64), bytes(letters).decode())
        except Exception as error:  # what is raised here would go nowhere
            message = f"The solve failed, and so did describing how: {error!r}"
        size = ctypes.sizeof(_Error)
        error = _Error(size, None, (_MARK + message).encode(), _INTERNAL)
        return frame.contents.api.contents.create_error(ctypes.byref(error))

    def _raised_by_callback(self, bad: Flag, x: Any, numbers: Callable[[], Any], text: str) -> Any:
        def fail(given: Any) -> Any:
            raise RuntimeError(_MARK + self.describe(np.asarray(given, np.float64), text))

        out = jax.ShapeDtypeStruct((), jnp.int32)
        call = lambda: jax.pure_callback(fail, out, numbers())
        return _bound_to(x, lax.cond(bad, call, lambda: jnp.int32(0)))


@contextlib.contextmanager
def told_plainly() -> Iterator[None]:
    """Errors of a program that runs inside as Equinox raises its own, with their message alone."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # JAX raises one or the other
        status, found, message = str(error).partition(_MARK)
        if not (found and status.startswith("INTERNAL")):
            raise
        raise eqx.EquinoxRuntimeError(message) from None


_DTYPES = {11: np.float32, 12: np.float64, 6: np.uint8}  # XLA_FFI_DataType_F32, F64, U8


def _array_of(buffer: Any) -> np.ndarray:
    x = buffer.contents
    dtype = np.dtype(_DTYPES[x.dtype])
    length = int(np.prod([x.dims[i] for i in range(x.rank)]))
    return np.frombuffer(ctypes.string_at(x.data, length * dtype.itemsize), dtype)


@jax.custom_jvp
def _bound_to(x: Any, nothing: Any) -> Any:
    """`x`, which is not to be had before `nothing`: the number 0 of a call that may fail."""
    arrays, treedef = jax.tree.flatten(x)

    def after(leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):  # a key
            return leaf
        # Chosen, and not added to: every bit stays, and what promotes weakly goes on doing so.
        other = False if leaf.dtype == jnp.bool_ else 0
        return jnp.where(nothing == 0, leaf, other)

    return jax.tree.unflatten(treedef, map(after, arrays))


@_bound_to.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    # What is differentiated is not to be had either.
    x, nothing = primals
    known = lambda t: t if t.dtype == jax.dtypes.float0 else jnp.where(nothing == 0, t, 0)
    return _bound_to(x, nothing), jax.tree.map(known, tangents[0])
