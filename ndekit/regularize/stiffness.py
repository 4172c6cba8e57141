"""The stiffness estimate of a step as a cost."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from .. import tree
from ..integrate import AbstractStepCost, Step
from ..integrate.control.norms import rms_norm
from ..shapes import Scalar, State
from .error import rms

# Extent of the stability region along the negative real axis.
STABILITY = {
    "Tsit5": 3.5068,  # Tsitouras 2011; OrdinaryDiffEq.jl alg_utils.jl
    "Dopri5": 3.3066,  # Hairer, Wanner II, IV.2; OrdinaryDiffEq.jl alg_utils.jl
    "Dopri8": 5.167,  # from the stability polynomial of diffrax's tableau (Prince and Dormand 8(7))
    # Of the drift, where the solver is for SDEs: from the polynomial of its deterministic part.
    "SOSRI": 9.839,
    "Euler": 2.0,
    "Heun": 2.0,
    "Midpoint": 2.0,
    "Ralston": 2.0,
}
WITH_PAIR = ("Tsit5", "Dopri5", "Dopri8")

# How many times its rounding a difference must be to count. Measured in float32 against float64 on
# the same grid, over 14 fields, the three solvers and steps from 1e-7 to 1: from 16 times on a
# reading is right to 4 %, at 8 to 22 %, and below 4 it is mostly many times too large.
ROUNDING = 8.0


class StepStiffness(AbstractStepCost):
    r"""Shampine's estimate of the dominant eigenvalue, $\rho = \lVert k_j - k_i \rVert / \lVert g_j
    - g_i \rVert$.

    $i, j$ are the last two stages, if they share their node: then $k_j - k_i = f(t, g_j) - f(t,
    g_i)$ is the Jacobian along $g_j - g_i$, at no further evaluation. On $y' = -\lambda y$ it is
    exactly $|\lambda|$. Solvers with such a pair: `Tsit5`, `Dopri5`, `Dopri8`. Of an SDE, by any
    solver, the drift is looked at: $\lVert f(t_1, y_1) - f(t_1, y_0) \rVert / \lVert y_1 - y_0
    \rVert$, at two evaluations of it.

    Args:
        form: `"rho"` ($\rho$, in 1/time), `"rho_h"` ($\rho h$, without unit), or `"relative"`
            ($\rho$ divided by the extent of the solver's stability region on the negative real
            axis, as the published code has it).

    On a step so short that the stages differ by little more than their rounding the quotient is
    noise, in float32 often ten times the truth. So a reading has the weight

    $$ w = \min(1, \max(0, \tfrac{s}{8} - 1)), \quad s = \min\Bigl(
    \frac{\lVert g_j - g_i \rVert}{\varepsilon \lVert\, |g_j| + |h k_j| \,\rVert},
    \frac{\lVert k_j - k_i \rVert}{\varepsilon \lVert k_j \rVert}\Bigr), $$

    with $\varepsilon$ the spacing of the dtype's numbers at one, and the lower norms over the
    components that differ at all. Differences of 16 roundings and more count in full, those of 8
    and fewer do not, nor does their derivative; $w$ itself is held constant. A step that does not
    count is a zero in the sum, in the maximum and also in the mean, which divides by all accepted
    steps. That is so where the stages coincide (a field at rest), too.

    Raises:
        ValueError: for another form; when solving, if the solver has no pair of stages at one node.

    Example:
        ```python
        import ndekit as nk

        costs = {"stiffness": nk.EveryStep(nk.StepStiffness("relative"), "max")}
        ```

    Reference: Shampine 1977; Hairer and Wanner, *Solving ODEs II*, IV.2; Pal et al., ICML 2021
    (SRNODE).
    """

    form: Literal["rho", "rho_h", "relative"] = eqx.field(static=True, default="rho")

    def __check_init__(self):
        if self.form not in ("rho", "rho_h", "relative"):
            raise ValueError(f"`form` must be 'rho', 'rho_h' or 'relative', but got {self.form!r}.")

    def of_step(self, step: Step) -> Scalar:
        rho = stiffness_of(step)
        if self.form == "rho_h":
            return rho * step.h
        if self.form == "relative":
            return rho / _extent(step.solver_name)
        return rho


def stiffness_of(step: Step) -> Scalar:
    pair = step.stiff_pair
    if pair is None or step.rates is None or step.stages is None:
        raise ValueError(
            f"`StepStiffness` needs two stages at one node, which `{step.solver_name}` does not "
            f"have. Use one of {', '.join(WITH_PAIR)}."
        )
    i, j = pair
    difference = lambda a, b: jax.tree.map(jnp.subtract, a, b)
    rise = difference(step.rates[j], step.rates[i])
    run = difference(step.stages[j], step.stages[i])
    weight = weight_of_reading(rise, run, step.rates[j], step.stages[j], step.h)
    counts = (weight > 0) & (rms(run, step) > 0)
    rho = jnp.where(counts, rms(rise, step), 0) / jnp.where(counts, rms(run, step), 1)
    return weight * rho


def weight_of_reading(rise: State, run: State, rate: State, stage: State, h: Scalar) -> Scalar:
    """How far two differences, of rates and of stages, stand above the rounding of `rate` and of
    `stage`: the weight w of `StepStiffness`.
    """
    rise, run, rate, stage, h = lax.stop_gradient((rise, run, rate, stage, h))
    moved = tree.multiply(h, jax.tree.map(jnp.abs, rate))
    reach = jax.tree.map(lambda g, m: jnp.abs(g) + m, stage, moved)
    times = jnp.minimum(_roundings(run, reach), _roundings(rise, rate)).astype(h.dtype)
    return jnp.clip(times / ROUNDING - 1, 0, 1)


def _roundings(difference: State, size: State) -> Scalar:
    """A difference in units of the rounding of numbers of that size; infinite where all are equal.

    Components that are equal add none: a large constant beside a small state does not hide it.
    """
    spacing = lambda x: float(jnp.finfo(x.dtype).eps)
    coarsest = max(map(spacing, jax.tree.leaves(difference)), default=1.0)
    # Relative to the coarsest: squares of numbers with the spacing in them would vanish early.
    noise = jax.tree.map(
        lambda d, x: jnp.where(d != 0, spacing(d) / coarsest * jnp.abs(x), 0), difference, size
    )
    length, unit = rms_norm(difference), jnp.asarray(rms_norm(noise))
    return jnp.where(unit > 0, length / jnp.where(unit > 0, unit, 1) / coarsest, jnp.inf)


def _extent(solver_name: str) -> float:
    if solver_name not in STABILITY:
        raise ValueError(
            f"The extent of the stability region of `{solver_name}` is not known. "
            f"Use `form='rho'`, or one of {', '.join(STABILITY)}."
        )
    return STABILITY[solver_name]
