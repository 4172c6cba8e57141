"""Mutants in flows: conversions, losses, densities, samplers."""

from .mutant import Mutant

FLOWS = "tests/samplers/test_probability_flow.py"
PRESETS = "tests/samplers/test_presets.py"
LOSSES = "tests/losses/test_losses.py"
CNF = "tests/models/test_cnf.py"

IN_FLOWS = [
    Mutant(
        name="score-without-its-level",
        module="ndekit.paths.conversion",
        old='noise = value if src == "noise" else -self.m * value',
        new='noise = value if src == "noise" else -value',
        what="a score is taken for a noise",
        tests=(
            "tests/paths/test_conversion.py::test_conversions_are_true_and_as_exact_as_their_condition_in_float64_and_float32",
        ),
    ),
    Mutant(
        name="mean-flow-by-both-times",
        module="ndekit.losses.flow_maps",
        old="along = (jnp.ones_like(t), v, jnp.zeros_like(s))",
        new="along = (jnp.ones_like(t), v, jnp.ones_like(s))",
        what="MeanFlow is differentiated by the end of its interval too",
        tests=(f"{LOSSES}::test_the_flow_map_of_a_teacher_has_no_loss",),
    ),
    Mutant(
        name="probes-of-another-mean",
        module="ndekit.probes",
        old="(self.n, *x.shape), x) / self.n**0.5",
        new="(self.n, *x.shape), x) / self.n",
        what="several probes do not estimate the trace",
        tests=(
            "tests/test_probes.py::test_estimates_are_unbiased_also_when_the_jacobian_has_moved_on",
        ),
    ),
    Mutant(
        name="density-with-the-wrong-sign",
        module="ndekit.models.cnf",
        old="self.base.log_prob(noise) - sol.ys.trace[-1]",
        new="self.base.log_prob(noise) + sol.ys.trace[-1]",
        what="samples come with a density that is not theirs",
        tests=(f"{CNF}::test_samples_come_with_the_density_that_they_have",),
    ),
    Mutant(
        name="density-of-the-state",
        module="ndekit.models.flow",
        old="return log_prob + log_size, sol",
        new="return log_prob, sol",
        what="the density is that of the variable's state, not of the sample",
        tests=(f"{FLOWS}::test_the_density_is_that_of_the_data_with_noise_of_the_last_level",),
    ),
    Mutant(
        name="reverse-sde-of-twice-the-score",
        module="ndekit.samplers.reverse_sde",
        old="part = -0.5 * self._squared(t) / path.m(t)",
        new="part = -self._squared(t) / path.m(t)",
        what="marginals depend on the noise",
        tests=(f"{FLOWS}::test_marginals_do_not_depend_on_the_noise",),
    ),
    Mutant(
        name="guidance-of-twice-the-gradient",
        module="ndekit.samplers.guidance",
        old="0.5 * path.squared_diffusion(t)",
        new="path.squared_diffusion(t)",
        what="a velocity is led further than a noise",
        tests=(f"{PRESETS}::TestGuidance",),
    ),
    Mutant(
        name="plms-started-once",
        module="ndekit.integrate.solvers.pndm",
        old="number < self.order_ - 1,",
        new="number < 1,",
        what="PNDM combines rates that there are not",
        tests=(f"{PRESETS}::test_each_makes_its_published_steps_and_counts_them",),
    ),
    Mutant(
        name="dpm-without-its-middle",
        module="ndekit.integrate.solvers.dpm",
        old="y1 = _by_mean(y0, t0, t1, has_log, here, slope)",
        new="y1 = along(t1, here, slope)",
        what="DPM-Solver-2 is another method of its order",
        tests=(f"{PRESETS}::test_each_makes_its_published_steps_and_counts_them",),
    ),
    Mutant(
        name="samples-read-at-the-t1-that-was-given",
        module="ndekit.samplers.sampler",
        old="            t0, t1 = ts[0], ts[-1]\n",
        new="",
        what="the samples of a traced grid are those of another level of noise",
        tests=("tests/samplers/test_from_noise_alone.py::test_a_traced_grid_ends_where_it_says",),
    ),
    Mutant(
        name="grid-to-data-without-its-last-step",
        module="ndekit.samplers.sampler",
        old="ts, denoise = ts[:-1], True",
        new="ts, denoise = ts[:-1], self.denoise",
        what="a grid that ends at data alone stops a step before",
        tests=(
            f"{PRESETS}::test_from_noise_alone_to_data_alone_the_last_step_of_a_grid_is_eulers",
        ),
    ),
    Mutant(
        name="ends-not-looked-at",
        module="ndekit.train.path_judge",
        old='near = found["off"] <= self.most',
        new="near = True",
        what="the path with the fewest steps comes back, wherever its samples end",
        tests=("tests/train/test_fit_path.py::test_a_path_that_hides_its_errors_is_passed_over",),
    ),
    Mutant(
        name="a-time-for-each-unit",
        module="ndekit.shapes",
        old="if of_samples and t.shape[-1] == 1:",
        new="if of_samples:",
        what="a vector of times is taken for times of a layer's units",
        tests=(
            "tests/fields/test_every_field.py::"
            "test_several_times_are_refused_or_of_no_account[ConcatSquash]",
        ),
    ),
    Mutant(
        name="root-of-nothing",
        module="ndekit.paths.diffusion",
        old="return jnp.sqrt(1 - as_time(t)) * jnp.sqrt(rate)",
        new="return jnp.sqrt((1 - as_time(t)) * rate)",
        what="the slope by what a path has learnt is not a number where its noise ends",
        tests=(
            "tests/paths/test_gaussian_paths.py::"
            "test_slopes_by_a_path_s_own_numbers_are_the_limit_at_both_ends[VP]",
        ),
    ),
]
