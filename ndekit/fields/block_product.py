"""The product of small matrices as one operation of JAX.

Written out, it is a few products of long vectors. JAX's derivative of that writes every entry into
zeros of the whole size and adds these up, which takes many times as long as the product; but the
derivative of a product is a product. So it is an operation of its own, bilinear, that knows this.
"""

from typing import Any

import jax.numpy as jnp
from jax.extend import core as jex_core
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

_product_p = jex_core.Primitive("ndekit_block_product")


def block_product(
    a: Float[Array, "*batch row inner matrices"], b: Float[Array, "*batch inner column matrices"]
) -> Float[Array, "*batch row column matrices"]:
    """Of each matrix of `a` with that of `b`, summed up term by term: for small ones."""
    return _product_p.bind(a, b)


def _written_out(a: Array, b: Array) -> Array:
    terms = [a[..., :, k, None, :] * b[..., None, k, :, :] for k in range(a.shape[-2])]
    return sum(terms[1:], terms[0])


def _abstract(a: Any, b: Any) -> Any:
    axes = getattr(a, "vma", frozenset()) | getattr(b, "vma", frozenset())
    shape = (*a.shape[:-2], b.shape[-2], a.shape[-1])
    return a.update(shape=shape, vma=axes) if axes else a.update(shape=shape)


def _batch(given: Any, dims: Any) -> tuple[Array, int]:
    size = next(x.shape[dim] for x, dim in zip(given, dims, strict=True) if dim is not None)
    first = lambda x, dim: (
        jnp.broadcast_to(x, (size, *x.shape)) if dim is None else jnp.moveaxis(x, dim, 0)
    )
    return _product_p.bind(*map(first, given, dims)), 0


def _transposed(x: Array) -> Array:
    return jnp.swapaxes(x, -3, -2)


_product_p.def_impl(_written_out)
_product_p.def_abstract_eval(_abstract)
mlir.register_lowering(_product_p, mlir.lower_fun(_written_out, multiple_results=False))
batching.primitive_batchers[_product_p] = _batch
ad.defbilinear(
    _product_p,
    lambda ct, a, b: _product_p.bind(ct, _transposed(b)),
    lambda ct, a, b: _product_p.bind(_transposed(a), ct),
)
