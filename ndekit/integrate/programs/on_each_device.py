"""Solves inside `jax.shard_map`, as each device makes them on its own.

With its checks on, `jax.shard_map` wants every loop to say which of its values differ between
devices: those of our loops, of diffrax's, and of the libraries below. But nothing in a solve speaks
across devices. So a solve is traced as if there were one device, and meets JAX as one operation.
"""

import inspect
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend import core as jex_core

from .bare_types import axes_of, bare_program, is_bare, struct_of, traced_bare
from .one_operation import of_each_device


class _DoesMore(Exception):
    """A program that does more than compute, such as speak with other devices."""


class _ClosesOver(Exception):
    """A function that closes over arrays of the mesh, which are to be arguments."""

    def __init__(self, arrays: list[Any]):
        super().__init__()
        self.arrays = arrays


def on_each_device(fn: Callable, *args: Any, forward: bool = False) -> Any:
    """`fn(*args)`, of which JAX does not see the inside where it would ask for axes of a mesh. What
    does more than compute runs as it is. It is differentiated in reverse, or `forward`.
    """
    if not _are_axes_checked():
        return fn(*args)
    traced = _traced(fn, args)
    if traced is None:
        return fn(*args)
    program, given, finished = traced
    axes = frozenset().union(*map(axes_of, given))
    return finished(of_each_device(program, axes, given, forward))


def _are_axes_checked() -> bool:
    names = jax.sharding.get_abstract_mesh().manual_axes
    return bool(names) and bool(axes_of(jax.lax.pcast(jnp.zeros(()), tuple(names), to="varying")))


def _traced(fn: Callable, args: Any) -> tuple[jex_core.ClosedJaxpr, list[Any], Callable] | None:
    """`fn` as a program, the arrays that it takes, and what makes its result of what it gives;
    nothing for one that does more than compute.
    """
    leaves, treedef = jax.tree.flatten(args)
    traced = [i for i, x in enumerate(leaves) if isinstance(x, Tracer)]
    closed: list[Any] = []  # what functions among the arguments close over, as it is found
    inside: dict[int, Any] = {}  # the same, as the program knows it
    mesh, rest = jax.sharding.get_abstract_mesh(), []
    leaves = [_without_closure(mesh, inside, x) for x in leaves]

    def flat(*arrays: Any) -> list[Any]:
        inside.update(zip(map(id, closed), arrays[len(traced) :], strict=True))
        values = dict(zip(traced, arrays, strict=False))
        out = fn(*jax.tree.unflatten(treedef, [values.get(i, x) for i, x in enumerate(leaves)]))
        found, other = eqx.partition(out, lambda x: isinstance(x, Tracer))
        found, structure = jax.tree.flatten(found)
        rest[:] = structure, other
        return found

    while True:
        given = [*(leaves[i] for i in traced), *closed]
        try:
            program = traced_bare(flat, *given)
            break
        except _ClosesOver as error:
            closed += error.arrays
        except _DoesMore:
            return None
        except AssertionError as error:
            # So JAX says that an axis of the mesh was named where there is none: by `jax.lax.psum`.
            if not any(isinstance(arg, jax.sharding.ManualAxisType) for arg in error.args):
                raise
            return None
    if program.effects:
        return None
    program, constants = _with_constants_given(program)
    structure, other = rest
    finished = lambda found: eqx.combine(jax.tree.unflatten(structure, found), other)
    return program, [*constants, *given], finished


def _with_constants_given(
    program: jex_core.ClosedJaxpr,
) -> tuple[jex_core.ClosedJaxpr, list[Any]]:
    """The program with the traced ones among its constants as its first arguments."""
    jaxpr, pairs = program.jaxpr, list(zip(program.jaxpr.constvars, program.consts, strict=True))
    given = [(v, c) for v, c in pairs if isinstance(c, Tracer)]
    kept = [(v, c) for v, c in pairs if not isinstance(c, Tracer)]
    invars = [*(v for v, _ in given), *jaxpr.invars]
    info = jaxpr.debug_info._replace(arg_names=None, result_paths=None)
    jaxpr = jaxpr.replace(constvars=[v for v, _ in kept], invars=invars, debug_info=info)
    return jex_core.ClosedJaxpr(jaxpr, [c for _, c in kept]), [c for _, c in given]


def _without_closure(mesh: Any, inside: dict[int, Any], leaf: Any) -> Any:
    """A function that may close over arrays of the mesh, which it is to take from `inside`."""
    inner = inspect.unwrap(leaf) if callable(leaf) else leaf
    closed = isinstance(inner, types.FunctionType) and inner.__closure__
    if closed or isinstance(inner, (partial, types.MethodType)):
        return partial(_apart, mesh, inside, leaf)
    return leaf


def _apart(mesh: Any, inside: dict[int, Any], fn: Callable, *args: Any, **kwargs: Any) -> Any:
    """`fn(*args, **kwargs)`, traced on its own in the mesh."""
    arrays, rest = eqx.partition((args, kwargs), eqx.is_array)
    leaves, treedef = jax.tree.flatten(arrays)

    def run(*leaves: Any) -> Any:
        args, kwargs = eqx.combine(jax.tree.unflatten(treedef, leaves), rest)
        return fn(*args, **kwargs)

    with jax.sharding.use_abstract_mesh(mesh):
        program, shapes = jax.make_jaxpr(run, return_shape=True)(*map(struct_of, leaves))
    if program.effects:
        raise _DoesMore
    of_mesh = [c for c in program.consts if isinstance(c, Tracer) and not is_bare(c)]
    if missing := [c for c in of_mesh if id(c) not in inside]:
        raise _ClosesOver(missing)
    consts = [inside.get(id(c), c) for c in program.consts]
    program = jex_core.ClosedJaxpr(bare_program(program).jaxpr, consts)
    out = jex_core.jaxpr_as_fun(program)(*leaves)
    return jax.tree.unflatten(jax.tree.structure(shapes), out)
