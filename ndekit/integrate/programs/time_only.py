"""What a field computes from the time alone, done for all stages of a step at once.

The derivative of a control path is a binary search and a few rows of a table; a schedule may be a
network. None of it waits for the state, and the times of a step are known before its stages are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex_core

from ... import tree
from ...shapes import Count, State, Time
from .closure_convert import Converted, filled
from .equations import names_of, needed_for, primitive_names, variables

# Operations that cost more for each stage anew than for all at once.
_WORTH_IT = frozenset("while scan gather dynamic_slice dot_general conv_general_dilated".split())
# As a batch: computed in all branches, other random bits, or refused.
_NO_BATCH = frozenset(
    "cond random_bits rng_bit_generator rng_uniform pure_callback io_callback debug_callback "
    "ffi_call".split()
)


@dataclass(frozen=True, eq=False)
class TimedField:
    """A vector field `whole(t, y)`, equal to `late(early(t), t, y)`."""

    whole: Callable
    early: Callable
    late: Callable

    def __call__(self, t: Time, y: State) -> State:
        return self.whole(t, y)


@dataclass(frozen=True, eq=False)
class AtTimes:
    """A vector field at times that are known."""

    field: Callable
    ts: Any
    known: Any  # what `TimedField.early` gives of each of them, as rows

    def __call__(self, i: int | Count, y: State) -> State:
        """The field at the time with number `i`."""
        if self.known is None:
            return self.field(self.ts[i], y)
        return self.field.late(tree.read(self.known, i), self.ts[i], y)


def at_times(field: Callable, ts: Any) -> AtTimes:
    """The field at each of `ts`: an array, or a list of times."""
    if not isinstance(field, TimedField):
        return AtTimes(field, ts, None)
    return AtTimes(field, ts, jax.vmap(field.early)(jnp.asarray(ts)))


@dataclass(frozen=True, eq=False)
class TimeOnly:
    """A vector field as two programs: the first knows the time alone."""

    early: jex_core.ClosedJaxpr  # t -> known
    late: jex_core.ClosedJaxpr  # (known, t, y) -> rate
    field: Converted

    def timed(self, constants: list[Any], whole: Callable, fence: Callable) -> TimedField:
        """`whole` is the field on these constants, fenced."""

        def late(known: list[Any], t: Time, y: State) -> State:
            leaves = _run(self.late, self.field, constants, [*known, t, *jax.tree.leaves(fence(y))])
            return fence(jax.tree.unflatten(jax.tree.structure(self.field.shapes), leaves))

        early = lambda t: _run(self.early, self.field, constants, [t])
        return TimedField(whole, early, late)


def _run(program: Any, field: Converted, constants: list[Any], given: list[Any]) -> list[Any]:
    run = jex_core.jaxpr_as_fun(filled(program, field.hoisted, constants))
    return list(map(jnp.asarray, run(*given)))


def time_only_part(field: Converted) -> TimeOnly | None:
    """`field(t, y)` in two, if what depends on the time alone is worth it."""
    if _WORTH_IT.isdisjoint(primitive_names(field.jaxpr.jaxpr)):
        return None
    program = _inlined(field.jaxpr)
    jaxpr = program.jaxpr
    early = _early(jaxpr)
    if not any(map(_is_worth_it, early)):
        return None
    known = {v for eqn in early for v in eqn.outvars}
    # What prints or checks has no outputs, and is needed all the same.
    late = [e for e in jaxpr.eqns if known.isdisjoint(e.outvars)]
    late = needed_for(jaxpr.outvars, late, besides=lambda eqn: bool(eqn.effects))
    read = set(variables([v for eqn in late for v in eqn.invars] + jaxpr.outvars))
    handed_on = [v for eqn in early for v in eqn.outvars if v in read]
    t, *y = jaxpr.invars
    ahead = jaxpr.replace(invars=[t], outvars=handed_on, eqns=needed_for(handed_on, jaxpr.eqns))
    rest = jaxpr.replace(invars=[*handed_on, t, *y], eqns=late)
    close = lambda jaxpr: jex_core.ClosedJaxpr(jaxpr, program.consts)
    return TimeOnly(close(ahead), close(rest), field)


def _early(jaxpr: jex_core.Jaxpr) -> list[Any]:
    """The equations to be done ahead: those worth it, what they need of the time, and what
    follows from them without becoming larger.
    """
    of_state, of_time = set(jaxpr.invars[1:]), {jaxpr.invars[0]}
    timed = []
    for eqn in jaxpr.eqns:
        inputs = set(variables(eqn.invars))
        if inputs & of_state or eqn.effects or not _NO_BATCH.isdisjoint(names_of(eqn)):
            of_state |= set(eqn.outvars)
        elif inputs & of_time:
            of_time |= set(eqn.outvars)
            timed.append(eqn)
    wanted = [v for eqn in timed if _is_worth_it(eqn) for v in eqn.outvars]
    before = {id(eqn) for eqn in needed_for(wanted, timed)}
    early, known, follows = [], {jaxpr.invars[0]}, set(wanted)
    for eqn in timed:
        inputs = set(variables(eqn.invars))
        reaches = inputs & of_time <= known
        grows = _size(eqn.outvars) > _size(eqn.invars)
        if id(eqn) in before or (reaches and inputs & follows and not grows):
            early.append(eqn)
            known |= set(eqn.outvars)
            follows |= set(eqn.outvars)
    return early


def _inlined(program: jex_core.ClosedJaxpr) -> jex_core.ClosedJaxpr:
    """With the inside of `jax.jit` in its place, where it may hold what is worth it."""
    eqns, new_names, constvars, consts = [], {}, [], []
    for eqn in program.jaxpr.eqns:
        eqn = eqn.replace(invars=_renamed(eqn.invars, new_names))
        if eqn.primitive.name not in ("jit", "pjit") or not _is_worth_it(eqn):
            eqns.append(eqn)
            continue
        inner = _inlined(eqn.params["jaxpr"])
        names = dict(zip(inner.jaxpr.invars, eqn.invars, strict=True))
        for v, const in zip(inner.jaxpr.constvars, inner.consts, strict=True):
            constvars.append(names.setdefault(v, jex_core.Var(v.aval)))
            consts.append(const)
        for each in inner.jaxpr.eqns:
            fresh = [jex_core.Var(v.aval) for v in each.outvars]
            eqns.append(each.replace(invars=_renamed(each.invars, names), outvars=fresh))
            names.update(zip(each.outvars, fresh, strict=True))
        new_names.update(zip(eqn.outvars, _renamed(inner.jaxpr.outvars, names), strict=True))
    outvars = _renamed(program.jaxpr.outvars, new_names)
    constvars = [*program.jaxpr.constvars, *constvars]
    jaxpr = program.jaxpr.replace(constvars=constvars, eqns=eqns, outvars=outvars)
    return jex_core.ClosedJaxpr(jaxpr, [*program.consts, *consts])


def _renamed(atoms: Any, names: dict[Any, Any]) -> list[Any]:
    return [names.get(v, v) if isinstance(v, jex_core.Var) else v for v in atoms]


def _is_worth_it(eqn: Any) -> bool:
    return not _WORTH_IT.isdisjoint(names_of(eqn))


def _size(atoms: Any) -> int:
    return sum(v.aval.size for v in atoms)
