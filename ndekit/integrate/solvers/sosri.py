"""SOSRI: adaptive steps of strong order 1.5 for Ito equations with diagonal noise."""

from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
import lineax as lx
from diffrax import RESULTS

from ... import tree
from ...shapes import Args, State, Time

# Of the drift's arguments: by drift and noise. Of the diffusion's: the same. Then the nodes, and
# the weights of the solution: of f; of g by W, I11 / sqrt(h), I10 / h, I111 / h.
_A0 = (
    (),
    (-0.04199224421316468,),
    (2.842612915017106, -2.0527723684000727),
    (4.338237071435815, -2.8895936137439793, 2.3017575594644466),
)
_B0 = (
    (),
    (-0.21641093549612528,),
    (1.5336352863679572, 0.26066223492647056),
    (-1.0536037558179159, 1.7015284721089472, -0.20725685784180017),
)
_A1 = (
    (),
    (0.26204282091330466,),
    (0.20903646383505375, -0.1502377115150361),
    (0.05836595312746999, 0.6149440396332373, 0.08535117634046772),
)
_B1 = (
    (),
    (-0.5119011827621657,),
    (2.67767339866713, -4.9395031322250995),
    (0.15580956238299215, 3.2361551006624674, -1.4223118283355949),
)
_C0 = (0.0, -0.04199224421316468, 0.7898405466170333, 3.7504010171562823)
_C1 = (0.0, 0.26204282091330466, 0.05879875232001766, 0.758661169101175)
_ALPHA = (1.140099274172029, -0.6401334255743456, 0.4736296532772559, 0.026404498125060714)
_BETA = (
    (-1.8453464565104432, 2.688764531100726, -0.2523866501071323, 0.40896857551684956),
    (0.4969658141589478, -0.5771202869753592, -0.12919702470322217, 0.2093514975196336),
    (2.8453464565104425, -2.688764531100725, 0.2523866501071322, -0.40896857551684945),
    (0.11522663875443433, -0.57877086147738, 0.2857851028163886, 0.17775911990655704),
)


class SOSRI(diffrax.AbstractItoSolver, diffrax.AbstractAdaptiveSolver):
    r"""A stability-optimised stochastic Runge-Kutta scheme for Ito equations with diagonal noise.

    $$dy = f(t, y)\, dt + g(t, y)\, dW, \qquad g \text{ diagonal, or } W \text{ a scalar}.$$

    Four stages of drift and diffusion, strong order 1.5, deterministic order 3 at most. The error
    estimate is $E_1 + E_2$, with $E_1 = h \sum_i f_i$, a crude bound of what the drift does, and
    $E_2 = \chi_2 \sum_i \beta^3_i g_i + \chi_3 \sum_i \beta^4_i g_i$, where
    $\chi_2 = I_{10} / h = H + W / 2$ and $\chi_3 = (W^3 / h - 3 W) / 6$. It is the solver, and the
    estimate, of Pal et al. (2021) for neural SDEs: steps are limited by how far they go rather than
    by how wrong they are, so tolerances of 0.01 to 0.1 are usual.

    Terms: `diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, path))`, with a
    diffusion that gives a `lineax.DiagonalLinearOperator`, or a scalar path; a path with
    `levy_area=diffrax.SpaceTimeLevyArea`. Where $g_i$ depends on other numbers than $y_i$ the noise
    does not commute, and the strong order is 1/2.

    Raises:
        ValueError: for noise that is not diagonal, or a path without space-time Levy area.

    References: Rackauckas and Nie (2020), "Stability-optimized high order methods and stiffness
    detection for pathwise stiff stochastic differential equations"; Roessler (2010), SIAM J. Numer.
    Anal. 48 (3), for the family. Coefficients as in StochasticDiffEq.jl.
    """

    term_structure: ClassVar = diffrax.MultiTerm[
        tuple[diffrax.AbstractTerm[Any, Any], diffrax.AbstractTerm]
    ]
    term_compatible_contr_kwargs: ClassVar = (dict(), dict(use_levy=True))
    interpolation_cls: ClassVar = diffrax.LocalLinearInterpolation
    minimal_levy_area: ClassVar = diffrax.AbstractSpaceTimeLevyArea

    def order(self, terms: Any) -> int:
        return 2

    def strong_order(self, terms: Any) -> float:
        return 1.5

    def init(self, terms: Any, t0: Time, t1: Time, y0: State, args: Args) -> None:
        return None

    def func(self, terms: Any, t0: Time, y0: State, args: Args) -> Any:
        return terms.vf(t0, y0, args)

    def step(
        self, terms: Any, t0: Time, t1: Time, y0: State, args: Args, solver_state: Any,
        made_jump: Any,
    ) -> tuple:  # fmt: skip
        y1, parts = sosri_step(terms, args, t0, t1, y0)
        return y1, tree.add(*parts), dict(y0=y0, y1=y1), None, RESULTS.successful


def sosri_step(
    terms: Any, args: Args, t0: Time, t1: Time, y0: State
) -> tuple[State, tuple[State, State]]:
    """The end of a step, and the parts of the error estimate by drift and by noise."""
    drift, diffusion = terms.terms
    h, root = t1 - t0, jnp.sqrt(t1 - t0)
    chi = _iterated_integrals(diffusion.contr(t0, t1, use_levy=True), h)
    f, g = [], []
    for a0, b0, c0, a1, b1, c1 in zip(_A0, _B0, _C0, _A1, _B1, _C1, strict=True):
        z = w = y0
        if f:
            by_noise = [diffusion.prod(rate, chi[2]) for rate in g]
            z = tree.add(y0, tree.add(_times(h, a0, f), tree.weighted_sum(b0, by_noise)))
            by_root = [diffusion.prod(rate, _filled(chi[0], root)) for rate in g]
            w = tree.add(y0, tree.add(_times(h, a1, f), tree.weighted_sum(b1, by_root)))
        f.append(drift.vf(t0 + c0 * h, z, args))
        g.append(_diagonal(diffusion.vf(t0 + c1 * h, w, args), chi[0]))
    made = [
        tree.weighted_sum(beta, [diffusion.prod(rate, integral) for rate in g])
        for beta, integral in zip(_BETA, chi, strict=True)
    ]
    error = (_times(h, (1.0,) * 4, f), tree.add(made[2], made[3]))
    change = tree.add(_times(h, _ALPHA, f), tree.add(tree.add(made[0], made[1]), error[1]))
    return tree.add(y0, change), error


def _iterated_integrals(levy: Any, h: Time) -> list[Any]:
    r"""$W$, $I_{11} / \sqrt h$, $I_{10} / h$ and $I_{111} / h$; zero for a step of no length."""
    if not isinstance(levy, diffrax.AbstractSpaceTimeLevyArea):
        raise ValueError(
            "`SOSRI` needs space-time Levy area. Give the path "
            "`levy_area=diffrax.SpaceTimeLevyArea`."
        )
    safe = jnp.where(h > 0, h, 1)
    cast = lambda t, x: t.astype(x.dtype)
    twice = lambda w: (w * w - cast(h, w)) / (2 * jnp.sqrt(cast(safe, w)))
    thrice = lambda w: (w * w / cast(safe, w) - 3 * cast(h / safe, w)) * w / 6
    mixed = jax.tree.map(lambda w, hh: hh + w / 2, levy.W, levy.H)
    return [levy.W, jax.tree.map(twice, levy.W), mixed, jax.tree.map(thrice, levy.W)]


def _diagonal(rate: Any, w: Any) -> Any:
    """The diffusion, if it can be told that each number of the state has noise of its own."""
    scalar = all(x.ndim == 0 for x in jax.tree.leaves(w))
    if scalar or isinstance(rate, lx.DiagonalLinearOperator):
        return rate
    raise ValueError(
        "`SOSRI` is for diagonal noise. Let the diffusion return a "
        "`lineax.DiagonalLinearOperator`, or use a solver for general noise such as "
        "`diffrax.SPaRK()` (Stratonovich)."
    )


def _filled(like: Any, value: Any) -> Any:
    return jax.tree.map(lambda x: jnp.broadcast_to(value.astype(x.dtype), x.shape), like)


def _times(h: Time, weights: tuple[float, ...], rates: list[State]) -> State:
    return tree.multiply(h, tree.weighted_sum(weights, rates))
