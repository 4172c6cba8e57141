"""The stiffness estimate of a step as a cost."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from ..integrate import AbstractStepCost, Step
from ..shapes import Scalar
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

    A step along which the two stages coincide (a field at rest) counts nothing, and has derivative
    zero.

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
    rise = rms(difference(step.rates[j], step.rates[i]), step)
    run = rms(difference(step.stages[j], step.stages[i]), step)
    moving = run > 0
    return jnp.where(moving, rise, 0) / jnp.where(moving, run, 1)


def _extent(solver_name: str) -> float:
    if solver_name not in STABILITY:
        raise ValueError(
            f"The extent of the stability region of `{solver_name}` is not known. "
            f"Use `form='rho'`, or one of {', '.join(STABILITY)}."
        )
    return STABILITY[solver_name]
