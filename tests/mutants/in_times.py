"""Mutants in what the reverse pass says of times: the user's, and those that a controller makes."""

from .mutant import Mutant

IN_TIMES = [
    Mutant(
        name="second-error-of-pid",
        module="ndekit.integrate.forward.grid",
        old="-(pid.pcoeff + 2 * pid.dcoeff) / order",
        new="-(pid.pcoeff + pid.dcoeff) / order",
        what="the derivative of a step size by the error two steps ago",
        tests=(
            "tests/integrate/replay/test_differentiable_steps.py"
            "::test_gradient_is_that_of_finite_differences_through_the_adaptive_solve",
        ),
    ),
    Mutant(
        name="stops-stand-still",
        module="ndekit.integrate.control.user_times",
        old="moved = jnp.where(is_theirs, d.stops[index], moved)",
        new="moved = jnp.where(is_theirs, 0 * d.stops[index], moved)",
        what="a step that ends at a time to step to does not move with it",
        tests=(
            "tests/integrate/test_user_times.py::test_the_time_of_a_forcing_is_learnt_where_steps_end_on_it",
        ),
    ),
    Mutant(
        name="share-of-a-clipped-step",
        module="ndekit.integrate.control.user_times",
        old="jnp.where(follows, d_start + share * (d_end - d_start), 0)",
        new="jnp.where(follows, d_start + d_end - d_start, 0)",
        what="after a clipped attempt that was rejected the next end moves too far",
        tests=(
            "tests/integrate/test_user_times.py::test_a_clipped_end_that_is_rejected_moves_what_follows",
        ),
    ),
    Mutant(
        name="rates-held",
        module="ndekit.integrate.steppers.stages_at_once",
        old="forced = tree.zero_with_derivative(k) + ",
        new="forced = tree.zero_with_derivative(held) + ",
        what="replayed all at once, stages have no derivative by the parameters",
        tests=(
            "tests/integrate/replay/test_steps_at_once.py::test_stretches_of_any_length_give_diffrax_gradient",
        ),
    ),
    Mutant(
        name="t1-not-owned",
        module="ndekit.integrate.control.user_times",
        old="for own, d_own in ((owned.t1, d.t1), (owned.t0, d.t0)):",
        new="for own, d_own in ((owned.t0, d.t0),):",
        what="a step that ends at t1 does not move with it",
        tests=(
            "tests/integrate/test_gradients.py::test_gradient_is_the_finite_difference_of_the_replay[Tsit5-lotka_volterra-t1]",
        ),
    ),
    Mutant(
        name="start-of-the-grid-lost",
        module="ndekit.integrate.replay.cotangents",
        old="return dataclasses.replace(ct, t0=ct.t0 + grid.t)",
        new="return ct",
        what="the first attempt does not move with t0 where times are followed",
        tests=(
            "tests/integrate/test_gradients.py::test_gradient_is_the_finite_difference_of_the_replay[Tsit5-lotka_volterra-t0]",
        ),
    ),
]
