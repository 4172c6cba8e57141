"""Mutants in costs: what is read off a step, where, and what becomes of the readings."""

from .mutant import Mutant

IN_COSTS = [
    Mutant(
        name="mean-without-its-divisor",
        module="ndekit.integrate.costs.placements",
        old="return ct * self._normaliser(value, num_accepted)",
        new="return ct",
        what="the derivative of a mean over steps is that of their sum",
        tests=(
            "tests/integrate/outside/test_recorder.py::test_engine_and_recorder_agree_in_every_gradient",
        ),
    ),
    Mutant(
        name="times-at-a-start",
        module="ndekit.integrate.costs.placements",
        old="return (ts > place.t0) | (place.number == 0)",
        new="return (ts >= place.t0) | (place.number == 0)",
        what="`AlongTimes` adds the step that begins at a time",
        tests=(
            "tests/integrate/test_along.py"
            "::test_along_times_is_the_cumulative_sum_at_the_steps_that_hold_them",
        ),
    ),
    Mutant(
        name="rejected-readings",
        module="ndekit.integrate.costs.contracts",
        old="clean = jax.tree.map(lambda r: jnp.where(place.accepted, r, 0), readings)",
        new="clean = readings",
        what="rejected attempts have their costs added",
        tests=("tests/integrate/test_rejected.py::test_costs_count_accepted_steps_only",),
    ),
    Mutant(
        name="chance-of-a-step",
        module="ndekit.integrate.costs.one_step",
        old="take: Flag = place.accepted & ((total.at < 0) | (drawn * length < size))",
        new="take: Flag = place.accepted & ((total.at < 0) | (drawn * total.length < size))",
        what="`OneStep` draws late steps too often",
        tests=("tests/integrate/costs/test_one_step.py::test_steps_are_picked_as_often_as_stated",),
    ),
    Mutant(
        name="recorder-does-not-count",
        module="ndekit.integrate.outside.recorder",
        old="return y1, error, info, (inner, (totals, number + 1)), result",
        new="return y1, error, info, (inner, (totals, number)), result",
        what="`Recorder` takes each step for the first",
        tests=(
            "tests/integrate/outside/test_recorder.py::test_engine_and_recorder_agree_in_every_cost",
        ),
    ),
    Mutant(
        name="through-the-state",
        module="ndekit.integrate.outside.step_made_again",
        old="if not placement.through_state:",
        new="if placement.through_state:",
        what="`through_state` means its contrary",
        tests=("tests/integrate/outside/test_local_step.py::test_the_published_scheme_by_hand",),
    ),
    Mutant(
        name="looked-at-in-the-wrong-order",
        module="ndekit.integrate.outside.drawn_times",
        old="own = back[first : first + len(ts)]",
        new="own = order[first : first + len(ts)]",
        what="costs beside a solve read the states of other times than theirs",
        tests=("tests/regularize/test_polynomial.py::test_a_polynomial_costs_nothing",),
    ),
    Mutant(
        name="weight-of-a-reading-moves",
        module="ndekit.regularize.stiffness",
        old="rise, run, rate, stage, h = lax.stop_gradient((rise, run, rate, stage, h))",
        new="rise, run, rate, stage, h = (rise, run, rate, stage, h)",
        what="the weight of a stiffness reading is not held constant",
        tests=(
            "tests/regularize/test_stiffness_readings.py::test_the_weight_of_a_reading_is_a_constant_for_its_derivative",
        ),
    ),
    Mutant(
        name="half-of-the-kinetic-energy",
        module="ndekit.regularize.kinetic",
        old="0.5 * mean_square(rate)",
        new="mean_square(rate)",
        what="`Kinetic` lacks its half",
        tests=(
            "tests/regularize/test_path_costs.py::test_the_kinetic_energy_of_a_decay_is_its_closed_form",
        ),
    ),
    Mutant(
        name="time-stands-still",
        module="ndekit.regularize.taylor",
        old="times = [jnp.ones_like(t), *[jnp.zeros_like(t)] * (number - 1)]",
        new="times = [jnp.zeros_like(t), *[jnp.zeros_like(t)] * (number - 1)]",
        what="`Taylor` leaves out the field's own dependence on time",
        tests=(
            "tests/regularize/test_path_costs.py::test_value_and_gradient_are_those_of_an_augmented_ode[taylor2]",
        ),
    ),
    Mutant(
        name="stages-at-one-time",
        module="ndekit.regularize.path_integral",
        old="b * integrand(step.t0 + c * (step.t1 - step.t0), stage, rate)",
        new="b * integrand(step.t0, stage, rate)",
        what="integrals along the path evaluate all stages at the start of the step",
        tests=(
            "tests/regularize/test_path_costs.py::test_value_and_gradient_are_those_of_an_augmented_ode[jacobian]",
        ),
    ),
]
