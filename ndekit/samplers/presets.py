"""Samplers of the literature, each a solver, a variable and a grid."""

from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..integrate import PNDM, DPMSolver, ExponentialAB, UniPC, VariableAB
from ..numbers import positive, real
from ..shapes import Time
from .grids import Grid, Spacing
from .probability_flow import ProbabilityFlow
from .sampler import Sampler
from .variables import Variable

Steps = int | Grid | Float[Array, " times"]


def ddim(steps: Steps, spacing: Spacing = "t", *, eta: float = 0.0, **options: Any) -> Sampler:
    r"""DDIM: Euler's method in $\rho$, or in $\sigma$, of order 1, one evaluation a step.

    The steps in the two are the same. This one is in $\rho$, so that it may start from noise alone;
    the last step may end at data alone.

    Args:
        steps: how many steps, by `spacing`; or a [`ndekit.samplers.Grid`][], or rising times.
        spacing: of a number of steps.
        eta: above 0 an SDE of this noise by Euler and Maruyama's method. (DDIM's own $\eta$ is
            another discretisation of the same equation.)
        options: `denoise`, `gamma` and `max_steps` of [`ndekit.samplers.Sampler`][].

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        path = nk.paths.VP()
        flow = nk.samplers.ProbabilityFlow(
            lambda t, x, args: path.m(t) * x, path, predicts="noise"
        )
        x, sol = nk.samplers.ddim(50)(flow, jnp.ones(2), 0.0, 1.0)
        assert jnp.allclose(x, 1.0, atol=0.1) and sol.stats["num_evals"] == 50
        ```

    Reference: Song, Meng and Ermon (2021), "Denoising diffusion implicit models", arXiv 2010.02502.
    """
    grid = _grid(steps, spacing)
    return Sampler(diffrax.Euler(), "rho", grid, eta=eta, **options)


def plms(steps: Steps, spacing: Spacing = "t", *, order: int = 4, **options: Any) -> Sampler:
    r"""PNDM as published: Adams-Bashforth's weights for equal steps of time, applied in $\sigma$.

    With its first steps: `order=4` is F-PNDM, `steps + 9` evaluations; 2 is S-PNDM, `steps + 1`.
    Their inner stages are at the middle of the step's times. See [`ndekit.PNDM`][].

    Args:
        steps, spacing, options: as for [`ndekit.samplers.ddim`][].
        order: 2 or 4.

    Reference: Liu et al. (2022), arXiv 2202.09778.
    """
    return Sampler(_PNDMAlongTimes(order), "sigma", _grid(steps, spacing), **options)


def dpm_solver_2(steps: Steps, spacing: Spacing = "log_sigma", **options: Any) -> Sampler:
    """DPM-Solver-2: two evaluations a step. See [`ndekit.DPMSolver`][].

    Args:
        steps, spacing, options: as for [`ndekit.samplers.ddim`][].

    Reference: Lu et al. (2022), arXiv 2206.00927.
    """
    return Sampler(DPMSolver(2), "sigma", _grid(steps, spacing), **options)


def dpm_solver_3(steps: Steps, spacing: Spacing = "log_sigma", **options: Any) -> Sampler:
    """DPM-Solver-3: three evaluations a step. See [`ndekit.DPMSolver`][].

    Args:
        steps, spacing, options: as for [`ndekit.samplers.ddim`][].

    Reference: Lu et al. (2022), arXiv 2206.00927.
    """
    return Sampler(DPMSolver(3), "sigma", _grid(steps, spacing), **options)


def dpmpp_2m(steps: Steps, spacing: Spacing = "log_sigma", **options: Any) -> Sampler:
    r"""DPM-Solver++(2M), in $\rho$: order 2 at one evaluation a step.

    The solver is [`ndekit.UniPC`][] of order 2 without its corrector, the same method; it evaluates
    once at the last point, too, which nothing uses.

    Args:
        steps, spacing, options: as for [`ndekit.samplers.ddim`][].

    Reference: Lu et al. (2022), arXiv 2211.01095.
    """
    return Sampler(UniPC(2, corrector=False), "rho", _grid(steps, spacing), **options)


def dpmpp_3m(steps: Steps, spacing: Spacing = "log_sigma", **options: Any) -> Sampler:
    r"""DPM-Solver++(3M) with exact weights, in $\rho$: order 3 at one evaluation a step.

    See [`ndekit.ExponentialAB`][]; the first steps are of orders 1 and 2.

    Args:
        steps, spacing, options: as for [`ndekit.samplers.ddim`][].

    Reference: Lu et al. (2022), arXiv 2211.01095.
    """
    return Sampler(ExponentialAB(3, "euler"), "rho", _grid(steps, spacing), **options)


def unipc(
    steps: Steps, spacing: Spacing = "log_sigma", *, order: int = 2, **options: Any
) -> Sampler:
    r"""UniPC in $\rho$: a predictor of this order, corrected to the next, one evaluation a step.

    Args:
        steps, spacing, options: as for [`ndekit.samplers.ddim`][].
        order: of the predictor, 1 to 4.

    Reference: Zhao et al. (2023), arXiv 2302.04867.
    """
    return Sampler(UniPC(order), "rho", _grid(steps, spacing), **options)


def adams(
    steps: Steps, spacing: Spacing = "log_sigma", *, order: int = 4, **options: Any
) -> Sampler:
    r"""Adams-Bashforth in $\sigma$ with weights for the steps as they are: what PNDM approximates.

    Args:
        steps, spacing, options: as for [`ndekit.samplers.ddim`][].
        order: 1 to 4. The first steps are of lower orders; nothing else is evaluated.

    Reference: Zhang and Chen (2022), "Fast sampling of diffusion models with exponential
    integrator", arXiv 2204.13902.
    """
    return Sampler(VariableAB(order, "euler"), "sigma", _grid(steps, spacing), **options)


def edm_heun(steps: Steps, *, power: float = 7.0, **options: Any) -> Sampler:
    r"""The deterministic sampler of EDM: Heun's method in $\sigma$ and a last step to $\sigma = 0$.

    `steps` of Heun's method between levels of noise with equal steps of $\sigma^{1/7}$, two
    evaluations each; then one of Euler's, `denoise`. The authors call that `steps + 1` steps.

    Args:
        steps, options: as for [`ndekit.samplers.ddim`][].
        power: of the grid.

    Reference: Karras et al. (2022), "Elucidating the design space of diffusion-based generative
    models", arXiv 2206.00364, algorithm 1.
    """
    positive("power", power)
    grid = _grid(steps, "edm", power=power)
    return Sampler(diffrax.Heun(), "sigma", grid, **{"denoise": True, **options})


def adaptive(
    rtol: float = 1e-3,
    atol: float = 1e-3,
    solver: diffrax.AbstractSolver = diffrax.Tsit5(),
    variable: Variable = "angle",
    *,
    dt0: Time | None = None,
    **options: Any,
) -> Sampler:
    r"""Steps by the solver's own estimate of its error.

    Args:
        rtol, atol: tolerances of the variable's state: of size 1 all along in `"angle"`, for data
            of unit variance; $x / a$, in units of the data, in `"sigma"` and `"log_sigma"`.
            Tolerances in two variables cannot be compared.
        solver: any diffrax solver with an error estimate; with `eta` above 0 one for SDEs, such as
            `diffrax.Heun()`.
        variable: in the angle, and in $\rho$, the fewest evaluations were needed for the same error
            where that was measured, and the angle has both ends.
        dt0: the first step, a length in the variable.
        options: as for [`ndekit.samplers.ddim`][].

    Raises:
        ValueError: for negative or infinite tolerances, or an SDE and a solver for ODEs.
    """
    real("rtol", rtol, least=0.0)
    real("atol", atol, least=0.0)
    controller = diffrax.PIDController(rtol=rtol, atol=atol)
    return Sampler(solver, variable, controller=controller, dt0=dt0, **options)


class _PNDMAlongTimes(eqx.Module):
    """PNDM whose first steps have their inner stages at the middle of the path's times."""

    order: int = eqx.field(static=True)

    def __check_init__(self):
        PNDM(self.order)

    def __call__(self, flow: ProbabilityFlow) -> PNDM:
        return PNDM(self.order, _MiddleOfTimes(flow))


class _MiddleOfTimes(eqx.Module):
    flow: ProbabilityFlow

    def __call__(self, u0: Time, u1: Time) -> Array:
        # A solver's time grows: where the variable falls it is its negative.
        sign = jnp.sign(u0)
        t0, t1 = (self.flow.time(jnp.abs(u)) for u in (u0, u1))
        return sign * self.flow.at(t0 + (t1 - t0) / 2)


def _grid(steps: Steps, spacing: Spacing, **more: Any) -> Any:
    """A grid of a number of steps; `Sampler` looks at what is none."""
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer):
        return steps
    return Grid(int(steps), spacing, **more)
