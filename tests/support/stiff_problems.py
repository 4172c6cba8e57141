"""Classic problems, most of them stiff, and how they end, to many digits.

Published ends are those of F. Mazzia and C. Magherini, Test Set for Initial Value Problem Solvers,
release 2.4, Bari 2008 (Robertson at 1e11, HIRES, van der Pol, Pleiades: computed there by RADAU5 or
RADAU in extended precision at rtol = atol = 1.1e-18, as the Oregonator with atol = 1.1e-40; the
problems are those of E. Hairer and G. Wanner, Solving Ordinary Differential Equations II, chapter
IV.10), and for the Brusselator without diffusion
(E. Hairer, S. P. Norsett and G. Wanner, Solving Ordinary Differential Equations I, eq. II.0.1 and
table II.4) of Mathematica's NDSolve with 32 digits, problem "BrusselatorODE". For the other two
SciPy alone knows the end: `scipy_end`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate
from support.compile_cache import has_older_emitters


class Reference(NamedTuple):
    """y' = field(t, y, args) from 0 to t1, and y(t1) where it has been published."""

    field: Callable
    y0: np.ndarray
    t1: float
    end: np.ndarray | None
    scipy_method: str
    # atol / rtol: components below this size are not asked for all their digits.
    floor: float = 1.0
    # At which SciPy's end has ten digits or more.
    scipy_rtol: float = 1e-11


def robertson(t, y, args):
    slow, middle, fast = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return jnp.stack([middle - slow, slow - middle - fast, fast])


def hires(t, y, args):
    a, b, c, d, e, f, g, h = y
    bound = 280.0 * f * h
    return jnp.stack(
        [
            -1.71 * a + 0.43 * b + 8.32 * c + 0.0007,
            1.71 * a - 8.75 * b,
            -10.03 * c + 0.43 * d + 0.035 * e,
            8.32 * b + 1.71 * c - 1.12 * d,
            -1.745 * e + 0.43 * (f + g),
            -bound + 0.69 * d + 1.71 * e - 0.43 * f + 0.69 * g,
            bound - 1.81 * g,
            1.81 * g - bound,
        ]
    )


def van_der_pol(t, y, args):
    return jnp.stack([y[1], ((1 - y[0] ** 2) * y[1] - y[0]) / 1e-6])


def van_der_pol_slow(t, y, args):
    """The same in the oscillator's own time, a thousandth of the other."""
    return jnp.stack([y[1], 1e3 * (1 - y[0] ** 2) * y[1] - y[0]])


def oregonator(t, y, args):
    a, b, c = y
    rates = [77.27 * (b + a * (1 - 8.375e-6 * a - b)), (c - (1 + a) * b) / 77.27, 0.161 * (a - c)]
    return jnp.stack(rates)


def pleiades(t, y, args):
    """Seven stars in a plane, star i of mass i + 1; y is all x, all y, and their speeds."""
    place, speed = y[:14].reshape(2, 7), y[14:]
    gap = place[:, None, :] - place[:, :, None]
    # On the diagonal the gap is nil, and any distance will do.
    distance = jnp.sqrt(jnp.sum(gap**2, axis=0) + jnp.eye(7))
    pull = jnp.arange(1.0, 8.0)[None, None, :] * gap / distance[None] ** 3
    return jnp.concatenate([speed, jnp.sum(pull, axis=2).reshape(14)])


def brusselator(t, y, args):
    u, v = y
    return jnp.stack([1 + u**2 * v - 4 * u, 3 * u - u**2 * v])


def brusselator_line(t, y, args):
    """The Brusselator on (0, 1) with diffusion 1/50, between walls with u = 1 and v = 3."""
    u, v = y.reshape(2, -1)
    diffusion = (len(u) + 1) ** 2 / 50

    def spread(w, wall):
        padded = jnp.pad(w, 1, constant_values=wall)
        return diffusion * (padded[2:] - 2 * w + padded[:-2])

    u_rate, v_rate = 1 + u**2 * v - 4 * u, 3 * u - u**2 * v
    return jnp.concatenate([u_rate + spread(u, 1.0), v_rate + spread(v, 3.0)])


def _pleiades_start():
    places = [3, 3, -1, -3, 2, -2, 2] + [3, -3, 2, 0, 0, -4, 4]
    return np.array(places + [0, 0, 0, 0, 0, 1.75, -1.5] + [0, 0, 0, -1.25, 1, 0, 0], float)


def _line_start(number):
    x = np.arange(1, number + 1) / (number + 1)
    return np.concatenate([1 + np.sin(2 * np.pi * x), np.full(number, 3.0)])


# fmt: off
REFERENCES = {
    "robertson": Reference(
        robertson, np.array([1.0, 0, 0]), 1e2, None, "Radau", 1e-8,
    ),
    "robertson_long": Reference(
        robertson, np.array([1.0, 0, 0]), 1e11,
        np.array([0.2083340149701255e-07, 0.8333360770334713e-13, 0.9999999791665050]),
        "Radau", 1e-8, 1e-9,
    ),
    "hires": Reference(
        hires, np.array([1.0, 0, 0, 0, 0, 0, 0, 0.0057]), 321.8122,
        np.array([
            0.7371312573325668e-3, 0.1442485726316185e-3, 0.5888729740967575e-4,
            0.1175651343283149e-2, 0.2386356198831331e-2, 0.6238968252742796e-2,
            0.2849998395185769e-2, 0.2850001604814231e-2,
        ]),
        "Radau", 1e-4, 1e-9,
    ),
    "van_der_pol": Reference(
        van_der_pol, np.array([2.0, 0]), 2.0,
        np.array([0.1706167732170483e1, -0.8928097010247975]), "Radau", 1.0, 1e-9,
    ),
    "van_der_pol_slow": Reference(
        van_der_pol_slow, np.array([2.0, 0]), 2000.0,
        np.array([0.1706167732170483e1, -0.8928097010247975e-3]), "Radau", 1.0, 1e-9,
    ),
    "oregonator": Reference(
        oregonator, np.array([1.0, 2, 3]), 360.0,
        np.array([0.1000814870318523e1, 0.1228178521549917e4, 0.1320554942846706e3]),
        "Radau", 1.0, 1e-9,
    ),
    "brusselator_line": Reference(
        brusselator_line, _line_start(20), 10.0, None, "Radau",
    ),
    "brusselator": Reference(
        brusselator, np.array([1.5, 3.0]), 20.0,
        np.array([0.4986370712683478, 4.596780349452011]), "DOP853",
    ),
    "pleiades": Reference(
        pleiades, _pleiades_start(), 3.0,
        np.array([
            0.3706139143970502, 0.3237284092057233e1, -0.3222559032418324e1,
            0.6597091455775310, 0.3425581707156584, 0.1562172101400631e1,
            -0.7003092922212495, -0.3943437585517392e1, -0.3271380973972550e1,
            0.5225081843456543e1, -0.2590612434977470e1, 0.1198213693392275e1,
            -0.2429682344935824, 0.1091449240428980e1, 0.3417003806314313e1,
            0.1354584501625501e1, -0.2590065597810775e1, 0.2025053734714242e1,
            -0.1155815100160448e1, -0.8072988170223021, 0.5952396354208710,
            -0.3741244961234010e1, 0.3773459685750630, 0.9386858869551073,
            0.3667922227200571, -0.3474046353808490, 0.2344915448180937e1,
            -0.1947020434263292e1,
        ]),
        # Two stars pass close to each other, which magnifies SciPy's errors a hundred times.
        "DOP853", 1.0, 1e-13,
    ),
}
# fmt: on


@functools.cache
def scipy_end(name):
    """y(t1) by SciPy. The field is compiled, so x64 must be on."""
    problem = REFERENCES[name]
    # Compiled as a user's is: by the tests' own flags Robertson's rates do not add up to zero, and
    # the Newton iterations of Radau never end.
    usual = {"xla_cpu_use_fusion_emitters": True} if has_older_emitters() else {}
    rate = jax.jit(lambda t, y: problem.field(t, y, None), compiler_options=usual)
    sol = scipy.integrate.solve_ivp(
        lambda t, y: np.asarray(rate(t, y)), (0.0, problem.t1), problem.y0,
        method=problem.scipy_method, rtol=problem.scipy_rtol,
        atol=1e-4 * problem.scipy_rtol * problem.floor,
    )  # fmt: skip
    assert sol.success, sol.message
    return sol.y[:, -1]


def end_of(name):
    published = REFERENCES[name].end
    return scipy_end(name) if published is None else published
