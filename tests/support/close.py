"""How close is close: the tolerances of all tests, and comparisons of whole PyTrees."""

import jax
import jax.tree_util as jtu
import numpy as np

ROUNDING = 64  # units in the last place that a few hundred operations may cost


def close_to_rounding(a, b) -> bool:
    """Whether two PyTrees differ by no more than the rounding of a short computation.

    The allowance is `ROUNDING` units in the last place of the coarser dtype, relative to the
    largest entry of each leaf: after a sum, a small entry is only as exact as the large ones.
    """
    return not _differences(a, b, _rounding_allowance)


def close_to_solver(a, b, rtol: float) -> bool:
    """Whether two PyTrees differ by no more than a solve at tolerance `rtol` may be off.

    Local errors of size `rtol` add up over the steps, so a factor of 100 is allowed, relative to
    the largest entry of each leaf.
    """
    return not _differences(a, b, lambda x, y: 100 * rtol * max(_largest(x), _largest(y)))


def difference_after(operations: float, a, b) -> str | None:
    """How two leaves differ by more than the rounding of `operations` short computations in a row.

    `None` if they do not; a step of a solver is a short computation.
    """
    return _difference("leaf", a, b, lambda x, y: operations * _rounding_allowance(x, y))


def assert_tree_close(a, b, rtol: float, atol: float = 0.0) -> None:
    """Fail, naming every leaf that is further from `b` than `atol + rtol * |b|`."""
    wrong = _differences(a, b, lambda x, y: atol + rtol * np.abs(y))
    assert not wrong, "\n".join([f"Not close (rtol={rtol:g}, atol={atol:g}):", *wrong])


def _differences(a, b, allowance) -> list[str]:
    """One line for each place where `a` and `b` do not match."""
    leaves_a, tree_a = jtu.tree_flatten_with_path(a)
    leaves_b, tree_b = jtu.tree_flatten(b)
    if tree_a != tree_b:
        return [f"  structures differ: {tree_a} against {tree_b}"]
    pairs = zip(leaves_a, leaves_b, strict=True)
    lines = [_difference(jtu.keystr(path) or "leaf", x, y, allowance) for (path, x), y in pairs]
    return [line for line in lines if line is not None]


def _difference(name: str, x, y, allowance) -> str | None:
    x, y = _real(x), _real(y)
    if x.shape != y.shape:
        return f"  {name}: shapes {x.shape} against {y.shape}"
    if x.dtype.kind not in "fc" and y.dtype.kind not in "fc":
        if np.array_equal(x, y):
            return None
        return f"  {name}: {np.sum(x != y)} of {x.size} entries differ, {x} against {y}"
    wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
    # Equal infinities and NaNs in the same place count as equal.
    same = (wide_x == wide_y) | (np.isnan(wide_x) & np.isnan(wide_y))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(wide_x - wide_y))
        allowed = np.broadcast_to(allowance(x, y), gap.shape)
        # Beside an infinite number the gap is infinite, and so is the allowance.
        wrong = ~same & ~(np.isfinite(gap) & (gap <= allowed))
    if not wrong.any():
        return None
    size = np.where(wrong, np.nan_to_num(gap, nan=np.inf), -1.0)
    worst = np.unravel_index(np.argmax(size), size.shape)
    place = f"[{', '.join(map(str, worst))}]" if worst else ""
    return (
        f"  {name}{place}: {wide_x[worst]:.17g} against {wide_y[worst]:.17g}, "
        f"off by {gap[worst]:.2g} where {allowed[worst]:.2g} is allowed "
        f"({wrong.sum()} of {wrong.size} entries are off)"
    )


def _real(leaf) -> np.ndarray:
    """The leaf as a NumPy array; keys as their bits, complex numbers as pairs."""
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    if np.iscomplexobj(array):
        array = np.stack([array.real, array.imag], axis=-1)
    return array


def _largest(array: np.ndarray) -> float:
    """The largest finite magnitude."""
    finite = np.abs(array[np.isfinite(array)]).astype(np.float64)
    return float(finite.max(initial=0.0))


def _rounding_allowance(x: np.ndarray, y: np.ndarray) -> float:
    eps = max(np.finfo(z.dtype).eps for z in (x, y) if z.dtype.kind == "f")
    return ROUNDING * float(eps) * max(_largest(x), _largest(y))
