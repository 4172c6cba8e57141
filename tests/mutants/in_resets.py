"""Mutants in resets: when they are made, what goes on behind them, and their way back."""

from .mutant import Mutant

_BY_GAPS = "tests/integrate/resets/test_resets.py::test_is_a_solve_for_each_gap"
IN_RESETS = [
    Mutant(
        name="stale-solver-state-after-a-reset",
        module="ndekit.integrate.forward.resets",
        old="y, carry = tree.where(here, (after, carry), (lane.y, lane.carry))",
        new="y, carry = tree.where(here, (after, lane.carry), (lane.y, lane.carry))",
        what="a solver goes on with what it knew of the state before the reset",
        tests=(f"{_BY_GAPS}[Tsit5]",),
    ),
    Mutant(
        name="reset-without-its-parameters",
        module="ndekit.integrate.replay.resets_vjp",
        old="        parameters[i] = parameters[i] + value",
        new="        parameters[i] = parameters[i]",
        what="the gradient lacks what an update says of its parameters",
        tests=(f"{_BY_GAPS}[Heun]",),
    ),
    Mutant(
        name="reset-without-its-time",
        module="ndekit.integrate.replay.resets_vjp",
        old="grid = dataclasses.replace(grid, t=grid.t + moved)",
        new="grid = dataclasses.replace(grid, t=grid.t)",
        what="an update's own dependence on the time of the reset is lost",
        tests=(f"{_BY_GAPS}[Heun]",),
    ),
    Mutant(
        name="constant-steps-told-of-a-cut",
        module="ndekit.integrate.control.cut_short",
        old="t_next = jnp.where(is_there, t_next, end)",
        new="t_next = t_next",
        what="constant steps that a reset cuts short leave out a part of the interval",
        tests=(f"{_BY_GAPS}[Euler]",),
    ),
    Mutant(
        name="short-step-after-a-cut",
        module="ndekit.integrate.forward.resets",
        old="return jnp.where(accepted & (wanted > t_end) & (long > t_next), long, t_next)",
        new="return t_next",
        what="the step size climbs anew after each short gap",
        tests=(
            "tests/integrate/resets/test_resets.py::"
            "test_next_step_is_as_long_as_the_one_that_was_cut",
        ),
    ),
    Mutant(
        name="runs-on-from-before-a-reset",
        module="ndekit.integrate.forward.resets",
        old="    y = tree.where(here, tree.read(rows, row), y)",
        new="    y = y",
        what="a solve that is run again from a checkpoint forgets its resets",
        tests=("tests/integrate/resets/test_resets.py::test_adjoints_agree[Heun-3 checkpoints]",),
    ),
    Mutant(
        name="condition-not-looked-at-after-a-reset",
        module="ndekit.integrate.forward.resets",
        old="values=tree.where(here, values, watched.values)",
        new="values=watched.values",
        what="a reset across what an event watches for is taken for the event",
        tests=(
            "tests/integrate/resets/test_resets_elsewhere.py::"
            "test_an_event_comes_before_a_reset_and_is_none_itself",
        ),
    ),
    Mutant(
        name="leap-not-noted",
        module="ndekit.integrate.forward.loop",
        old="    if problem.leaps:\n        t_end",
        new="    if problem.jumps:\n        t_end",
        what="a replayed step ends where the next one begins, which may be elsewhere",
        tests=(
            "tests/integrate/control/test_leaps.py::"
            "test_gradient_is_that_of_the_steps_that_were_taken[all rows]",
        ),
    ),
]
