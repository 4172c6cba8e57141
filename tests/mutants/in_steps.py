"""Mutants in the steps: schemes, their stages, implicit equations, fields in two parts."""

from .mutant import Mutant

IN_STEPS = [
    Mutant(
        name="error-per-time",
        module="ndekit.integrate.steppers.explicit",
        old="error = tree.multiply(h, tree.weighted_sum(self.b_error, rates))",
        new="error = tree.weighted_sum(self.b_error, rates)",
        what="the error estimate of an explicit step lacks the factor h",
        tests=(
            "tests/regularize/test_heuristics.py::test_costs_are_their_formulas_in_numpy[Heun]",
        ),
    ),
    Mutant(
        name="jump-not-seen",
        module="ndekit.integrate.steppers.explicit",
        old="anew = lambda: tree.where(made_jump, field(t0, y0), carry)",
        new="anew = lambda: carry",
        what="the first stage after a jump of the field is the last one before it",
        tests=(
            "tests/integrate/test_catalogue.py::TestACall::test_gives_back_the_same[controller/clip-jump]",
        ),
    ),
    Mutant(
        name="jump-not-replayed",
        module="ndekit.integrate.steppers.explicit",
        old="first = first if made_jump is None else tree.where(made_jump, rate, first)",
        new="first = first if made_jump is None else first",
        what="the derivative of a first stage goes to the step before a jump",
        tests=("tests/integrate/test_gradients.py::test_a_jump_of_the_field_has_its_gradient",),
    ),
    Mutant(
        name="nodes-run-again",
        module="ndekit.integrate.steppers.explicit",
        old="jnp.where(nodes == 1, t1, t0 + nodes * h)",
        new="jnp.where(nodes == 1, t0, t0 + nodes * h)",
        what="steps run again between checkpoints have their last node at their start",
        tests=(
            "tests/integrate/test_gradients_composed.py::test_gradient_is_right_whatever_the_number_of_checkpoints",
        ),
    ),
    Mutant(
        name="nodes-of-a-control",
        module="ndekit.integrate.steppers.unrolled_erk",
        old="t = t1 if c_i == 1 else t0 + c_i * h",
        new="t = t1 if c_i == 1 else t0",
        what="inner stages on a control or noise are evaluated at the start of the step",
        tests=(
            "tests/integrate/test_properties.py::test_several_terms_see_the_times_of_their_stages",
        ),
    ),
    Mutant(
        name="area-of-additive-noise",
        module="ndekit.integrate.steppers.unrolled_srk",
        old="_sum([0.5, -1.0], x[:2], x[0])",
        new="_sum([0.5, 1.0], x[:2], x[0])",
        what="the sign of H where additive noise depends on time",
        tests=(
            "tests/integrate/noise/test_sde.py::test_every_solver_equals_diffrax_on_the_same_noise[SRA1-False]",
        ),
    ),
    Mutant(
        name="i10-of-sosri",
        module="ndekit.integrate.solvers.sosri",
        old="lambda w, hh: hh + w / 2",
        new="lambda w, hh: hh - w / 2",
        what="the sign of W in the integral I10 of SOSRI",
        tests=(
            "tests/integrate/noise/test_sde_orders.py::test_a_step_of_sosri_integrates_the_path",
        ),
    ),
    Mutant(
        name="implicit-coupling",
        module="ndekit.integrate.steppers.diagonally_implicit",
        old="return self.inverse[i] @ (self.forced[i] + self.coupling[i] @ moved_base)",
        new="return self.inverse[i] @ (self.forced[i] - self.coupling[i] @ moved_base)",
        what="the sign of h J in the derivative of an implicit stage",
        tests=(
            "tests/integrate/replay/test_differentiable_steps.py::test_an_implicit_solver_and_automatic_first_step",
        ),
    ),
    Mutant(
        name="known-at-one-time",
        module="ndekit.integrate.programs.time_only",
        old="return self.field.late(tree.read(self.known, i), self.ts[i], y)",
        new="return self.field.late(tree.read(self.known, 0), self.ts[i], y)",
        what="all stages read what the field computed from the time of the first",
        tests=(
            "tests/integrate/programs/test_time_only.py::test_both_programs_together_are_the_field",
        ),
    ),
    Mutant(
        name="undone-the-wrong-way",
        module="ndekit.integrate.solvers.reversible",
        old="z0 = tree.add(solver_state, back)",
        new="z0 = tree.subtract(solver_state, back)",
        what="the step backwards of `Reversible` has a sign wrong",
        tests=(
            "tests/integrate/solvers/test_reversible.py::test_a_step_undone_is_where_it_came_from",
        ),
    ),
]
