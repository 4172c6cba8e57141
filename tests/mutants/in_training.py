"""Mutants in training: keys, means, budgets, patience."""

from .mutant import Mutant

IN_TRAINING = [
    Mutant(
        name="budget-scale-moves",
        module="ndekit.regularize.budget",
        old="return lax.stop_gradient(steps) + lax.stop_gradient(ratio) * (step_count - counted)",
        new="return lax.stop_gradient(steps) + lax.stop_gradient(ratio) * (counted - step_count)",
        what="a budget of steps rewards steps",
        tests=("tests/regularize/test_budget.py::test_the_formula_by_hand",),
    ),
    Mutant(
        name="one-key-for-all-updates",
        module="ndekit.train.update",
        old="own_key = jr.fold_in(key, step)",
        new="own_key = jr.fold_in(key, 0 * step)",
        what="all updates of a training draw the same numbers",
        tests=(
            "tests/train/test_train.py::test_each_update_has_a_key_of_its_own_whatever_the_call",
        ),
    ),
    Mutant(
        name="broken-steps-taken",
        module="ndekit.train.update",
        old="params = tree.where(finite, new_params, params)",
        new="params = new_params",
        what="a step that is not finite is taken",
        tests=(
            "tests/train/test_train.py::test_what_follows_in_the_same_call_does_not_see_a_broken_model",
        ),
    ),
]
