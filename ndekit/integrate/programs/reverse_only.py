"""The end of forward mode: a derivative that can only be taken in reverse says so by name."""

from typing import Any

from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_reverse_only_p = Primitive("ndekit_reverse_only")


def reverse_only(tangent: Any) -> Any:
    """`tangent`, as long as nobody wants to know its value."""
    return _reverse_only_p.bind(tangent)


def _refuse(*_: Any, **__: Any) -> Any:
    raise TypeError(
        "Inside `jax.shard_map` with its checks on, a solve by `ReplayAdjoint` or "
        "`ReversibleAdjoint` has no forward mode (`jax.jvp`, `jax.jacfwd`, `jax.hessian`). Use "
        "`jax.shard_map(..., check_vma=False)`, or for first derivatives "
        "`diffeqsolve(..., adjoint=diffrax.ForwardMode())`."
    )


_reverse_only_p.def_impl(_refuse)
_reverse_only_p.def_abstract_eval(lambda x: x)
mlir.register_lowering(_reverse_only_p, _refuse)
batching.primitive_batchers[_reverse_only_p] = _refuse
ad.deflinear2(_reverse_only_p, lambda ct, _: [ct])
