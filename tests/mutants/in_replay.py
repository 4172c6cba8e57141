"""Mutants in the reverse pass: the vjp of a step, checkpoints, stretches, lanes, kept stages."""

from .mutant import Mutant

IN_REPLAY = [
    Mutant(
        name="idle-lanes-forget",
        module="ndekit.integrate.replay.step_vjp",
        old="before = pass_.where(step.accepted, before, after)",
        new="before = pass_.where(step.accepted, before, tree.zeros_like(after))",
        what="a lane that has finished loses its cotangent while others go on",
        tests=(
            "tests/integrate/test_gradients_composed.py::test_grad_of_vmap_with_shared_parameters_is_the_sum_of_a_loop",
        ),
    ),
    Mutant(
        name="idle-lanes-pull",
        module="ndekit.integrate.replay.step_vjp",
        old="ct_y1, ct_carry1 = pass_.where(step.accepted, after, tree.zeros_like(after))",
        new="ct_y1, ct_carry1 = after",
        what="a lane that does nothing hands its cotangent to the parameters",
        tests=(
            "tests/integrate/test_gradients_composed.py::test_vmap_of_grad_is_a_loop",
            "tests/integrate/test_idle_lanes.py::test_lanes_are_what_they_are_alone[costs-table]",
        ),
    ),
    Mutant(
        name="steps-of-other-lanes",
        module="ndekit.integrate.forward.record",
        old="now = jnp.where(accepted, step.astype(latest.dtype), latest[step])",
        new="now = jnp.full_like(latest[step], step)",
        what="a lane is replayed by attempts that only others accepted",
        tests=(
            "tests/integrate/replay/test_steps_of_lanes.py::test_gradient_is_that_of_each_lane_alone[times]",
        ),
    ),
    Mutant(
        name="rows-of-the-first-lane",
        module="ndekit.integrate.programs.lanes",
        old="_rows(flat(x), i * number + lane)",
        new="_rows(flat(x), i * number)",
        what="every lane is replayed from the states of the first one",
        tests=(
            "tests/integrate/replay/test_steps_of_lanes.py::test_gradient_is_that_of_each_lane_alone[end]",
        ),
    ),
    Mutant(
        name="carry-cut-off",
        module="ndekit.integrate.replay.step_vjp",
        old="return Advanced(trial.y1, carry, readings, info, at_steps, after)",
        new="return Advanced(\n"
        "        trial.y1, jax.lax.stop_gradient(carry), readings, info, at_steps, after\n"
        "    )",
        what="the last stage of a step is a constant for the step after it",
        tests=(
            "tests/integrate/outside/test_recorder.py::test_engine_and_recorder_agree_in_every_gradient",
        ),
    ),
    Mutant(
        name="constants-of-one-block",
        module="ndekit.integrate.replay.step_vjp",
        old="parameters[at] = parameters[at] + value",
        new="parameters[at] = value",
        what="what `SaveAt(fn=)` closes over keeps the derivative of one step alone",
        tests=(
            "tests/integrate/test_gradients.py::test_what_a_saved_value_closes_over_has_its_gradient",
        ),
    ),
    Mutant(
        name="evaluated-where-idle",
        module="ndekit.integrate.replay.idle_lanes",
        old="return tree.where(looked_into, place, start)",
        new="return place",
        what="an attempt that overflowed is evaluated again",
        tests=(
            "tests/integrate/replay/test_differentiable_steps.py::test_nan_in_a_rejected_attempt_leaves_no_trace",
        ),
    ),
    Mutant(
        name="note-of-the-step-before",
        module="ndekit.integrate.replay.backwards",
        old="left = lax.cond(memo_fits, lambda: memo[0], "
        "lambda: advance(pass_.flat, wanted, step)[1])",
        new="left = memo[0]",
        what="a step is replayed with the stages that the step before it left",
        tests=(
            "tests/integrate/replay/test_kept_stages.py::test_where_the_record_thins_out_steps_are_run_again",
        ),
    ),
    Mutant(
        name="jacobian-turned",
        module="ndekit.integrate.replay.steps_at_once",
        old="jnp.sum(jacobians[-1] * last[None], axis=-1)",
        new="jnp.sum(jacobians[-1].T * last[None], axis=-1)",
        what="the last step of a stretch is pulled back by its Jacobian, not by the transpose",
        tests=(
            "tests/integrate/replay/test_steps_at_once.py::test_stretches_of_any_length_give_diffrax_gradient",
        ),
    ),
    Mutant(
        name="empty-steps-pulled",
        module="ndekit.integrate.replay.steps_at_once",
        old="accepted = steps.accepted & real",
        new="accepted = steps.accepted",
        what="what follows the steps of a stretch is taken for steps of its own",
        tests=(
            "tests/integrate/replay/test_steps_at_once.py::test_costs_of_more_steps_than_go_at_once_are_as_one_by_one",
        ),
    ),
    Mutant(
        name="stages-not-coupled",
        module="ndekit.integrate.steppers.stages_at_once",
        old="return -coupling.reshape(number * size, number * size)",
        new="return coupling.reshape(number * size, number * size)",
        what="the sign of what stages do to one another, replayed all at once",
        tests=(
            "tests/integrate/replay/test_steps_at_once.py::test_stretches_of_any_length_give_diffrax_gradient",
        ),
    ),
    Mutant(
        name="value-at-the-start-lost",
        module="ndekit.integrate.replay.saving_vjp",
        old="return jnp.where(start == t0, -jnp.inf, start)",
        new="return start",
        what="a value saved at t0 has no derivative",
        tests=("tests/integrate/test_gradients.py::test_a_value_saved_at_an_end_has_its_gradient",),
    ),
    Mutant(
        name="row-of-another-step",
        module="ndekit.integrate.replay.streams_vjp",
        old="slot = (number + 1) // plan.every - 1",
        new="slot = number // plan.every - 1",
        what="the cotangent of a kept step goes to the step after it",
        tests=(
            "tests/integrate/test_user_times.py::test_a_controller_of_ones_own_is_differentiated_as_it_is_written",
        ),
    ),
    Mutant(
        name="event-in-another-step",
        module="ndekit.integrate.replay.streams_vjp",
        old="is_last = accepted & (number == num_accepted - 1)",
        new="is_last = accepted & (number == num_accepted - 2)",
        what="what an event says of the last step goes to the one before",
        tests=("tests/integrate/test_events.py::test_a_direction_chooses_among_crossings",),
    ),
    Mutant(
        name="summed-over-the-wrong-lanes",
        module="ndekit.integrate.programs.lanes",
        old="axis=tuple(x.ndim - 1 - i if self.last else i for i in missing)",
        new="axis=tuple(x.ndim - 1 if self.last else i for i in missing)",
        what="with two lane axes a shared operand is summed over the wrong one",
        tests=(
            "tests/integrate/test_gradients_composed.py::test_grad_of_nested_vmap_is_a_double_loop",
        ),
    ),
    Mutant(
        name="first-stage-an-operand",
        module="ndekit.integrate.replay.potential",
        old="if self.first_stage_anew:",
        new="if False:",
        what="forward the first stage is an operand, in reverse a part of the step",
        tests=(
            "tests/integrate/replay/test_every_derivative.py"
            "::test_derivatives_of_an_adaptive_solve_are_those_on_its_grid[Bosh3-end]",
        ),
    ),
    Mutant(
        name="planned-times-are-constants",
        module="ndekit.integrate.forward.planned",
        old="if problem.moving:",
        new="if False:",
        what="the second derivative by an end of the solve loses how the steps move with it",
        tests=(
            "tests/integrate/replay/test_every_derivative.py"
            "::test_derivatives_on_fixed_steps_are_differences_of_the_gradient[times]",
        ),
    ),
    Mutant(
        name="pulled-as-pushed",
        module="ndekit.integrate.replay.curvature",
        old="swapped = dataclasses.replace(self, wanted=self.moved, moved=self.wanted)",
        new="swapped = self",
        what="the transpose of a second derivative forgets what it is asked for",
        tests=("tests/integrate/replay/test_every_derivative.py::test_inside_a_scan",),
    ),
    Mutant(
        name="third-derivatives-out-of-order",
        module="ndekit.integrate.replay.potential",
        old="return [*tangent, *value]",
        new="return [*value, *tangent]",
        what="a third derivative takes a gradient by the directions for one by the operands",
        tests=(
            "tests/integrate/replay/test_every_derivative.py"
            "::test_third_derivatives_in_closed_form",
        ),
    ),
    Mutant(
        name="products-dropped",
        module="ndekit.integrate.programs.outer_products",
        old="rest.append([p for p, _ in group] if len(group) > 1 else group[0][1])",
        new="rest.append([p for p, _ in group[1:]] if len(group) > 1 else group[0][1])",
        what="the first of several outer products is left out of their sum",
        tests=(
            "tests/integrate/test_memory_and_lanes.py"
            "::test_outer_products_are_put_together_and_stay_the_same",
        ),
    ),
]
