"""The timings for GPUs run on a CPU too, and what they time by hand is the same solve."""

import os
import subprocess
import sys

import pytest
from support.checkout import ROOT

SAME_SOLVE = """
import jax
from cases import CASES
from on_device import DEFAULT, all_calls
from support.close import assert_tree_close
from variants import DIFFRAX

assert not any("single" in name for name in DEFAULT)
assert set(DEFAULT) == {name for name in CASES if "single" not in name}
case = CASES["neural cde, Heun on the grid"]("neural cde, Heun on the grid")
calls = all_calls(case, None)
theirs = calls[DIFFRAX, "forward"]()[0][:, -1]
ours = calls["known scan", "forward"]()[0]
assert_tree_close(ours, theirs, rtol=1e-5, atol=1e-6)
theirs, ours = calls[DIFFRAX, "gradient"](), calls["known scan", "gradient"]()
largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(theirs))
assert largest > 0
assert_tree_close(ours, theirs, rtol=1e-4, atol=1e-5 * largest)
"""


def run(*arguments):
    """As a user runs: without type checks and strict promotion."""
    folders = (ROOT, ROOT / "tests", ROOT / "tests" / "bench")
    path = os.pathsep.join(map(str, folders))
    done = subprocess.run(
        [sys.executable, *arguments], env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_cde_by_hand_is_that_of_diffrax():
    run("-c", SAME_SOLVE)


@pytest.mark.slow
def test_a_row_has_the_scan_that_knows_its_length():
    script = str(ROOT / "tests" / "bench" / "on_device.py")
    lines = run(script, "--rounds", "1", "sde, Euler, 50 steps").splitlines()
    head, cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2::2]]
    row = dict(zip(head, cells, strict=True))
    assert row["steps"] == "50"
    for work in ("forward", "gradient"):
        assert row[f"floor / ndekit, {work}"] == ""
        assert float(row[f"known scan / ndekit, {work}"]) > 0
        assert float(row[f"diffrax / ndekit, {work}"]) > 0
