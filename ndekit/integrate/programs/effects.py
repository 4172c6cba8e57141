"""Programs that do more than compute: print, call the host, speak with other devices or lanes.

The engine runs a field where and as often as its loops like: in lanes that have ended, once more in
the reverse pass. diffrax's loop is the measure of what a user sees of that, so such programs run
there.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex_core

from .closure_convert import Converted


class LeavesTheProgram(Exception):
    """A solve whose field, condition or `SaveAt(fn=...)` does more than compute."""


def check_effects(programs: Sequence[Converted], can_leave: bool) -> None:
    """Raise `LeavesTheProgram` for a solve of which a program has effects, or calls of the host
    that the engine may not batch, if it may run in diffrax's own loop.
    """
    effects = {effect for program in programs for effect in program.jaxpr.effects}
    if can_leave and (effects or any(map(_refuses_lanes, programs))):
        raise LeavesTheProgram
    named = sorted(str(e.name) for e in effects if type(e).__name__ == "NamedAxisEffect")
    if named:
        raise ValueError(
            f"The solve speaks across the named axis {', '.join(named)} (`jax.lax.pmean` or its "
            "like), which the engine's lanes do not know. Use `ReplayAdjoint()` with "
            "`step_sizes='frozen'` or one of diffrax's adjoints: such solves run in diffrax's loop."
        )


def calls_host(program: Converted | None) -> bool:
    """Whether a program calls the host, which need not allow many calls at once."""
    return program is not None and any(map(_is_call, _equations(program.jaxpr.jaxpr)))


def _refuses_lanes(program: Converted) -> bool:
    """Whether a program cannot be mapped by `jax.vmap`, for a call of the host without a rule for
    it (`vmap_method`): diffrax's loop batches what goes into it less often.
    """
    if not any(_is_call(e) and _has_no_rule(e) for e in _equations(program.jaxpr.jaxpr)):
        return False
    # Calls of which no lane knows, such as those of `equinox.error_if`, need no rule.
    jaxpr = program.jaxpr.jaxpr
    inputs = [*(jaxpr.constvars[i] for i in program.hoisted), *jaxpr.invars]
    of_lanes = [jax.ShapeDtypeStruct((2, *v.aval.shape), v.aval.dtype) for v in inputs]
    number = len(program.hoisted)
    run = lambda *given: jax.tree.leaves(program(list(given[:number]), *given[number:]))
    try:
        jax.eval_shape(jax.vmap(run), *of_lanes)
    except (NotImplementedError, ValueError):
        return True
    return False


def _equations(jaxpr: jex_core.Jaxpr) -> list[Any]:
    inner = [_equations(j) for e in jaxpr.eqns for j in jex_core.jaxprs_in_params(e.params)]
    return sum(inner, list(jaxpr.eqns))


def _is_call(eqn: Any) -> bool:
    return "callback" in eqn.primitive.name


def _has_no_rule(eqn: Any) -> bool:
    return eqn.params.get("vmap_method") is None


def mapped_over_rows(fn: Any, programs: Sequence[Converted | None]) -> Any:
    """`jax.vmap(fn)`, or the same one row after the other if one of `programs`, which `fn` runs,
    calls the host.
    """
    if not any(map(calls_host, programs)):
        return jax.vmap(fn)
    return lambda *rows: jax.lax.map(lambda row: fn(*row), jax.tree.map(jnp.asarray, rows))
