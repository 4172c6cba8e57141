"""The experiment of chosen paths, at reduced size: its data, its baselines, its rows."""

import json

import diffrax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close

from ndekit.experiments import paths
from ndekit.experiments.harness import learned_paths, path_cases, path_tables
from ndekit.fields import MLP
from ndekit.paths import VE, CondOT, Trigonometric, scale_time
from ndekit.train import PathSolve

TINY = paths.Sizes(
    samples=16, points=24, updates=2, batch=4, learning=3, learning_batch=8, seeds=(0,)
)


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
    assert path_tables.steps_at(found, 1e-3) == pytest.approx(0.5 / 1e-3**0.5)
    assert path_tables.steps_at(found, 1e-5) == np.inf
    assert path_tables.steps_at(found, 0.2) == -np.inf
    assert path_tables.told([-np.inf, -np.inf]) == "below"


def learnt():
    return learned_paths.Learnt(MLP(2, 8, 1, time="concat", near_zero=False, key=jr.key(0)))


@pytest.mark.parametrize("name", learned_paths.KNOWN[:2])
def test_one_network_is_one_flow_on_every_path(name):
    """As [`ndekit.paths.scale_time`][] takes it from one to the other."""
    law, path0 = learnt(), VE(*path_cases.PINNED)
    path = {"Cond-OT": CondOT(), "trigonometric": Trigonometric()}[name]
    moved, t, x = scale_time(law.velocity(path0), path0, path), 0.4, jnp.array([0.3, -0.8])
    assert_tree_close(law.velocity(path)(t, x, None), moved(t, x, None), rtol=1e-4)


@pytest.mark.slow
def test_reflown_pairs_end_where_the_learnt_field_takes_the_noise():
    law, number = learnt(), 5
    x0, x1 = learned_paths.straightened(law, jnp.float32)(jr.key(1), number)
    path, size = VE(*path_cases.PINNED), (1 + path_cases.PINNED[1] ** 2) ** 0.5
    solve = PathSolve(path, law.velocity(path), diffrax.Dopri8(), 1e-5, path_cases.PINNED)
    assert_tree_close(path_cases.solved(solve, path, size * x0)["ends"], x1, rtol=1e-3, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "part", ["exact fields, Heun 1e-2", "exact fields, 8 steps", "diagonal", "energies"]
)
def test_every_row_is_finite(part, x64):
    found = [row for piece in paths.pieces(part, TINY) for row in piece.rows()]
    check_rows(found)
    told = path_tables.of_paths(found)
    assert len(told) == len({row["path"] for row in found})
    assert "nan" not in str(told) and all(row["seeds"] == 1 for row in told)


@pytest.mark.slow
def test_every_row_of_what_a_network_has_learnt_is_finite(x64):
    found = list(paths.learned(0, TINY, "8gaussians", "Heun 1e-2"))
    check_rows(found)
    assert {row["trained"] for row in found} >= {"exact", "on Cond-OT", "on ours", "reflow"}


def check_rows(found):
    assert len({json.dumps(row) for row in found}) == len(found) >= 5
    assert len({tuple(row) for row in found}) == 1
    for row in found:
        assert all(np.isfinite(v) for v in row.values() if isinstance(v, float | int)), row
        if "steps" in row:
            assert row["steps"] == pytest.approx(row["accepted"] + row["rejected"])
            assert row["worst"] >= row["steps"]


def test_a_table_says_means_over_seeds_and_steps_at_equal_error():
    """Of a method of order two, half as good on the second seed."""
    found = [
        dict(seed=seed, tolerance=tolerance, path="a", data="b", solver="Heun 1e-2",
             steps=(1 + seed) / tolerance**0.5, worst=9 + 2 * seed, error=tolerance)
        for seed in (0, 1)
        for tolerance in (1e-1, 1e-2, 1e-3)
    ]  # fmt: skip
    (row,) = path_tables.of_paths(found)
    assert row["seeds"] == 2 and row["steps"] == "15.0 ± 7.1" and row["worst"] == "10.0 ± 1.4"
    assert row["steps at error 0.01"] == row["steps"]
    assert row["steps at error 0.05"] == "6.71 ± 3.16"
    found[0]["error"] = 0.08  # beyond this the first seed has no row
    assert path_tables.of_paths(found)[0]["steps at error 0.1"] == "reached by 1 of 2"
    assert "exact: b\n\n| path" in path_tables.summary({"exact": found})


def test_seeds_and_data_sets_are_pieces_by_themselves():
    """So that an interruption loses one of them at most."""
    found = list(paths.pieces("exact fields, Heun 1e-2", TINY._replace(seeds=(0, 2))))
    assert [piece.name for piece in found][2:4] == ["anisotropic 0", "8gaussians 2"]
    assert found[3].sizes == TINY._replace(seeds=(2,))
