"""Solves on many devices: equal to those on one, and silent while they run."""

import json
import os
import subprocess
import sys

import pytest
from support.checkout import ROOT
from support.on_devices import collectives

# One process for each of these lists: to start JAX takes longer than most of its solves.
FAST = "costs/inside closures/lanes fixed/sharded outcome/throws"
SLOW = (
    "costs/around costs/lanes costs/sharded fixed/inside fixed/lanes implicit/inside "
    "implicit/around implicit/sharded steps/inside steps/lanes dense/around dense/inside "
    "noise/inside noise/around noise/sharded control/inside control/lanes closures/inside "
    "closures/around adjoints/inside forward/lanes event/inside"
)


def said(names):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "on_devices.py"), *names],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    reports = map(json.loads, done.stdout.splitlines())
    return {report["name"]: report for report in reports}


@pytest.fixture(scope="module")
def fast():
    return said(FAST.split())


@pytest.fixture(scope="module")
def slow():
    return said(SLOW.split())


def is_equal_and_silent(report):
    kind = report["name"].split("/")[1]
    differs = {k: x for k, x in report["differs"].items() if x > 1e-12}
    assert not differs, report
    assert report["differs"]["steps"] == 0
    if kind == "sharded":  # `jax.jit` alone asks all devices whether any lane goes on
        assert report["inside"], report
        return
    assert report["inside"] == [], report
    # What all share is summed once; each lane's own gradients are not.
    assert set(report["outside"]) == (set() if kind == "lanes" else {"all-reduce"}), report


@pytest.mark.parametrize("name", [name for name in FAST.split() if "outcome" not in name])
def test_many_devices_give_what_one_gives(fast, name):
    is_equal_and_silent(fast[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW.split())
def test_many_devices_give_what_one_gives_at_length(slow, name):
    is_equal_and_silent(slow[name])


def test_a_failure_on_a_device_is_told_as_on_one(fast):
    report = fast["outcome/throws"]
    assert "maximum number of solver steps" in report["thrown"]
    assert report["failed"] == [False] * 4 + [True] * 4


def test_collectives_in_loops_are_found():
    text = """
%body (x: f32[]) -> f32[] {
  ROOT %y = f32[] fusion(%x), kind=kLoop, calls=%inner
}
%inner (x: f32[]) -> f32[] {
  ROOT %z = f32[] all-reduce(%x), to_apply=%sum
}
%condition (x: f32[]) -> pred[] {
  ROOT %p = pred[] all-gather-start(%x)
}
ENTRY %main (x: f32[]) -> f32[] {
  %w = f32[] while(%x), condition=%condition, body=%body
  ROOT %r = f32[] all-to-all(%w)
}
"""
    assert collectives(text) == (["all-gather", "all-reduce"], ["all-to-all"])
