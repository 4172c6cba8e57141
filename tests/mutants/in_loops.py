"""Mutants in the forward loop: verdicts, ends, saved values, the record, events, effects."""

from .mutant import Mutant

IN_LOOPS = [
    Mutant(
        name="rejected-carry-kept",
        module="ndekit.integrate.forward.attempt",
        old="carry=tree.where(accepted, trial.carry, lane.carry)",
        new="carry=tree.where(active, trial.carry, lane.carry)",
        what="the first stage after a rejected attempt is that attempt's last one",
        tests=("tests/integrate/test_rejected.py::test_the_solution_is_the_closed_form",),
    ),
    Mutant(
        name="first-step-beyond-t1",
        module="ndekit.integrate.times",
        old="return jnp.where(t >= largest, largest, t)",
        new="return t",
        what="a first step that is too long is not cut off at t1",
        tests=(
            "tests/integrate/test_properties.py::test_a_first_step_beyond_the_end_goes_to_the_end",
        ),
    ),
    Mutant(
        name="one-step-too-many",
        module="ndekit.integrate.forward.loop",
        old="go = go & (number < problem.max_steps)",
        new="go = go & (number <= problem.max_steps)",
        what="a solve makes one attempt more than max_steps",
        tests=("tests/integrate/test_same_saves.py::test_a_solve_cut_off_early_has_come_as_far",),
    ),
    Mutant(
        name="time-at-an-end-not-saved",
        module="ndekit.integrate.forward.saving",
        old="(ts[saved.count] <= proposal.t_end)",
        new="(ts[saved.count] < proposal.t_end)",
        what="a saved time at the end of the last step is left to nobody",
        tests=("tests/integrate/test_gradients.py::test_a_value_saved_at_an_end_has_its_gradient",),
    ),
    Mutant(
        name="rows-full-too-late",
        module="ndekit.integrate.forward.checkpoints",
        old="full = its_turn & (step >> d >= number)",
        new="full = its_turn & (step >> d > number)",
        what="checkpoints thin out one state too late",
        tests=("tests/integrate/forward/test_checkpoints.py",),
    ),
    Mutant(
        name="records-filled-first",
        module="ndekit.integrate.forward.loop",
        old="return empty_record(*given, operands=flat, by_lane=_by_lane(problem, lanes))",
        new="return empty_record(*given, by_lane=_by_lane(problem, lanes))",
        what="a mapped gradient fills its whole record before the first step",
        tests=(
            "tests/integrate/test_memory_and_lanes.py::test_a_record_of_all_steps_is_not_filled_before_they_are_made",
        ),
    ),
    Mutant(
        name="pages-overlap",
        module="ndekit.integrate.forward.record",
        old="times = tree.write(blank(self.page + 1)(self.times), self.times[self.num_steps], 0)",
        new="times = tree.write(blank(self.page + 1)(self.times), self.times[0], 0)",
        what="each page of the record begins at the time of the first",
        tests=(
            "tests/integrate/replay/test_steps_at_once.py::test_pages_hold_solves_of_any_length",
        ),
    ),
    Mutant(
        name="every-condition-met",
        module="ndekit.integrate.forward.events",
        old="mask.append(met & ~had_event)",
        new="mask.append(met)",
        what="of conditions met in one step all count, not the first alone",
        tests=(
            "tests/integrate/test_events.py::test_of_conditions_met_in_one_step_the_first_counts",
        ),
    ),
    Mutant(
        name="mean-over-lanes-in-the-engine",
        module="ndekit.integrate.programs.effects",
        old="if can_leave and (effects or any(map(_refuses_lanes, programs))):",
        new="if can_leave and any(map(_refuses_lanes, programs)):",
        what="a field that speaks across lanes stays in the engine",
        tests=("tests/integrate/test_effects.py::test_a_mean_over_lanes_is_that_of_diffrax",),
    ),
    Mutant(
        name="nan-not-rejected",
        module="ndekit.integrate.control.scaled_error",
        old="return jnp.where(jnp.isnan(ratio), jnp.inf, ratio)",
        new="return jnp.where(jnp.isnan(ratio), 0, ratio)",
        what="an attempt that is not a number has no error",
        tests=(
            "tests/integrate/control/test_scaled_error.py::test_it_is_infinite_where_something_is_not_finite",
        ),
    ),
    Mutant(
        name="slope-of-a-root",
        module="ndekit.integrate.control.norms",
        old="jnp.where(positive, 0.5 / jnp.where(positive, root, 1), 0) * tangents[0]",
        new="jnp.where(positive, 1.0 / jnp.where(positive, root, 1), 0) * tangents[0]",
        what="the derivative of the root mean square is twice as large",
        tests=(
            "tests/integrate/control/test_norms.py::test_values_and_derivatives_are_those_of_optimistix",
        ),
    ),
    Mutant(
        name="order-of-the-controller",
        module="ndekit.integrate.control.controllers",
        old="rule.adapt_step_size(t0, t1, y, y1, args, error, error_order, state)",
        new="rule.adapt_step_size(t0, t1, y, y1, args, error, error_order + 1, state)",
        what="the controller takes the error to be of an order more",
        tests=(
            "tests/integrate/test_same_steps.py::test_a_problem_compiled_by_itself_takes_diffrax_steps",
        ),
    ),
]
