"""Mutants in data sets: masks, padding, parts, likelihoods."""

from .mutant import Mutant

SERIES = "tests/data/test_series.py"
BATCHES = "tests/data/test_batches_of_series.py"
TABLES = "tests/data/test_long_tables.py"
ANSWERS = "tests/data/test_known_answers.py"
FILES = "tests/data/test_irregular_files.py"

IN_DATA = [
    Mutant(
        name="padding-keeps-readings",
        module="ndekit.data.series",
        old="mask = mask & real[..., None]",
        new="mask = mask & (real[..., None] | True)",
        what="what stands in the padding of a series is read",
        tests=(f"{SERIES}::test_nothing_in_the_padding_is_read",),
    ),
    Mutant(
        name="padding-touches-times",
        module="ndekit.data.series",
        old="last = jax.lax.stop_gradient(last)",
        new="pass",
        what="times of the padding have a gradient by the last time",
        tests=(f"{SERIES}::test_nothing_in_the_padding_is_read",),
    ),
    Mutant(
        name="padding-one-apart",
        module="ndekit.data.series",
        old="spacing = np_.where(least > 1, least, np_.ones((), ts.dtype))",
        new="spacing = np_.where(least > 1, np_.ones((), ts.dtype), np_.ones((), ts.dtype))",
        what="large times of the padding are equal",
        tests=(f"{SERIES}::test_times_increase_through_the_padding",),
    ),
    Mutant(
        name="rounded-times-taken",
        module="ndekit.data.series_checks",
        old="(gap > 0) & (off > _LARGEST_ROUNDING * gap)",
        new="(gap > 0) & (off > 1e9 * gap)",
        what="seconds since 1970 become multiples of 128",
        tests=(f"{SERIES}::test_bad_series_is_one_clear_error",),
    ),
    Mutant(
        name="labels-left-behind",
        module="ndekit.data.buckets",
        old="lambda array: array[rows], self._others",
        new="lambda array: array[: len(rows)], self._others",
        what="labels do not go with their series",
        tests=(f"{BATCHES}::test_an_epoch_of_buckets_sees_each_series_once",),
    ),
    Mutant(
        name="short-ones-first",
        module="ndekit.data.buckets",
        old="groups = groups[epoch_order(len(groups), epoch, key=group_key)]",
        new="groups = groups[np.arange(len(groups))]",
        what="each epoch goes from short series to long ones",
        tests=(f"{BATCHES}::test_batches_are_mostly_of_similar_length",),
    ),
    Mutant(
        name="rows-split-not-people",
        module="ndekit.data.splitting",
        old="""part = np.searchsorted(ends, place, side="right")[individual]""",
        new="""part = np.searchsorted(ends, np.resize(place, len(by)), side="right")""",
        what="a patient is in two parts",
        tests=(f"{BATCHES}::test_no_individual_is_in_two_parts",),
    ),
    Mutant(
        name="repeats-weighed",
        module="ndekit.data.long_tables",
        old="np.add.reduceat(values[lines], starts) / counts",
        new="values[lines][starts] * (counts > 0)",
        what="of repeated readings the first counts",
        tests=(f"{TABLES}::test_a_long_table_becomes_series_with_repeats_averaged",),
    ),
    Mutant(
        name="gaps-in-the-mean",
        module="ndekit.data.scaling",
        old="mean = xs.sum(axis=0, where=mask) / found",
        new="mean = xs.sum(axis=0, where=mask) / len(xs)",
        what="missing readings count as zeros in the scaling",
        tests=(f"{TABLES}::test_standardised_training_data_have_mean_zero_and_deviation_one",),
    ),
    Mutant(
        name="furthest-on-the-grid",
        module="ndekit.data.grids",
        old="order = np.lexsort((-times, -np.abs(times - grid[point])))",
        new="order = np.lexsort((-times, np.abs(times - grid[point])))",
        what="of several readings near a grid point the furthest stays",
        tests=(f"{TABLES}::test_a_grid_takes_what_is_nearest_to_its_points",),
    ),
    Mutant(
        name="typing-errors-kept",
        module="ndekit.data.clinical",
        old="(value >= low) & (value <= high)",
        new="(value >= low)",
        what="a blood pressure of 13,682 is learnt from",
        tests=(f"{FILES}::test_nafld_is_cleaned",),
    ),
    Mutant(
        name="no-ito-term",
        module="ndekit.data.conditional_expectations",
        old="(drift - 0.5 * volatility**2) * dt",
        new="drift * dt",
        what="Black-Scholes paths grow faster than their expectation",
        tests=(f"{ANSWERS}::test_no_guess_from_the_past_explains_what_is_left",),
    ),
    Mutant(
        name="floor-sees-the-reading",
        module="ndekit.data.conditional_expectations",
        old="before = last[:, :-1]",
        new="before = last[:, 1:]",
        what="the best predictor knows what it is to predict",
        tests=(f"{ANSWERS}::test_the_optimal_loss_is_the_variance_that_no_model_can_know",),
    ),
    Mutant(
        name="filter-forgets-the-other-channel",
        module="ndekit.data.double_ou",
        old="gain = covariance / np.where(read, covariance[:, channel], 1.0)[:, None]",
        new="gain = np.eye(2)[channel] * np.ones((len(read), 1))",
        what="a reading of one channel tells nothing of the other",
        tests=(f"{ANSWERS}::test_the_filter_is_the_dense_normal_distribution",),
    ),
]
