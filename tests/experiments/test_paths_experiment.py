"""The experiment of chosen paths, at reduced size: its data, its baselines, its rows."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from support.close import assert_tree_close

from ndekit.experiments import paths
from ndekit.experiments.harness import path_cases
from ndekit.paths import CondOT, Trigonometric

TINY = paths.Sizes(samples=16, points=24, updates=2, batch=4, seeds=(0,))


@pytest.mark.parametrize("name", [name for name in paths.DATA if name not in ("gaussian", "thin")])
def test_data_are_centred_and_of_unit_size(name):
    law = paths.DATA[name](3, TINY)
    means = np.asarray(law.means, np.float64)
    spread = np.broadcast_to(np.exp(np.asarray(law.log_stds, np.float64)), means.shape)
    assert np.abs(means.mean(axis=0)).max() < 1e-5
    # Points have a little spread besides.
    assert abs(np.mean(means**2 + spread**2) - 1) < 2e-3


def test_the_arctangent_is_the_trigonometric_path_in_other_units():
    path, ts = path_cases.Arctan(1.0, path_cases.PINNED), jnp.linspace(0.1, 0.9, 5)
    round_, ends = Trigonometric(), [Trigonometric().t_of_sigma(s) for s in (20.0, 0.01)]
    found = round_.sigma(ends[0] + (ends[1] - ends[0]) * ts)
    assert_tree_close(path.sigma(ts), found, rtol=1e-4)


def test_a_learned_path_near_another_has_its_levels_and_its_scale():
    levels = np.exp(np.linspace(np.log(20.0), np.log(0.01), 200))
    path, ts = path_cases.near(CondOT(), path_cases.PINNED, levels), jnp.linspace(0.0, 1.0, 7)
    assert_tree_close(path.sigma(ts), np.interp(ts, np.linspace(0, 1, 200), levels), rtol=1e-2)
    # Cond-OT has a + m = 1.
    assert_tree_close(path.a(ts) + path.m(ts), np.ones(7), rtol=2e-2)


def test_steps_are_compared_at_equal_error():
    """Of a method of order two: a hundredth of the error for ten times the steps."""
    found = [dict(error=error, steps=0.5 / error**0.5) for error in (1e-4, 1e-1, 1e-2)]
    assert path_cases.steps_at(found, 1e-3) == pytest.approx(0.5 / 1e-3**0.5)
    assert path_cases.steps_at(found, 1e-5) == np.inf


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["exact fields, Heun 1e-2", "exact fields, 8 steps", "diagonal", "energies"]
)
def test_every_row_is_finite(name, x64):
    found = list(paths.rows(name, TINY))
    assert len({json.dumps(row) for row in found}) == len(found) >= 5
    assert len({tuple(row) for row in found}) == 1
    for row in found:
        assert all(np.isfinite(v) for v in row.values() if isinstance(v, float | int)), row
        if "steps" in row:
            assert row["steps"] == pytest.approx(row["accepted"] + row["rejected"])
            assert row["worst"] >= row["steps"]
