"""Mutants in the noise: bridges, cells, random numbers, the walk over halves."""

from .mutant import Mutant

IN_NOISE = [
    Mutant(
        name="spread-of-h",
        module="ndekit.integrate.noise.bridge",
        old="_apply(np.diag(np.sqrt(_VARIANCES[:number])), normal) * root",
        new="_apply(np.diag(_VARIANCES[:number]), normal) * root",
        what="Levy areas are drawn with their variance in the place of its root",
        tests=("tests/integrate/noise/test_brownian.py::test_parts_of_a_cell_have_the_same_law",),
    ),
    Mutant(
        name="moments-joined",
        module="ndekit.integrate.noise.bridge",
        old="m.append(first[1] + first[0] * h2 + second[1])",
        new="m.append(first[1] + first[0] * h1 + second[1])",
        what="the integral of a path over two intervals of different lengths",
        tests=(
            "tests/integrate/noise/test_brownian.py::test_space_time_area_is_the_integral_of_the_path",
        ),
    ),
    Mutant(
        name="halves-exchanged",
        module="ndekit.integrate.noise.brownian",
        old="half = tree.where((at & 1) == 1, right, left)",
        new="half = tree.where((at & 1) == 1, left, right)",
        what="a step that draws its noise again takes the other half of its cell",
        tests=(
            "tests/integrate/noise/test_sde.py::test_what_was_drawn_at_once_is_drawn_again_alike",
        ),
    ),
    Mutant(
        name="a-rotation",
        module="ndekit.integrate.noise.threefry",
        old="_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))",
        new="_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 25))",
        what="one rotation of the hash",
        tests=("tests/integrate/noise/test_threefry.py::test_the_numbers_are_those_of_jax",),
    ),
    Mutant(
        name="one-noise-for-all-steps",
        module="ndekit.integrate.noise.of_step",
        old="keys = [jr.fold_in(key, number) for key in self.keys]",
        new="keys = [jr.fold_in(key, 0 * number) for key in self.keys]",
        what="all steps of one size draw the same numbers",
        tests=(
            "tests/integrate/noise/test_sde.py::test_every_solver_equals_diffrax_on_the_same_noise[SRA1-False]",
        ),
    ),
    Mutant(
        name="half-of-the-other-side",
        module="ndekit.integrate.noise.of_step",
        old="in_first = jnp.abs(t0 + t1 - 2 * start) < jnp.abs(t0 + t1 - 2 * end)",
        new="in_first = jnp.abs(t0 + t1 - 2 * start) > jnp.abs(t0 + t1 - 2 * end)",
        what="`HalfSolver` is given the noise of its halves in the wrong order",
        tests=(
            "tests/integrate/noise/test_sde.py::test_the_halves_of_a_step_are_given_in_their_order",
        ),
    ),
    Mutant(
        name="stale-rows",
        module="ndekit.integrate.noise.adaptive",
        old="self.levels[row] == level",
        new="self.levels[row] >= 0 * level",
        what="a walk takes what another level has left in the row of a waiting part",
        tests=(
            "tests/integrate/noise/test_sde.py::test_small_steps_lead_back_to_large_ones_on_the_same_path",
        ),
    ),
    Mutant(
        name="runs-begin-anywhere",
        module="ndekit.integrate.noise.spans",
        old="fits = (first % (1 << widths) == 0) & (ends - start <= longest) & ~alone",
        new="fits = (first % (1 << 0 * widths) == 0) & (ends - start <= longest) & ~alone",
        what="steps over several cells begin at any of them, and draw what another run does",
        tests=(
            "tests/integrate/noise/test_saved_values.py::test_an_end_that_was_tried_is_an_end_of_a_step[0]",
        ),
    ),
    Mutant(
        name="bridge-not-tied-to-its-end",
        module="ndekit.integrate.noise.spans",
        old="return (so_far - part.astype(path.dtype) * whole)[None]",
        new="return (so_far - 0 * part.astype(path.dtype) * whole)[None]",
        what="a value between the ends of a step has the whole motion to it on top of the line",
        tests=(
            "tests/integrate/noise/test_saved_values.py::test_values_of_brownian_motion_have_its_law",
        ),
    ),
    Mutant(
        name="value-before-its-step",
        module="ndekit.integrate.prepare.saved_along_noise",
        old='return tree.where(t > t0, inside["y1"], inside["y0"])',
        new='return tree.where(t < t0, inside["y1"], inside["y0"])',
        what="a value at the end of a step is that at its start",
        tests=("tests/integrate/noise/test_sde.py::test_saved_values_are_ends_of_steps",),
    ),
]
