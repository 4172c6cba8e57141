"""A solver that changes between an explicit and an implicit scheme as the problem asks."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import tree
from ..shapes import Args, Count, Flag, Scalar, State, Time
from .opaque import stages_seen
from .stepper import explicit_runge_kutta


class SwitchState(eqx.Module):
    """What `AutoSwitch` carries from step to step."""

    is_stiff: Flag  # which solver takes the next step
    just_switched: Flag
    in_a_row: Count  # steps that spoke for the other solver
    states: tuple[Any, Any]  # of the two solvers
    num_nonstiff: Count
    num_stiff: Count


class AutoSwitch(diffrax.AbstractAdaptiveSolver, diffrax.AbstractImplicitSolver):
    r"""Two solvers of the same order, one for where the problem is stiff.

    After each accepted step the stiffness is estimated from two stages at the same time,
    $h \rho = h \lVert k_i - k_j \rVert / \lVert g_i - g_j \rVert$, and compared with the extent
    $s$ of the explicit scheme's stability region on the negative real axis. `patience[0]` steps in
    a row with $h \rho > \text{threshold} \cdot s$ change to the stiff solver, `patience[1]` steps
    in a row below it back to the other. So it does not flutter.

    `sol.stats` says how many accepted steps each took: `num_nonstiff_steps`, `num_stiff_steps`.
    Under `jax.vmap` both solvers run for every lane (a conditional becomes a selection). Dense
    output and `ts` are interpolated by a cubic through the values and slopes at the ends.

    Args:
        nonstiff: an explicit Runge-Kutta solver with two stages at the end of the step.
        stiff: an implicit one with the same order of its error estimate.
        threshold: what part of the stability extent counts as stiff.
        patience: steps in a row that it takes to change to the stiff and to the nonstiff solver.

    Raises:
        ValueError: for solvers that do not fit each other, or have no stiffness estimate.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        def van_der_pol(t, y, mu):
            return jnp.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])

        sol = nk.diffeqsolve(
            diffrax.ODETerm(van_der_pol), nk.AutoSwitch(), 0.0, 200.0, None, jnp.array([2.0, 0.0]),
            100.0, stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-5),
        )
        print(sol.stats["num_nonstiff_steps"], sol.stats["num_stiff_steps"])
        ```

    The way back is slow by default: from the last two stages of an implicit step, which lie along
    the slow directions, stiffness is underestimated (on Robertson's problem a patience of 3 makes
    it change every few steps).

    References: Petzold (1983), *Automatic selection of methods for solving stiff and nonstiff
    systems of ODEs*; OrdinaryDiffEq.jl's `AutoSwitch`.
    """

    nonstiff: Any = diffrax.Tsit5()
    stiff: Any = diffrax.Kvaerno5()
    threshold: float = 0.9
    patience: tuple[int, int] = (10, 30)

    interpolation_cls = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k

    def __check_init__(self):
        if explicit_runge_kutta(self.nonstiff) is None:
            raise ValueError(
                "`AutoSwitch(nonstiff=...)` must be an explicit Runge-Kutta solver such as "
                f"`diffrax.Tsit5()`, but got {self.nonstiff!r}."
            )
        for name in ("nonstiff", "stiff"):
            tableau = getattr(getattr(self, name), "tableau", None)
            ends = isinstance(tableau, diffrax.ButcherTableau) and tuple(tableau.c[-2:])
            if ends != (1.0, 1.0):
                raise ValueError(
                    f"`AutoSwitch({name}=...)` needs a solver with two stages at the end of its "
                    f"step, such as `diffrax.{'Tsit5' if name == 'nonstiff' else 'Kvaerno5'}()`, "
                    f"but got `{type(getattr(self, name)).__name__}`."
                )
        orders = self.nonstiff.error_order(None), self.stiff.error_order(None)
        if orders[0] != orders[1]:
            raise ValueError(
                "The two solvers of `AutoSwitch` must have error estimates of one order, since "
                f"they share a step size controller, but have {orders[0]} and {orders[1]}."
            )

    term_structure = property(lambda self: self.stiff.term_structure)
    root_finder = property(lambda self: self.stiff.root_finder)  # pyright: ignore
    root_find_max_steps = property(lambda self: self.stiff.root_find_max_steps)  # pyright: ignore

    def order(self, terms: Any) -> Any:
        return min(self.nonstiff.order(terms), self.stiff.order(terms))

    def error_order(self, terms: Any) -> Any:
        return self.stiff.error_order(terms)

    def func(self, terms: Any, t0: Time, y0: State, args: Args) -> Any:
        return terms.vf(t0, y0, args)

    def init(self, terms: Any, t0: Time, t1: Time, y0: State, args: Args) -> SwitchState:
        states = [solver.init(terms, t0, t1, y0, args) for solver in (self.nonstiff, self.stiff)]
        no, zero = jnp.array(False), jnp.array(0)
        return SwitchState(no, no, zero, (states[0], states[1]), zero, zero)

    def step(
        self, terms: Any, t0: Time, t1: Time, y0: State, args: Args, solver_state: SwitchState,
        made_jump: Any,
    ) -> tuple:  # fmt: skip
        now = solver_state
        # A solver that takes over evaluates its first stage, as after a jump.
        jumped = now.just_switched | made_jump

        def run(which: int) -> tuple:
            solver = (self.nonstiff, self.stiff)[which]
            y1, error, info, state, result = solver.step(
                terms, t0, t1, y0, args, now.states[which], jumped
            )
            states = (state, now.states[1]) if which == 0 else (now.states[0], state)
            ends = jax.tree.map(lambda k: jnp.stack([k[0], k[-1]]), info["k"])
            ratio = _step_times_rate(solver.tableau, t0, t1, y0, info)
            return y1, error, ends, states, result, ratio

        out = lax.cond(now.is_stiff, lambda: run(1), lambda: run(0))
        y1, error, k, states, result, ratio = out
        return y1, error, dict(y0=y0, y1=y1, k=k), self._next(now, states, ratio), result

    def _next(self, now: SwitchState, states: tuple, ratio: Scalar) -> SwitchState:
        looks_stiff = ratio > self.threshold * stability_extent(self.nonstiff.tableau)
        in_a_row = jnp.where(looks_stiff != now.is_stiff, now.in_a_row + 1, 0)
        patience = jnp.where(now.is_stiff, self.patience[1], self.patience[0])
        switch = in_a_row >= patience
        return SwitchState(
            is_stiff=now.is_stiff ^ switch,
            just_switched=switch,
            in_a_row=jnp.where(switch, 0, in_a_row),
            states=states,
            num_nonstiff=now.num_nonstiff + jnp.where(now.is_stiff, 0, 1),
            num_stiff=now.num_stiff + jnp.where(now.is_stiff, 1, 0),
        )

    def statistics(self, solver_state: SwitchState) -> dict[str, Any]:
        """What `sol.stats` says of the last state."""
        return {
            "num_nonstiff_steps": solver_state.num_nonstiff,
            "num_stiff_steps": solver_state.num_stiff,
        }


def stability_extent(tableau: diffrax.ButcherTableau) -> float:
    """The first z > 0 at which the explicit scheme amplifies y' = -z y, to two digits."""
    number = tableau.num_stages
    a, ones = np.zeros((number, number)), np.ones(number)
    for i, row in enumerate(tableau.a_lower):
        a[i + 1, : i + 1] = row
    growth = lambda z: 1 - z * (tableau.b_sol @ np.linalg.solve(np.eye(number) + z * a, ones))
    zs = np.arange(0.01, 100.0, 0.01)
    unstable = (z for z in zs if abs(growth(z)) > 1 + 1e-9)
    return float(next(unstable, zs[-1]))


def _step_times_rate(
    tableau: diffrax.ButcherTableau, t0: Time, t1: Time, y0: State, info: Any
) -> Scalar:
    """h rho from the last two stages; not differentiated."""
    seen = lax.stop_gradient(stages_seen(tableau, t0, t1, y0, info))
    assert seen.rates is not None and seen.stages is not None  # two stages at the end
    rise = tree.subtract(seen.rates[-1], seen.rates[-2])
    run = tree.subtract(seen.stages[-1], seen.stages[-2])
    length = lambda x: jnp.sqrt(sum(jnp.sum(jnp.abs(leaf) ** 2) for leaf in jax.tree.leaves(x)))
    moving = length(run) > 0
    rho = jnp.where(moving, length(rise), 0) / jnp.where(moving, length(run), 1)
    return rho * (t1 - t0).astype(rho.dtype)
