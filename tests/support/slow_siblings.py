"""Tests that a plain `make test` leaves to `make test-slow`: what they prove is proved there by
others, at other values of a parameter, or by a smaller case. None of them is the test that finds a
fault of `make mutants`.

The largest of a plain run were chosen, after a run that took 940 seconds on two cores where 720 are
meant. Marks at the tests themselves say the same of single ones; these are those that only time
speaks against.
"""

import re

# By file: tests, and of these which parameters (all if there is none).
SLOW = {
    "controls/test_log_ode.py": {
        "test_depth_two_is_exact_on_the_heisenberg_group": "whole|of",
    },
    "controls/test_log_signatures.py": {
        "test_windows_compose_to_the_whole": "[23]-.*|1-(at|long|every one)-.*",
        "test_padding_has_no_say": "rectilinear",
        "test_gradients_are_finite_differences": "(long|every|every one|short)-linear",
        "test_a_stream_of_segments_gives_every_beginning": "3",
    },
    "controls/test_paths.py": {
        "test_a_path_adds_no_loop_to_a_solve_and_no_look_up_for_each_stage": (
            "linear-400|rectilinear-20|hermite-400"
        ),
        "test_lanes_and_gradients_go_in_either_order": "linear",
        "test_a_solve_along_a_path_is_that_of_diffrax": "rectilinear",
    },
    "experiments/test_experiments.py": {
        "test_every_pair_has_a_finite_loss_and_finite_gradients": "mnist_(sde|ode)-.*",
    },
    "experiments/test_latent_ode_experiment.py": {
        "test_the_loss_and_its_gradients_are_finite": "together|visits|gru",
    },
    "experiments/test_order_experiments.py": {
        "test_models_of_windows_take_a_step_a_window": "bursts_depth3_every20",
    },
    "experiments/test_series_experiments.py": {
        "test_models_of_vowels_have_as_many_parameters_and_learn": (
            "gru_ode_bayes|ncde|ode_rnn|gru_d|log_ncde"
        ),
        "test_costs_are_means_of_those_of_each_series": "",
        "test_measures_are_means_over_series_and_the_most_of_one": "",
        "test_steps_along_the_first_series_are_seen": "double",
    },
    "integrate/control/test_in_units.py": {
        "test_paths_that_are_the_same_up_to_scale_make_the_same_steps": (
            r"diagonal-0\.8|scalar-None"
        ),
    },
    "integrate/control/test_leaps.py": {
        "test_gradient_is_that_of_the_steps_that_were_taken": "stages|1 checkpoint",
    },
    "integrate/noise/test_saved_values.py": {
        "test_what_runs_of_cells_draw_is_what_the_path_does": "70-.*",
        "test_saved_values_are_on_the_path_that_is_evaluated": (
            "Heun-BrownianIncrement-ends|SPaRK-.*-bridge|ShARK-.*-bridge"
        ),
        "test_an_end_that_was_tried_is_an_end_of_a_step": "1",
        "test_gradients_of_lanes_with_times_of_their_own_are_those_alone": "bridge",
        "test_memory_grows_by_a_few_rows_for_each_saved_value": "bridge-.*",
        "test_every_adjoint_gives_the_same_gradient_of_saved_values": ".*-bridge",
        "test_gradients_equal_finite_differences": ".*-bridge",
    },
    "integrate/noise/test_sde.py": {
        "test_every_solver_equals_diffrax_on_the_same_noise": "SOSRI-False",
        "test_small_steps_lead_back_to_large_ones_on_the_same_path": "BrownianIncrement",
        "test_each_lane_draws_again_what_it_drew": "unsafe_rbg|rbg",
        "test_cells_are_found_among_few_and_many": "300",
    },
    "integrate/replay/test_every_derivative.py": {
        "test_derivatives_on_fixed_steps_are_differences_of_the_gradient": "few checkpoints|Bosh3",
        "test_times_that_only_the_second_derivative_moves": "forward",
        "test_derivatives_of_an_adaptive_solve_are_those_on_its_grid": "Bosh3-times",
        "test_what_is_differentiated_in_lanes_is_the_sum_of_a_loop": "adapted",
    },
    "integrate/replay/test_steps_at_once.py": {
        "test_second_derivatives_go_step_by_step": "",
    },
    "integrate/replay/test_steps_of_lanes.py": {
        "test_gradient_is_that_of_each_lane_alone": "dense|kept",
    },
    "integrate/resets/test_resets_elsewhere.py": {
        "test_lanes_are_as_alone": "Tsit5",
    },
    "integrate/test_catalogue.py": {
        "test_gives_back_the_same": (
            "sde/(SRA1|ItoMilstein|EulerHeun)|terms/own|event/several-directions"
            "|saveat/continued-clip|solver/Kvaerno5"
        ),
        "test_is_as_stated": "derivative-by-step-ts|default-root-finder",
    },
    "integrate/test_compare.py": {
        "test_a_configuration_is_explained": "[13]",
    },
    "integrate/test_effects.py": {
        "test_the_host_is_called_as_by_diffrax": "io-ordered-grad",
    },
    "integrate/test_gradients_composed.py": {
        "test_gradient_is_right_whatever_the_number_of_checkpoints": "1",
    },
    "integrate/test_idle_lanes.py": {
        "test_lanes_are_what_they_are_alone": "moving-table",
    },
    "integrate/test_padded_series.py": {
        "test_padding_changes_neither_values_nor_gradients": "gan|matched, missing|latent, missing",
    },
    "integrate/test_same_saves.py": {
        "test_saved_values_are_the_same": "t0.*-whole|ts-whole",
    },
    "models/test_flow_reset.py": {
        "test_costs_of_a_series": "GRUODEBayes, imputing|JumpODE|ODERNN",
        "test_predictions_at_any_time": "JumpODE in equal steps|ODERNN",
        "test_nothing_is_known_of_what_comes_later": "JumpODE in equal steps|ODERNN",
        "test_a_stream_says_what_the_batch_says": "JumpODE in equal steps",
    },
    "models/test_linear_cde.py": {
        "test_states_are_products_of_matrix_exponentials": "False-linear",
    },
    "models/test_neural_sde.py": {
        "test_the_bound_is_of_the_numbers_that_are_there": "LatentSDE",
    },
    "samplers/test_probability_flow.py": {
        "test_the_density_is_that_of_the_data_with_noise_of_the_last_level": "VP-t",
    },
}


def is_slow(path, name):
    """Whether a test, `name[parameters]` in a file below `tests/`, is one of them."""
    test, _, parameters = name.removesuffix("]").partition("[")
    wanted = SLOW.get(path, {}).get(test)
    return wanted is not None and (not wanted or re.fullmatch(wanted, parameters) is not None)
