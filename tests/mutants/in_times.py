"""Mutants in what the reverse pass says of times: the user's, and those that a controller makes."""

from .mutant import Mutant

IN_TIMES = [
    Mutant(
        name="second-error-of-pid",
        module="ndekit.integrate.moving",
        old="-(pid.pcoeff + 2 * pid.dcoeff) / order",
        new="-(pid.pcoeff + pid.dcoeff) / order",
        what="the derivative of a step size by the error two steps ago",
        tests=(
            "tests/test_moving_grid.py"
            "::test_gradient_is_that_of_finite_differences_through_the_adaptive_solve",
        ),
    ),
    Mutant(
        name="stops-stand-still",
        module="ndekit.integrate.owned",
        old="moved = jnp.where(is_theirs, d.stops[index], moved)",
        new="moved = jnp.where(is_theirs, 0 * d.stops[index], moved)",
        what="a step that ends at a time to step to does not move with it",
        tests=(
            "tests/test_user_times.py::test_the_time_of_a_forcing_is_learnt_where_steps_end_on_it",
        ),
    ),
    Mutant(
        name="share-of-a-clipped-step",
        module="ndekit.integrate.owned",
        old="jnp.where(follows, d_start + share * (d_end - d_start), 0)",
        new="jnp.where(follows, d_start + d_end - d_start, 0)",
        what="after a clipped attempt that was rejected the next end moves too far",
        tests=("tests/test_user_times.py::test_a_clipped_end_that_is_rejected_moves_what_follows",),
    ),
    Mutant(
        name="length-of-stages-held",
        module="ndekit.integrate.at_stages",
        old="moved_arguments = tree.zero_with_derivative(flat_y[None] + h * _product(a, held))",
        new="moved_arguments = tree.zero_with_derivative(flat_y[None])",
        what="replayed all at once, stages do not move with the length of their step",
        tests=("tests/test_stretches.py::test_saved_values_reach_their_steps",),
    ),
    Mutant(
        name="end-of-the-solve-stands-still",
        module="ndekit.integrate.replay",
        old="owned=dataclasses.replace(nothing, t1=jnp.where(at_t1, ct_outcome.t, 0))",
        new="owned=nothing",
        what="the time at which a solve ended has no derivative by t1",
        tests=("tests/test_gradients.py::test_saved_times_themselves_have_unit_derivative",),
    ),
    Mutant(
        name="start-of-the-grid-lost",
        module="ndekit.integrate.collected",
        old="return dataclasses.replace(ct, t0=ct.t0 + grid.t)",
        new="return ct",
        what="the first attempt does not move with t0 where times are followed",
        tests=(
            "tests/test_user_times.py::test_a_fixed_grid_moves_with_the_times_that_it_is_made_of[Tsit5-constant]",
        ),
    ),
]
