"""Brownian motion: its law at any split, and that it is one path whoever asks."""

import itertools

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support.close import assert_tree_close

import ndekit as nk
from ndekit.integrate.noise.bridge import AREAS

VARIANCES = {"W": 1.0, "H": 1 / 12, "K": 1 / 720}
NAMES = {area: "WHK"[: number + 1] for number, area in enumerate(AREAS)}


def parts_of(path, t0, t1):
    levy = path.evaluate(t0, t1, use_levy=True)
    return jnp.stack([getattr(levy, name) for name in NAMES[path.levy_area]])


def samples(fn, number=3000):
    return np.asarray(jax.jit(jax.vmap(fn))(jr.split(jr.key(7), number)))


@pytest.mark.parametrize("area", AREAS, ids=lambda area: area.__name__)
def test_increments_are_normal_and_independent_at_any_split(area):
    times = (0.3, 0.9, 1.7, 1.8, 2.43)  # within cells and across them

    def draw(key):
        path = nk.BrownianMotion((), key, area)
        return jnp.concatenate([parts_of(path, a, b) for a, b in itertools.pairwise(times)])

    drawn = samples(draw)
    spreads = np.sqrt([h * VARIANCES[name] for h in np.diff(times) for name in NAMES[area]])
    normal = drawn / spreads
    assert np.all(np.abs(normal.mean(0)) < 5 / np.sqrt(len(drawn)))
    assert np.all(np.abs(np.cov(normal.T) - np.eye(normal.shape[1])) < 5 * np.sqrt(2 / len(drawn)))
    p_values = [stats.kstest(column, "norm").pvalue for column in normal.T]
    assert min(p_values) > 0.01 / len(p_values)


@pytest.mark.parametrize("area", AREAS, ids=lambda area: area.__name__)
def test_parts_of_a_cell_have_the_same_law(area):
    """What a walk draws: the fifth of eight parts of a cell, and the cell itself."""

    def draw(key):
        path = nk.BrownianMotion((), key, area)
        at = path.cell_key(jnp.asarray(0.0))
        (part,) = path.part(at, jnp.asarray(2.0), jnp.uint32(3), jnp.uint32(4))
        (whole,) = path.whole(at, jnp.asarray(2.0))
        return jnp.stack([part, whole])

    drawn = samples(draw)
    spreads = np.sqrt([VARIANCES[name] for name in NAMES[area]])
    for index, h in enumerate((0.25, 2.0)):
        normal = drawn[:, index] / spreads / np.sqrt(h)
        assert min(stats.kstest(column, "norm").pvalue for column in normal.T) > 0.003
    # W of a part and of its cell: covariance h.
    covariance = np.cov(drawn[:, 0, 0], drawn[:, 1, 0])[0, 1]
    assert abs(covariance - 0.25) < 5 * np.sqrt(0.25 * 2.0 / len(drawn))


@given(st.lists(st.floats(-2.5, 3.5), min_size=3, max_size=3, unique=True))
def test_increments_add_up(times):
    a, b, c = sorted(np.float32(times).tolist())
    path = nk.BrownianMotion((2,), jr.key(0))
    both, first, second = (_evaluate(path, *ends) for ends in ((a, c), (a, b), (b, c)))
    np.testing.assert_allclose(both, first + second, atol=2e-4)
    np.testing.assert_allclose(_evaluate(path, c, a), -both, atol=1e-6)


_evaluate = jax.jit(lambda path, t0, t1: path.evaluate(t0, t1))


def test_space_time_area_is_the_integral_of_the_path(x64):
    path = nk.BrownianMotion((), jr.key(1), diffrax.SpaceTimeLevyArea)
    ts = jnp.linspace(0.25, 1.0, 3073)
    w = jax.vmap(lambda t: path.evaluate(0.25, t))(ts)
    bridge = w - (ts - 0.25) / 0.75 * w[-1]
    levy = path.evaluate(0.25, 1.0, use_levy=True)
    assert_tree_close(levy.H, jnp.trapezoid(bridge, ts) / 0.75, rtol=1e-2)
    assert_tree_close(levy.W, w[-1], rtol=1e-12)


def test_trees_of_arrays_draw_independently():
    like = {
        "a": jax.ShapeDtypeStruct((500,), jnp.float32),
        "b": jax.ShapeDtypeStruct((500,), jnp.float32),
    }
    drawn = nk.BrownianMotion(like, jr.key(0)).evaluate(0.0, 1.0)
    assert {name: x.shape for name, x in drawn.items()} == {"a": (500,), "b": (500,)}
    assert abs(np.corrcoef(drawn["a"], drawn["b"])[0, 1]) < 0.2


def test_same_key_same_path_and_other_key_another():
    at = lambda seed: float(nk.BrownianMotion((), jr.key(seed)).evaluate(0.0, 0.7))
    assert at(0) == at(0) != at(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nk.BrownianMotion("2", jr.key(0)), "`shape` must be"),
        (lambda: nk.BrownianMotion(jax.ShapeDtypeStruct((), jnp.int32), jr.key(0)), "floating"),
        (lambda: nk.BrownianMotion((), jr.key(0), diffrax.AbstractBrownianIncrement), "levy_area"),
        (lambda: nk.BrownianMotion((), jr.key(0), ts=[0.0, 1.0, 0.5]), "must increase"),
        (lambda: nk.BrownianMotion((), jr.key(0), ts=[0.0]), "at least two"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_time_outside_the_given_cells_is_refused():
    path = nk.BrownianMotion((), jr.key(0), ts=[0.0, 1.0])
    with pytest.raises(Exception, match="outside its `ts`"):
        jax.block_until_ready(path.evaluate(0.0, 2.0))
