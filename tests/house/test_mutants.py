"""The faults of `make mutants` fit the code, and what came of one is told apart."""

import pytest
from mutants.mutant import Mutant
from mutants.records import MUTANTS
from mutants.trial import verdict_of
from support import slow_siblings
from support.checkout import ROOT


def test_every_mutant_fits_the_code_and_its_tests_exist():
    misfits = [mutant.misfit(ROOT) for mutant in MUTANTS]
    assert not any(misfits), "\n".join(filter(None, misfits))


def a_checkout(root, source):
    (root / "ndekit").mkdir()
    (root / "ndekit" / "sums.py").write_text(source)
    (root / "test_sums.py").write_text("def test_one():\n    pass\n")
    return Mutant("signs", "ndekit.sums", "a + b", "a - b", "a sign", ("test_sums.py::test_one",))


@pytest.mark.parametrize("source", ["", "a + b; a + b"])
def test_a_text_that_does_not_stand_once_is_a_misfit(source, tmp_path):
    assert "not once" in (a_checkout(tmp_path, source).misfit(tmp_path) or "")


def test_a_mutant_is_put_in_its_place(tmp_path):
    mutant = a_checkout(tmp_path, "c = a + b")
    assert mutant.misfit(tmp_path) is None
    mutant.put_into(tmp_path)
    assert mutant.path(tmp_path).read_text() == "c = a - b"


@pytest.mark.parametrize(
    ("code", "said", "verdict"),
    [
        (0, "3 passed", ("survived", "")),
        (1, "FAILED tests/a.py::b[c, d] - assert 1 == 2", ("caught", "tests/a.py::b[c, d]")),
        (1, "ERROR tests/a.py::b - fixture", ("broken", "pytest ended with 1")),
        (2, "ERROR tests/a.py - ImportError", ("broken", "pytest ended with 2")),
        (5, "no tests ran", ("broken", "pytest ended with 5")),
    ],
)
def test_only_a_test_that_fails_has_caught_something(code, said, verdict):
    assert verdict_of(code, said) == verdict


def test_a_plain_run_finds_every_fault():
    """No test that is named for a fault is left to the slow run."""
    for mutant in MUTANTS:
        for test in mutant.tests:
            path, _, name = test.removeprefix("tests/").partition("::")
            assert not slow_siblings.is_slow(path, name.rpartition("::")[2]), (mutant.name, test)
