"""The ODE of a trained network, in the variable of one's choice."""

import dataclasses
from collections.abc import Callable
from typing import get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from ..choices import check_choice
from ..paths import AbstractGaussianPath, convert
from ..paths.conversion import Prediction
from ..paths.roots import as_time
from ..shapes import Args, Time
from .variables import VARIABLES, AbstractVariable, Turned, Variable


class ProbabilityFlow(eqx.Module):
    r"""The vector field $du \mapsto dy$ of a network and a path, for any solver of ODEs.

    One network, whatever it predicts, is solved in any of these variables. With $x_1$ and $x_0$ the
    data and the noise that it sees in $x$:

    | variable | $u$ | state $y$ | $dy / du$ | may not be 0 |
    |---|---|---|---|---|
    | `"t"` | $t$ | $x$ | the velocity | |
    | `"sigma"` | $\sigma = m / a$, falls | $x / a$ | $x_0$ | $a$ |
    | `"log_sigma"` | $\log \sigma$, falls | $x / a$ | $\sigma x_0$ | $a$, $m$ |
    | `"rho"` | $\rho = a / m$ | $x / m$ | $x_1$ | $m$ |
    | `"log_rho"` | $\log \rho$ ($\lambda$) | $x / m$ | $\rho x_1$ | $a$, $m$ |
    | `"angle"` | $\theta = \arctan \sigma$, falls | $x / \sqrt{a^2 + m^2}$ | see below | |

    Euler's method in $\sigma$ and in $\rho$ is the same, and is DDIM. In $\log \sigma$ the Jacobian
    is $I - \mathrm{Cov}(x_1 | x) / \sigma^2$: never stiff, and the interval is short. Solutions are
    the same for all variables and all paths between the same $\sigma$; steps are not. The angle is
    the time of the trigonometric path, on which data of unit variance keep it: the rate is
    $\cos \theta\, x_0 - \sin \theta\, x_1$, and all is of size 1 from noise alone to data alone.

    Args:
        network: called as `network(t, x, args)` with the time of the path, noise at 0 and data
            at 1. It may say what it predicts, and along which path, as attributes `predicts` and
            `path`; then they must be these.
        path: the path that it was trained on.
        predicts: what it returns: `"data"`, `"noise"`, `"velocity"` or `"score"`.
        variable: of the above.

    Raises:
        ValueError: if `predicts` or `variable` is none of these, or the network says otherwise.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        # Data N(0, 1): the noise that is expected in x.
        path = nk.paths.VP()
        net = lambda t, x, args: path.m(t) * x
        flow = nk.samplers.ProbabilityFlow(net, path, predicts="noise", variable="log_sigma")
        t0, t1 = path.t_of_sigma(80.0), path.t_of_sigma(0.01)
        x0 = jnp.array([1.0, -0.5])
        sol = nk.diffeqsolve(
            diffrax.ODETerm(flow), diffrax.Tsit5(), flow.at(t0), flow.at(t1), None,
            flow.to_state(t0, x0), stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-5),
        )
        # The path keeps the variance: nothing moves.
        assert jnp.allclose(flow.to_point(t1, sol.ys[-1]), x0, atol=1e-3)
        ```

    References: Song et al. (2021), "Score-based generative modeling through stochastic differential
    equations", arXiv 2011.13456; Karras et al. (2022), arXiv 2206.00364; Lu et al. (2022), arXiv
    2206.00927.
    """

    network: Callable
    path: AbstractGaussianPath
    predicts: Prediction = eqx.field(static=True, default="velocity")
    variable: Variable = eqx.field(static=True, default="t")

    def __check_init__(self):
        check_choice("predicts", self.predicts, get_args(Prediction))
        check_choice("variable", self.variable, get_args(Variable))
        check_agreement(self.network, self.predicts, self.path)

    def __call__(
        self, u: Time, y: Float[Array, "*shape"], args: Args = None
    ) -> Float[Array, "*shape"]:
        """The rate of the state `y` by `u`."""
        return self.kind.rate_of(u, self.turned(u, y, args))

    def see(
        self, u: Time, y: Float[Array, "*shape"], args: Args, what: Prediction
    ) -> Float[Array, "*shape"]:
        """What the network says of data, noise, velocity or score at the state `y`.

        Raises:
            ValueError: if it returns another shape than `y` has.
        """
        return self.turned(u, y, args)(what)

    def turned(self, u: Time, y: Array, args: Args) -> Turned:
        """One call of the network, as any prediction."""
        t = self.kind.time(self.path, u)
        x = self.to_point(t, y)
        value = jnp.asarray(self.network(t, x, args))
        if value.shape != x.shape:
            raise ValueError(
                f"A network that predicts {self.predicts!r} must return the shape of `x`, "
                f"{x.shape}, but returned {value.shape}."
            )
        value = value.astype(x.dtype)
        return lambda what: convert(self.path, t, x, value, src=self.predicts, dst=what)

    def at(self, t: Time) -> Float[Array, "*times"]:
        """The variable at a time, or at each of several."""
        return self.kind.at(self.path, t)

    def time(self, u: Time) -> Float[Array, "*times"]:
        """The time at which the variable is `u`."""
        return self.kind.time(self.path, u)

    def to_state(self, t: Time, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The state of a point at time `t`."""
        return x / self.kind.scale(self.path, t).astype(x.dtype)

    def to_point(self, t: Time, y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The point of a state at time `t`."""
        return y * self.kind.scale(self.path, t).astype(y.dtype)

    def by(self, variable: Variable) -> "ProbabilityFlow":
        """The same flow in another variable."""
        return dataclasses.replace(self, variable=variable)

    @property
    def kind(self) -> AbstractVariable:
        return VARIABLES[self.variable]

    def check_end(self, name: str, t: Time) -> None:
        """Pass over an end of a solve, `name`, at which nothing is infinite.

        Raises:
            ValueError: if the variable, the state or the rate is, for a known time and path.
        """
        if self.is_infinite(t):
            raise ValueError(
                f"The variable {self.variable!r}, or its state, is infinite at `{name}` = "
                f"{float(t):g}, where {self.kind.infinite} of {type(self.path).__name__} is 0. "
                f"Use {_REMEDY}, or another variable: 't', 'angle' and 'rho' may start from noise "
                "alone, 't', 'angle' and 'sigma' may end at data alone."
            )
        with jax.ensure_compile_time_eval():
            x = jnp.ones_like(self.path.a(as_time(t)))
            turned = lambda what: convert(self.path, t, x, x, src=self.predicts, dst=what)
            rate = self.kind.rate_of(self.at(t), turned)
            is_finite = jnp.all(jnp.isfinite(rate))
        if not isinstance(is_finite, Tracer) and not is_finite:
            raise ValueError(
                f"The {self.kind.rate} that a prediction of {self.predicts} makes is infinite at "
                f"`{name}` = {float(t):g} of {type(self.path).__name__}. Use {_REMEDY}, or another "
                "variable."
            )

    def is_infinite(self, t: Time) -> bool:
        """Whether the variable, or the state, is known to be infinite at a time."""
        with jax.ensure_compile_time_eval():
            u, scale = self.at(t), self.kind.scale(self.path, t)
            is_finite = jnp.all(jnp.isfinite(u)) & jnp.all(scale > 0)
        return not isinstance(is_finite, Tracer) and not is_finite


_REMEDY = (
    "`t0 = path.t_of_sigma(80.0)` or `t1 = path.t_of_sigma(0.002)`, a level of noise far above "
    "or below that of the data"
)


def check_agreement(network: Callable, predicts: str, path: AbstractGaussianPath) -> None:
    """Pass over a network that says nothing else of what it predicts, and along which path.

    Raises:
        ValueError: for one that does.
    """
    said = getattr(network, "predicts", predicts)
    if said != predicts:
        raise ValueError(
            f"The network predicts {said!r}, but `predicts` is {predicts!r}. Give "
            f"`predicts={said!r}`."
        )
    own = getattr(network, "path", path)
    if not isinstance(own, AbstractGaussianPath) or own is path:
        return
    with jax.ensure_compile_time_eval():
        same = eqx.tree_equal(own, path)
    if not isinstance(same, Tracer) and not same:
        raise ValueError(
            f"The network is made for the path {own}, but `path` is {path}. Give its own path, or "
            "take its velocity to another by `ndekit.paths.scale_time`."
        )
