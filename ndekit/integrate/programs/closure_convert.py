"""Functions as data: traced once, and the traced arrays that they close over pulled out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend import core as jex_core

from .unrolled_loops import without_short_loops


@dataclass(frozen=True, eq=False)
class Converted:
    """A function of arrays as a program, to be run on constants of one's choice.

    A field, a solver's step, a controller, a function to save: each may close over arrays that are
    being differentiated or batched outside. Those become operands of the solve. Arrays that are
    known stay inside the program.
    """

    jaxpr: jex_core.ClosedJaxpr
    hoisted: tuple[int, ...]  # positions among the program's constants
    shapes: Any  # of what it returns

    def __call__(self, constants: list[Any], *args: Any) -> Any:
        run = jex_core.jaxpr_as_fun(filled(self.jaxpr, self.hoisted, constants))
        # What does not depend on the arguments comes back as a Python number.
        leaves = map(jnp.asarray, run(*jax.tree.leaves(args)))
        return jax.tree.unflatten(jax.tree.structure(self.shapes), leaves)


def filled(
    program: jex_core.ClosedJaxpr, hoisted: tuple[int, ...], constants: list[Any]
) -> jex_core.ClosedJaxpr:
    """A program with `constants` at these of its constants."""
    consts = list(program.consts)
    for position, value in zip(hoisted, constants, strict=True):
        consts[position] = value
    return jex_core.ClosedJaxpr(program.jaxpr, consts)


def convert(fn: Callable, *examples: Any) -> tuple[Converted, list[Any]]:
    """`fn` as a program, and its constants. `examples` are arguments, or their shapes."""
    leaves, treedef = jax.tree.flatten(examples)
    flat = lambda *leaves: fn(*jax.tree.unflatten(treedef, leaves))
    jaxpr, shapes = jax.make_jaxpr(flat, return_shape=True)(*leaves)
    if jax.default_backend() != "cpu":
        jaxpr = without_short_loops(jaxpr)
    hoisted = tuple(i for i, c in enumerate(jaxpr.consts) if isinstance(c, Tracer))
    constants = [jaxpr.consts[i] for i in hoisted]
    kept = [None if i in hoisted else c for i, c in enumerate(jaxpr.consts)]
    return Converted(jex_core.ClosedJaxpr(jaxpr.jaxpr, kept), hoisted, shapes), constants
