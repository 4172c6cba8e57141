"""A solver that changes between an explicit and an implicit scheme as the problem asks."""

import dataclasses
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ... import tree
from ...shapes import Args, Count, Flag, Scalar, State, Time
from .inherited import is_explicit_runge_kutta


class SwitchState(eqx.Module):
    """What `AutoSwitch` carries from step to step."""

    is_stiff: Flag  # which solver takes the next step
    just_switched: Flag
    lead: Count  # of the steps that spoke for the other solver over those that spoke against it
    direction: State  # along which the field changes most, as far as is known
    states: tuple[Any, Any]  # of the two solvers
    num_nonstiff: Count
    num_stiff: Count
    num_switches: Count


class AutoSwitch(diffrax.AbstractAdaptiveSolver, diffrax.AbstractImplicitSolver):
    r"""Two solvers of the same order, one for where the problem is stiff.

    After each accepted step the spectral radius $\rho$ of the Jacobian $J$ at its end is estimated
    by one turn of the power method: $\rho = \lVert J v \rVert / \lVert v \rVert$, and the next
    step goes on with $J v$. Then $h \rho$ is compared with the extent $s$ of the explicit scheme's
    stability region on the negative real axis. A step with $h \rho > \text{threshold} \cdot s$
    speaks for the stiff solver, any other for the explicit one. The other solver takes over once
    the steps that speak for it lead those against it by `patience` (a lead below nil counts as
    nil): after so many in a row, or later if only most of them do. A minority never does, so it
    does not flutter.

    `sol.stats` says how many accepted steps each took, `num_nonstiff_steps` and `num_stiff_steps`,
    and how often they changed, `num_switches`. An attempted step costs one derivative of the field
    along a direction on top of the solver's own evaluations. Under `jax.vmap` both solvers run for
    every lane (a conditional becomes a selection). Dense output and `ts` are interpolated by a
    cubic through the values and slopes at the ends.

    Args:
        nonstiff: an explicit Runge-Kutta solver whose last stage is the first of the next step.
        stiff: an implicit one of that kind, with the same order of its error estimate.
        threshold: what part of the stability extent counts as stiff, above 0. Where a problem is
            stiff the error of an explicit step grows with $h \rho$, so that tight tolerances stop
            it well before stability does; where it is not, $h \rho$ is below 1.7 for Tsit5 at
            `rtol=1e-3`, and less at tighter ones.
        patience: the leads that change to the stiff and to the nonstiff solver, at least 1 each.

    Raises:
        ValueError: for solvers that do not fit each other, and for a threshold or patience out of
            range.

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

    References: Petzold (1983), *Automatic selection of methods for solving stiff and nonstiff
    systems of ODEs*; OrdinaryDiffEq.jl's `AutoSwitch`.
    """

    nonstiff: Any = diffrax.Tsit5()
    stiff: Any = diffrax.Kvaerno5()
    threshold: float = 0.5
    patience: tuple[int, int] = (10, 30)

    interpolation_cls = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k

    def __check_init__(self):
        if not is_explicit_runge_kutta(self.nonstiff):
            raise ValueError(
                "`AutoSwitch(nonstiff=...)` must be an explicit Runge-Kutta solver such as "
                f"`diffrax.Tsit5()`, but got {self.nonstiff!r}."
            )
        for name in ("nonstiff", "stiff"):
            tableau = getattr(getattr(self, name), "tableau", None)
            if not (isinstance(tableau, diffrax.ButcherTableau) and tableau.fsal):
                raise ValueError(
                    f"`AutoSwitch({name}=...)` needs a solver whose last stage is the first of the "
                    f"next step, such as "
                    f"`diffrax.{'Tsit5' if name == 'nonstiff' else 'Kvaerno5'}()`, "
                    f"but got `{type(getattr(self, name)).__name__}`."
                )
        orders = self.nonstiff.error_order(None), self.stiff.error_order(None)
        if orders[0] != orders[1]:
            raise ValueError(
                "The two solvers of `AutoSwitch` must have error estimates of one order, since "
                f"they share a step size controller, but have {orders[0]} and {orders[1]}."
            )
        if not self.threshold > 0 or min(self.patience) < 1:
            raise ValueError(
                "`AutoSwitch` needs a `threshold` above 0 and a `patience` of two numbers of at "
                f"least 1, but got {self.threshold!r} and {self.patience!r}."
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
        pair = states[0], states[1]
        return SwitchState(no, no, zero, _chirp(y0), pair, zero, zero, zero)

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
            return y1, error, ends, states, result

        y1, error, k, states, result = lax.cond(now.is_stiff, lambda: run(1), lambda: run(0))
        direction, h_rho = _power_method(terms, t0, t1, y1, args, now.direction)
        after = self._next(now, states, direction, h_rho)
        return y1, error, dict(y0=y0, y1=y1, k=k), after, result

    def _next(
        self, now: SwitchState, states: tuple, direction: State, h_rho: Scalar
    ) -> SwitchState:
        looks_stiff = h_rho > self.threshold * stability_extent(self.nonstiff.tableau)
        # A majority and not a row: at the edge of stability some estimates fall below it, and a
        # row has to begin anew each time.
        lead = jnp.maximum(now.lead + jnp.where(looks_stiff != now.is_stiff, 1, -1), 0)
        switch = lead >= jnp.where(now.is_stiff, self.patience[1], self.patience[0])
        return SwitchState(
            is_stiff=now.is_stiff ^ switch,
            just_switched=switch,
            lead=jnp.where(switch, 0, lead),
            direction=direction,
            states=states,
            num_nonstiff=now.num_nonstiff + jnp.where(now.is_stiff, 0, 1),
            num_stiff=now.num_stiff + jnp.where(now.is_stiff, 1, 0),
            num_switches=now.num_switches + jnp.where(switch, 1, 0),
        )

    def begun_again(self, before: SwitchState, state: SwitchState) -> SwitchState:
        """The first `state` of a solve that goes on elsewhere: it stays with its solver, and counts
        on.
        """
        counts = ("is_stiff", "num_nonstiff", "num_stiff", "num_switches")
        kept = {name: getattr(before, name) for name in counts}
        return dataclasses.replace(state, just_switched=before.is_stiff, **kept)

    def statistics(self, solver_state: SwitchState) -> dict[str, Any]:
        """What `sol.stats` says of the last state."""
        return {
            "num_nonstiff_steps": solver_state.num_nonstiff,
            "num_stiff_steps": solver_state.num_stiff,
            "num_switches": solver_state.num_switches,
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


def _power_method(
    terms: Any, t0: Time, t1: Time, y: State, args: Args, direction: State
) -> tuple[State, Scalar]:
    """The direction for the next step, and h rho of this one; not differentiated.

    Not rho from two stages of the step, as in `StepStiffness`, at no evaluation: they differ along
    the fast directions only while stability limits the step, and by no more than the tolerance.
    At tight ones the slow directions drown them (Robertson at 1e-8: 0.3 where h rho is 3.5).
    """
    given = (terms, t0, t1, y, args, direction)
    held = jax.tree.map(lambda x: lax.stop_gradient(x) if eqx.is_array(x) else x, given)
    terms, t0, t1, y, args, direction = held
    increment = lambda y: terms.vf_prod(t1, y, args, terms.contr(t0, t1))
    _, turned = jax.jvp(increment, (y,), (direction,))  # h J v
    turned = jax.tree.map(lambda x, v: x.astype(v.dtype), turned, direction)
    before, after = _length(direction), _length(turned)
    # Where J v is nil, or the field has no derivative, the old direction stays.
    known = jnp.isfinite(after) & (after > 0) & (before > 0)
    safe = lambda x: jnp.where(known, x, 1)
    onwards = tree.add(tree.multiply(1 / safe(after), turned), _seed(y))
    return tree.where(known, onwards, direction), jnp.where(known, after, 0) / safe(before)


def _seed(y: State) -> State:
    """A little of every component. Where parts of the state do not act on each other, the method
    keeps nothing of those that are slow now and may be the fast ones later.
    """
    seed = jax.tree.map(lambda y, c: jnp.abs(y).astype(y.dtype) * c, y, _chirp(y))
    length = _length(seed)
    share = jnp.finfo(length.dtype).eps / jnp.where(length > 0, length, 1)
    return tree.multiply(share, seed)


def _chirp(y: State) -> State:
    """A vector with every direction in it: along a grid, all frequencies."""

    def of_leaf(leaf: Any) -> Any:
        index = jnp.arange(leaf.size).reshape(leaf.shape)
        return jnp.cos((index * index % 1021).astype(tree.real_dtype(leaf))).astype(leaf.dtype)

    return jax.tree.map(of_leaf, y)


def _length(x: State) -> Scalar:
    dtype = tree.real_dtype(x)
    squares = [jnp.sum(jnp.abs(leaf) ** 2).astype(dtype) for leaf in jax.tree.leaves(x)]
    return jnp.sqrt(sum(squares, start=jnp.zeros((), dtype)))
