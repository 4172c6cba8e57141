"""The outcome of a solve as diffrax's final state: saved values laid out, the event found."""

import dataclasses
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jax import lax

from ...shapes import State, Time
from ..control.controllers import is_diffrax_pid
from ..forward.events import condition_values, settle
from ..forward.outcome import Outcome
from .loop_inputs import LoopInputs
from .saved_rows import SavedRows


def final_state(given: LoopInputs, outcome: Outcome, last_state: Any) -> Any:
    """diffrax's final state."""
    state0, event = given.state0, given.event
    t, y, result, mask = outcome.t, outcome.y, outcome.result, None
    if event is not None:
        assert outcome.watched is not None  # as there is an event
        conditions = condition_values(event, given.args, given.around_events)
        t, y, result = settle(event, conditions, given.solver.interpolation_cls, outcome)
        structure = jax.tree.structure(event.cond_fn, is_leaf=callable)
        mask = jax.tree.unflatten(structure, outcome.watched.mask)
    is_sub = lambda x: isinstance(x, diffrax.SubSaveAt)
    layouts = [_saved(given, outcome, i, (t, y)) for i in range(len(given.subs))]
    subs = jax.tree.structure(given.saveat.subs, is_leaf=is_sub)
    dense = outcome.streams.dense
    return dataclasses.replace(
        state0,
        y=y,
        tprev=outcome.t,
        # Not as an array where it is known: diffrax gives Python's `False` under `jax.jit` too.
        made_jump=given.init_state.made_jump if outcome.made_jump is None else outcome.made_jump,
        solver_state=last_state,
        controller_state=_controller_state(given, outcome),
        result=result,
        num_steps=outcome.num_steps,
        num_accepted_steps=outcome.num_accepted,
        num_rejected_steps=outcome.num_steps - outcome.num_accepted,
        save_state=jax.tree.unflatten(subs, layouts),
        dense_ts=None
        if dense is None
        else state0.dense_ts.at[0].set(given.t0).at[1:].set(dense.ts),
        dense_infos=None if dense is None else dense.rows,
        dense_save_index=None if dense is None else dense.count,
        event_mask=mask,
    )


def _controller_state(given: LoopInputs, outcome: Outcome) -> Any:
    """That of diffrax's rule has no derivative, as its steps have none. Nor has any along noise,
    whose paths are not differentiable in time.
    """
    is_noise = lambda x: isinstance(x, diffrax.AbstractBrownianPath)
    noisy = any(map(is_noise, jax.tree.leaves(given.terms, is_leaf=is_noise)))
    state, frozen = outcome.controller_state, is_diffrax_pid(given.stepsize_controller)
    return lax.stop_gradient(state) if frozen or noisy else state


def _saved(given: LoopInputs, outcome: Outcome, index: int, end: tuple[Time, State]) -> Any:
    """diffrax's buffers of one `SubSaveAt`."""
    is_state = lambda x: hasattr(x, "saveat_ts_index")
    empty = jax.tree.leaves(given.state0.save_state, is_leaf=is_state)[index]
    finds_root = given.event is not None and given.event.root_finder is not None
    size, start = empty.ts.shape[0], (given.t0, given.state0.y)
    missing = empty.ts[0] if size else jnp.inf
    sub = given.subs[index]
    layout = SavedRows(
        sub, index, given.args, start, given.t1, end, outcome, size, missing, finds_root
    )
    ts, ys, reached, at_ts = layout.rows()
    return dataclasses.replace(empty, ts=ts, ys=ys, save_index=reached, saveat_ts_index=at_ts)
