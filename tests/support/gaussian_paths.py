"""One Gaussian path of every kind, for laws that hold on all of them."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ndekit as nk

# Gauss-Hermite quadrature for a standard normal variable.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def two_points_mmse(s):
    """The mean squared error of the best guess of a sign, seen with noise of deviation 1 / s."""
    z, w = jnp.asarray(NODES, s.dtype), jnp.asarray(WEIGHTS, s.dtype)
    # 1 - tanh^2 without the cancellation.
    return jnp.sum(w / jnp.cosh(jnp.clip(s * s + s * z, -40, 40)) ** 2)


class Own(nk.paths.AbstractGaussianPath):
    """As a user writes one: all else by the defaults."""

    def a(self, t):
        return t * t + 0.1

    def m(self, t):
        return (1 - t) ** 2 + 0.01


def bent(path):
    """A learned path away from where it starts."""
    warp = jnp.asarray(np.linspace(-0.5, 1.0, len(path.warp)), path.warp.dtype)
    waves = 0.3 * np.sin(np.arange(path.log_scale.size)).reshape(path.log_scale.shape)
    waves = jnp.asarray(waves, path.log_scale.dtype)
    return eqx.tree_at(lambda p: (p.warp, p.log_scale), path, (warp, waves))


P = nk.paths
# Made anew in each test, in the dtype that holds there.
PATHS = {
    "CondOT": lambda: P.CondOT(),
    "CondOT, noise left": lambda: P.CondOT(0.1),
    "Trigonometric": lambda: P.Trigonometric(),
    "Polynomial": lambda: P.Polynomial(3),
    "VP": lambda: P.VP(),
    "SubVP": lambda: P.SubVP(),
    "VE": lambda: P.VE(),
    "EDM": lambda: P.EDM(),
    "Cosine": lambda: P.Cosine(),
    "LogVariance": lambda: P.LogVariance(4.0),
    "LogVariance of 1": lambda: P.LogVariance(1.0),
    "Shifted CondOT": lambda: P.Shifted(P.CondOT(), 3.0),
    "Shifted VP": lambda: P.Shifted(P.VP(), 0.5),
    "Shifted LogVariance": lambda: P.Shifted(P.LogVariance(4.0), 2.0),
    "KineticOptimal": lambda: P.KineticOptimal.of(two_points_mmse),
    "LearnedPath": lambda: bent(P.LearnedPath(0.01, 50.0)),
    "own": lambda: Own(),
}
# The levels of noise at t = 0 and t = 1.
ENDS = {
    "CondOT": (np.inf, 0.0),
    "CondOT, noise left": (np.inf, 0.1),
    "Trigonometric": (np.inf, 0.0),
    "Polynomial": (np.inf, 0.0),
    "VP": (np.sqrt(np.expm1(10.05)), 0.0),
    "SubVP": (2 * np.sinh(5.025), 0.0),
    "VE": (50.0, 0.01),
    "EDM": (80.0, 0.002),
    "Cosine": (np.inf, 0.0),
    "LogVariance": (np.inf, 0.0),
    "LogVariance of 1": (np.inf, 0.0),
    "Shifted CondOT": (np.inf, 0.0),
    "Shifted VP": (0.5 * np.sqrt(np.expm1(10.05)), 0.0),
    "Shifted LogVariance": (np.inf, 0.0),
    "KineticOptimal": (np.inf, 0.0),
    "LearnedPath": (50.0, 0.01),
    "own": (1.01 / 0.1, 0.01 / 1.1),
}


class Table(P.AbstractGaussianPath):
    """What a path says at one time: programs that take it are compiled once for all paths."""

    here: dict

    def a(self, t):
        return self.here["a"]

    def m(self, t):
        return self.here["m"]

    def dadt(self, t):
        return self.here["dadt"]

    def dmdt(self, t):
        return self.here["dmdt"]

    def squared_diffusion(self, t):
        return self.here["g2"]


@functools.partial(jax.jit, static_argnums=0)
def _read(name, ts):
    path = PATHS[name]()
    read = lambda t: dict(
        a=path.a(t), m=path.m(t), dadt=path.dadt(t), dmdt=path.dmdt(t),
        g2=path.squared_diffusion(t), sigma=path.sigma(t),
    )  # fmt: skip
    return jax.vmap(read)(ts)


def read(name, ts):
    """The quantities of a path at some times, in their dtype."""
    return jax.tree.map(np.asarray, _read(name, jnp.asarray(ts)))


@functools.cache
def read_ends(name):
    """The quantities at t = 0 and t = 1, in float32."""
    found = read(name, np.array([0.0, 1.0], np.float32))
    return [{key: value[i] for key, value in found.items()} for i in (0, 1)]


# What these would find, the others would, too, but for a rare end.
RARE = ("LogVariance of 1", "CondOT, noise left", "Shifted LogVariance")
all_paths = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in RARE else ()) for name in PATHS]
)
