"""A program whose derivative is data: what it needs is noted when the program runs.

The reverse pass of a solve that keeps its stages does not run the dynamics again. It puts what was
noted back into the linear map that `jax.linearize` left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex_core

from .closure_convert import Converted
from .equations import names_of, needed_for, variables

# Operations that take less time than to keep what they give.
_CHEAP = frozenset(
    "add add_any sub mul div neg sign abs max min clamp square integer_pow floor ceil round "
    "eq ne lt le gt ge and or not xor select_n is_finite convert_element_type real imag conj "
    "broadcast_in_dim reshape squeeze expand_dims transpose slice concatenate pad rev iota copy "
    "stop_gradient jit pjit custom_jvp_call".split()
)


@dataclass(frozen=True, eq=False)
class Linearized:
    """`dynamics`, and its derivative from outputs and notes.

    A note is a value inside the program that the derivative reads and that costs more than
    arithmetic on the arguments, the outputs and other notes.
    """

    dynamics: Converted
    active: tuple[bool, ...]  # which of constants and arguments have a derivative
    read: tuple[bool, ...]  # which outputs are noted as well; the others come back as zeros
    program: jex_core.ClosedJaxpr  # (constants, arguments) -> outputs, notes
    residuals: jex_core.ClosedJaxpr  # (constants, arguments, notes) -> what the linear map reads
    linear_map: Any  # a treedef, around residuals

    def run(self, constants: list[Any], *args: Any) -> tuple[Any, list[Any]]:
        """What the dynamics return, and the notes."""
        out = _evaluate(self.program, [*constants, *jax.tree.leaves(args)])
        leaves, notes = out[: len(self.read)], out[len(self.read) :]
        read = [x for x, on in zip(leaves, self.read, strict=True) if on]
        return self._dressed(leaves), read + notes

    def again(self, constants: list[Any], notes: list[Any], *args: Any) -> Any:
        """What the dynamics returned, to be differentiated."""
        given = [*constants, *jax.tree.leaves(args)]
        residuals = _evaluate(self.residuals, [*given, *notes])
        active = [x for x, on in zip(given, self.active, strict=True) if on]
        values, shapes = iter(notes), jax.tree.leaves(self.dynamics.shapes)
        out = [
            next(values) if on else jnp.zeros(x.shape, x.dtype)
            for x, on in zip(shapes, self.read, strict=True)
        ]
        smooth = _linear(self.linear_map, active, [x for x in out if _is_smooth(x)], residuals)
        values = iter(smooth)
        return self._dressed([next(values) if _is_smooth(x) else x for x in out])

    def _dressed(self, leaves: list[Any]) -> Any:
        return jax.tree.unflatten(jax.tree.structure(self.dynamics.shapes), leaves)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _linear(linear_map: Any, active: list[Any], out: list[Any], residuals: list[Any]) -> list[Any]:
    """`out`, with the derivative by `active` that the linear map says."""
    return out


@_linear.defjvp
def _(linear_map: Any, primals: tuple, tangents: tuple) -> tuple[list[Any], list[Any]]:
    _, out, residuals = primals
    return out, jax.tree.unflatten(linear_map, residuals)(*tangents[0])


def linearized(dynamics: Converted, moves: Sequence[bool], read: Sequence[bool]) -> Linearized:
    """`moves` says of each constant and argument whether it is differentiated by; `read` of each
    output whether its value is wanted again.
    """
    jaxpr, maps, number = dynamics.jaxpr.jaxpr, [], len(dynamics.hoisted)
    inputs = [*(jaxpr.constvars[i] for i in dynamics.hoisted), *jaxpr.invars]
    examples = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in inputs]
    active = tuple(on and _is_smooth(x) for x, on in zip(examples, moves, strict=True))

    def run(*given: Any) -> tuple:
        def of_active(*moved: Any) -> tuple[list[Any], list[Any]]:
            values = iter(moved)
            full = [next(values) if on else x for x, on in zip(given, active, strict=True)]
            leaves = jax.tree.leaves(dynamics(full[:number], *full[number:]))
            return [x for x in leaves if _is_smooth(x)], leaves

        moved = [x for x, on in zip(given, active, strict=True) if on]
        _, linear, leaves = jax.linearize(of_active, *moved, has_aux=True)
        residuals, treedef = jax.tree.flatten(linear)
        maps.append(treedef)
        return leaves, residuals

    program = jax.make_jaxpr(run)(*examples)
    noting, residuals = _split(program, number, tuple(read))
    return Linearized(dynamics, active, tuple(read), noting, residuals, maps[0])


def _split(program: Any, num_constants: int, read: tuple[bool, ...]) -> tuple[Any, Any]:
    """The program that ends in notes, and that from notes to residuals."""
    jaxpr = program.jaxpr
    outputs, wanted = jaxpr.outvars[: len(read)], jaxpr.outvars[len(read) :]
    again = [v for v, on in zip(outputs, read, strict=True) if on]
    notes = _notes(jaxpr, num_constants, set(variables(again)), set(variables(wanted)))
    known = {*notes, *variables(again)}
    kept = needed_for(wanted, jaxpr.eqns, known)
    taken, given = {*jaxpr.invars, *jaxpr.constvars}, []
    for v in again:
        unnamed = isinstance(v, jex_core.Literal) or v in taken
        given.append(jex_core.Var(v.aval) if unnamed else v)
        taken.add(given[-1])
    inputs = [*jaxpr.invars, *given, *notes]
    residuals = jaxpr.replace(invars=inputs, outvars=wanted, eqns=kept)
    noting = jaxpr.replace(outvars=[*outputs, *notes])
    close = lambda part: jex_core.ClosedJaxpr(part, program.consts)
    return close(noting), close(residuals)


def _notes(jaxpr: Any, num_constants: int, known: set[Any], wanted: set[Any]) -> list[Any]:
    """Those of `wanted` that are neither the same for all arguments nor cheap to have from what is
    known.
    """
    constant = {*jaxpr.constvars, *jaxpr.invars[:num_constants]}
    known, notes = known | constant | set(jaxpr.invars), []
    for eqn in jaxpr.eqns:
        inputs = set(variables(eqn.invars))
        if inputs <= constant:
            constant |= set(eqn.outvars)
            known |= constant
        elif not (inputs <= known and _is_cheap(eqn)):
            notes += [v for v in eqn.outvars if v in wanted - known]
            known |= set(notes)
            continue
        known |= set(eqn.outvars)
    return notes


def _is_cheap(eqn: jex_core.JaxprEqn) -> bool:
    return names_of(eqn) <= _CHEAP


def _evaluate(program: jex_core.ClosedJaxpr, given: list[Any]) -> list[Any]:
    return [jnp.asarray(x) for x in jex_core.jaxpr_as_fun(program)(*given)]


def _is_smooth(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)
