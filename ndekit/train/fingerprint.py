"""What tells one training run from another, in a few short words that are kept with it."""

import hashlib
import importlib.metadata
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from .loss import in_one_form
from .trained import trained, trained_and_rest
from .update import stepped

# Where an object stands in memory, as Python prints it: another place in each process.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+|0x[0-9a-f]{6,}")
_PACKAGES = ("jax", "jaxlib", "equinox", "optax", "diffrax", "lineax", "optimistix", "ndekit")


class Fingerprint(NamedTuple):
    """Digests of all that a run depends on; two runs are the same if all of them are.

    Attributes:
        key: the key's bits.
        monitor: what the best model is chosen by; `None` if nothing is evaluated.
        optimizer: of the program of its update, with each hyper-parameter and schedule in it, and
            of its first state.
        loss: of the program of the loss and its gradient, with each number that it closes over.
        model, batch, carry: of the numbers that the run began with.
        environment: with what it was computed. Programs of other versions differ where they mean
            the same.
    """

    key: list
    monitor: str | None
    optimizer: str
    loss: str
    model: str
    batch: str
    carry: str
    environment: str


def fingerprint_of(plan: Any, model: PyTree, opt_state: PyTree, carry: PyTree) -> Fingerprint:
    """The fingerprint of a run that begins with these.

    Args:
        plan: an `ndekit.train.loop.Plan`.
        model, opt_state, carry: before the first update.
    """
    batch = plan.batch_fn(0)
    update = _update_program(plan.optimizer, model, opt_state)
    return Fingerprint(
        key=bits_of(plan.key),
        monitor=None if plan.evaluate is None else plan.monitor,
        optimizer=digest([*update, *_numbers(opt_state)]),
        loss=digest(_loss_program(plan.loss_fn, model, batch, carry, plan.key)),
        model=digest(_numbers(model)),
        batch=digest(_numbers(batch)),
        carry=digest(_numbers(carry)),
        environment=environment(),
    )


def environment() -> str:
    """Versions and the kind of device: what rounding and the text of programs depend on."""
    device = jax.devices()[0]
    versions = [f"{name} {_version_of(name)}" for name in _PACKAGES]
    return ", ".join([*versions, device.platform, device.device_kind])


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of a checkout"


def digest(parts: list[bytes]) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def bits_of(key: Array) -> list:
    """A key of either kind as a list of numbers."""
    return np.asarray(plain(key)).tolist()


def plain(array: Any) -> Any:
    """The array, of a key its bits."""
    is_key = isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(array) if is_key else array


def _numbers(tree: PyTree) -> list[bytes]:
    """Where each array stands, of what make it is, and its bytes."""
    arrays = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, eqx.is_array))[0]
    parts = []
    for path, leaf in arrays:
        leaf = np.asarray(plain(leaf))
        name = f"{jax.tree_util.keystr(path)}: {leaf.dtype}{leaf.shape}"
        parts += [name.encode(), np.ascontiguousarray(leaf).tobytes()]
    return parts


def _loss_program(loss_fn: Any, model: PyTree, batch: PyTree, carry: PyTree, key: Array) -> list:
    """Of the gradient too: how a solve is differentiated is not in its value."""
    params, static = trained_and_rest(model)
    in_full = in_one_form(loss_fn)

    def loss_and_grad(params: PyTree, batch: PyTree, step: Array, key: Array, carry: PyTree) -> Any:
        loss_of = lambda params: in_full(eqx.combine(params, static), batch, step, key, carry)[0]
        return eqx.filter_value_and_grad(loss_of)(params)

    batch = jax.tree.map(jnp.asarray, batch)
    return _program(loss_and_grad, params, batch, jnp.zeros((), jnp.int32), key, carry)


def _update_program(
    optimizer: optax.GradientTransformation | optax.MultiSteps, model: PyTree, opt_state: PyTree
) -> list[bytes]:
    params = trained(model)

    def total(params: PyTree) -> tuple[Array, None]:
        real = [jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(params)]
        return sum(leaf.astype(real[0].dtype) for leaf in real), None  # pyright: ignore

    def update(grads: PyTree, opt_state: PyTree, params: PyTree) -> tuple:
        return stepped(optimizer, grads, opt_state, params, total(params)[0], total)

    return _program(update, params, opt_state, params)


def _program(fn: Any, *args: PyTree) -> list[bytes]:
    """The text of what JAX traces, and the arrays that it closes over."""
    closed, _, _ = eqx.filter_make_jaxpr(fn)(*args)
    text = _ADDRESS.sub("", str(closed.jaxpr))
    constants = [np.asarray(plain(value)) for value in _constants(closed)]
    return [text.encode(), *(np.ascontiguousarray(value).tobytes() for value in constants)]


def _constants(program: Any) -> Iterator[Any]:
    """The arrays closed over by a program and by those inside of it."""
    if isinstance(program, tuple | list):
        for part in program:
            yield from _constants(part)
    elif hasattr(program, "eqns"):
        yield from getattr(program, "consts", ())
        for equation in program.eqns:
            yield from _constants(list(equation.params.values()))
