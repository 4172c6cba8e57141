"""Forward mode, reverse over reverse, and every mixture of them, through the default adjoint."""

import diffrax
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import pytest
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk

PID = diffrax.PIDController(rtol=1e-5, atol=1e-6)
FIXED = diffrax.ConstantStepSize()
X = np.array([0.3, 0.7, 0.2, 1.1])  # a state of three numbers and a parameter
V = np.array([0.4, -0.2, 0.7, 0.3])


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def bent(t, y, args):
    return args * jnp.sin(y + 0.3 * t) * y[::-1]


def damped(t, y, args):
    return -0.2 * y


def along(path):
    diffusion = lambda t, y, args: lx.DiagonalLinearOperator(0.3 * jnp.cos(args * y))
    return diffrax.MultiTerm(diffrax.ODETerm(bent), diffrax.ControlTerm(diffusion, path))


def brownian():
    area = diffrax.SpaceTimeLevyArea
    return along(nk.BrownianMotion((3,), jax.random.key(0), levy_area=area))


def tree_of_seeds():
    area = diffrax.SpaceTimeLevyArea
    return along(
        diffrax.VirtualBrownianTree(0.0, 1.0, 1e-3, (3,), jax.random.key(0), levy_area=area)
    )


def controlled():
    path = diffrax.LinearInterpolation(jnp.linspace(0, 1, 5), jnp.sin(jnp.arange(5.0))[:, None])
    return diffrax.ControlTerm(lambda t, y, args: args * jnp.sin(y)[:, None], path)


def loss(solver, controller=FIXED, *, terms=None, saveat=None, costs=None, adjoint=None, ends=None):
    """A number from a solve whose start and parameter are `x`; and from its ends, if asked for."""

    def of(x, controller=controller):
        t0, t1 = (0.0, 1.0) if ends is None else ends(x)
        dt0 = None if isinstance(controller, diffrax.StepTo) else 0.125
        sol = nk.diffeqsolve(
            terms or diffrax.ODETerm(bent), solver, t0, t1, dt0, x[:3], x[3], costs=costs,
            stepsize_controller=controller, max_steps=64, saveat=saveat or diffrax.SaveAt(t1=True),
            adjoint=adjoint or nk.ReplayAdjoint(),
        )  # fmt: skip
        rows = jnp.where(jnp.isfinite(sol.ys), sol.ys, 0.0)
        weights = jnp.cos(jnp.arange(rows.size)).reshape(rows.shape)
        return jnp.sum(weights * rows**2) + sum(jnp.sum(cost) for cost in sol.costs.values())

    return of


def newton():
    return optx.Newton(rtol=1e-12, atol=1e-12)


OF_ERRORS = dict(
    error=nk.StepError(scaled=False), largest=nk.EveryStep(nk.StepError(scaled=False), "max")
)
COSTS = OF_ERRORS | dict(stiffness=nk.EveryStep(nk.StepStiffness(), "mean"))
AT_TIMES = lambda: diffrax.SaveAt(ts=jnp.array([0.0, 0.3, 0.31, 0.9]), t1=True)
# On fixed steps the gradient's differences are the truth.
ON_FIXED_STEPS = {
    "Euler": lambda: loss(diffrax.Euler()),
    "Heun": lambda: loss(diffrax.Heun(), saveat=diffrax.SaveAt(steps=True)),
    "Bosh3": lambda: loss(diffrax.Bosh3(), saveat=AT_TIMES(), costs=OF_ERRORS),
    "Tsit5": lambda: loss(diffrax.Tsit5(), saveat=AT_TIMES(), costs=COSTS),
    "stages kept": lambda: loss(
        diffrax.Tsit5(), saveat=AT_TIMES(), adjoint=nk.ReplayAdjoint(keep="stages")
    ),
    "few checkpoints": lambda: loss(
        diffrax.Bosh3(), saveat=AT_TIMES(), adjoint=nk.ReplayAdjoint(checkpoints=2)
    ),
    "undone": lambda: loss(diffrax.ReversibleHeun(), adjoint=nk.ReversibleAdjoint()),
    "any": lambda: loss(diffrax.ReversibleHeun(), saveat=AT_TIMES()),
    "implicit Euler": lambda: loss(diffrax.ImplicitEuler(root_finder=newton())),
    "cde": lambda: loss(diffrax.Heun(), terms=controlled()),
    "sde": lambda: loss(diffrax.EulerHeun(), terms=brownian(), saveat=diffrax.SaveAt(steps=2)),
    "sde, tree": lambda: loss(diffrax.Heun(), terms=tree_of_seeds()),
    "times": lambda: loss(diffrax.Bosh3(), ends=lambda x: (0.1 * x[0], 1 + 0.2 * x[1])),
    "dense": lambda: loss_of_dense,
}
FAST = ("Heun", "Bosh3", "few checkpoints", "sde", "times")


def loss_of_dense(x, controller=FIXED):
    sol = nk.diffeqsolve(
        diffrax.ODETerm(bent), diffrax.Tsit5(), 0.0, 1.0, 0.125, x[:3], x[3], max_steps=16,
        saveat=diffrax.SaveAt(dense=True), stepsize_controller=controller,
    )  # fmt: skip
    return jnp.sum(sol.evaluate(0.33) ** 2) + jnp.sum(sol.evaluate(0.77))


def derivatives(of):
    """First derivatives along V, in two ways; second ones, in three; and the gradient."""
    reverse_twice = jax.grad(lambda x: jnp.vdot(jax.grad(of)(x), V))
    reverse_over_forward = jax.grad(lambda x: jax.jvp(of, (x,), (V,))[1])

    def all_of_them(x):
        gradient, of_gradient = jax.jvp(jax.grad(of), (x,), (jnp.asarray(V),))
        slopes = jnp.vdot(gradient, V), jax.jvp(of, (x,), (jnp.asarray(V),))[1]
        return slopes, (of_gradient, reverse_twice(x), reverse_over_forward(x))

    return jax.jit(all_of_them)(jnp.asarray(X))


def assert_all_agree(of, truth, rtol=1e-9):
    slopes, seconds = derivatives(of)
    assert_tree_close(slopes[0], slopes[1], rtol=rtol)
    for second in seconds[1:]:
        assert_tree_close(second, seconds[0], rtol=rtol, atol=rtol)
    assert np.linalg.norm(seconds[0]) > 0.1  # or nothing would be tested
    assert_tree_close(seconds[0], truth, rtol=1e-6, atol=1e-6)


def differences(gradient, h=1e-5):
    """Of the gradient, along V."""
    after, before = gradient(jnp.asarray(X + h * V)), gradient(jnp.asarray(X - h * V))
    return (after - before) / (2 * h)


@pytest.mark.parametrize("name", slow_but(FAST, ON_FIXED_STEPS))
def test_derivatives_on_fixed_steps_are_differences_of_the_gradient(name):
    of = ON_FIXED_STEPS[name]()
    assert_all_agree(of, differences(jax.jit(jax.grad(of))), rtol=1e-8)


ADAPTIVE = {
    "Tsit5": lambda **given: loss(diffrax.Tsit5(), PID, **given),
    "Bosh3": lambda **given: loss(diffrax.Bosh3(), PID, **given),
}


# Where the end alone is wanted, the reverse pass takes each step as one, its first stage included.
SAVED = {"times": AT_TIMES, "end": lambda: diffrax.SaveAt(t1=True)}


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("name", slow_but(("Bosh3",), ADAPTIVE))
def test_derivatives_of_an_adaptive_solve_are_those_on_its_grid(name, saved):
    of = ADAPTIVE[name](saveat=SAVED[saved]())
    sol = nk.diffeqsolve(
        diffrax.ODETerm(bent), getattr(diffrax, name)(), 0.0, 1.0, 0.125, jnp.asarray(X[:3]), X[3],
        stepsize_controller=PID, max_steps=64, saveat=diffrax.SaveAt(steps=True, t0=True),
    )  # fmt: skip
    assert sol.stats["num_rejected_steps"] + sol.stats["num_accepted_steps"] > 4
    grid = diffrax.StepTo(sol.ts[jnp.isfinite(sol.ts)])
    on_grid = jax.jit(jax.grad(lambda x: of(x, grid)))
    assert_all_agree(of, differences(on_grid))


@pytest.mark.slow
def test_derivatives_of_steps_that_move_agree():
    adjoint = nk.ReplayAdjoint(step_sizes="differentiable")
    of = loss(diffrax.Bosh3(), PID, adjoint=adjoint, costs=dict(steps=nk.StepError()))
    slopes, seconds = derivatives(of)
    assert_tree_close(slopes[0], slopes[1], rtol=1e-9)
    for second in seconds[1:]:
        assert_tree_close(second, seconds[0], rtol=1e-7)


def test_third_derivatives_in_closed_form():
    # y' = 2 a y: y(1) = e^(2 a), each derivative twice the one before.
    def last(a):
        term = diffrax.ODETerm(lambda t, y, a: 2 * a * y)
        one = jnp.array(1.0)
        return nk.diffeqsolve(
            term, diffrax.Dopri5(), 0.0, 1.0, 0.01, one, a, stepsize_controller=FIXED, max_steps=128
        ).ys[0]

    forward = lambda f: lambda a: jax.jvp(f, (a,), (1.0,))[1]
    reverse = jax.grad
    mixtures = {
        "rrr": reverse(reverse(reverse(last))), "frr": forward(reverse(reverse(last))),
        "rff": reverse(forward(forward(last))), "rfr": reverse(forward(reverse(last))),
    }  # fmt: skip
    found = jax.jit(lambda a: {name: third(a) for name, third in mixtures.items()})(0.7)
    for third in found.values():
        assert_tree_close(third, 8 * np.exp(1.4), rtol=1e-8)


# Lanes: starts of their own, one parameter.
STARTS = np.array([[0.3, 0.7, 0.2], [1.4, 0.1, -0.6], [-0.5, 0.9, 0.8]])


def of_start(y0, a, controller=PID):
    return loss(diffrax.Bosh3(), controller, saveat=AT_TIMES())(jnp.append(y0, a))


def penalty(y0, a):
    """How steep the loss is in the start, and the loss."""
    value, slope = jax.value_and_grad(of_start)(y0, a)
    return value + jnp.sum(slope**2)


def adapted(y0, a):
    """The loss after a step of gradient descent."""
    return of_start(y0, a - 0.01 * jax.grad(of_start, argnums=1)(y0, a))


def curvature(y0, a):
    return jnp.trace(jax.jacrev(jax.grad(of_start))(y0, a))


@pytest.mark.parametrize(
    "each", [penalty, adapted, pytest.param(curvature, marks=pytest.mark.slow)]
)
def test_what_is_differentiated_in_lanes_is_the_sum_of_a_loop(each):
    starts, a = jnp.asarray(STARTS), jnp.array(1.1)
    total = lambda starts, a: jnp.sum(jax.vmap(each, (0, None))(starts, a))
    ours = jax.jit(jax.grad(total, argnums=(0, 1)))(starts, a)
    alone = jax.jit(jax.grad(each, argnums=(0, 1)))
    rows = [alone(y0, a) for y0 in starts]
    truth = jnp.stack([row[0] for row in rows]), sum(row[1] for row in rows)
    assert_tree_close(ours, truth, rtol=1e-8, atol=1e-8)


def test_second_derivatives_of_each_lane_are_as_alone():
    starts, a = jnp.asarray(STARTS), jnp.array(1.1)
    twice = jax.grad(lambda y0, a: jnp.sum(jax.grad(of_start)(y0, a) ** 2), argnums=(0, 1))
    alone = jax.jit(twice)
    truth = [alone(y0, a) for y0 in starts]
    ours = jax.jit(jax.vmap(twice, (0, None)))(starts, a)
    assert_tree_close(ours, jax.tree.map(lambda *x: jnp.stack(x), *truth), rtol=1e-8, atol=1e-8)


def test_lanes_of_lanes():
    """Tasks with parameters of their own, each adapted on its starts."""
    starts, tasks = jnp.asarray(STARTS[:2]), jnp.array([0.8, 1.1])

    def of_task(a, starts):
        mean = lambda a: jnp.mean(jax.vmap(of_start, (0, None))(starts, a))
        return mean(a - 0.01 * jax.grad(mean)(a))

    total = lambda a, starts: jnp.sum(jax.vmap(of_task, (0, None))(tasks + a, starts))
    ours = jax.jit(jax.grad(total, argnums=(0, 1)))(0.1, starts)
    alone = jax.jit(jax.grad(of_task, argnums=(0, 1)))
    rows = [alone(task + 0.1, starts) for task in tasks]
    truth = sum(row[0] for row in rows), sum(row[1] for row in rows)
    assert_tree_close(ours, truth, rtol=1e-8, atol=1e-8)


def test_jacobians_by_rows_and_by_columns_are_equal():
    # Found: where steps are replayed many at once, the rows of `jax.jacrev` were those of a record
    # that nobody had written.
    def end(x):
        return nk.diffeqsolve(
            diffrax.ODETerm(bent), diffrax.Tsit5(), 0.0, 1.0, 0.125, x[:3], x[3],
            stepsize_controller=PID,
        ).ys[-1]  # fmt: skip

    x = jnp.asarray(X)
    by_rows, by_columns = jax.jit(jax.jacrev(end))(x), jax.jit(jax.jacfwd(end))(x)
    one_by_one = jnp.stack([jax.jit(jax.grad(lambda x, i=i: end(x)[i]))(x) for i in range(3)])
    assert_tree_close(by_rows, one_by_one, rtol=1e-10)
    assert_tree_close(by_columns, one_by_one, rtol=1e-10)


def test_inside_a_scan():
    """Gradient descent as a loop, differentiated by where it started."""
    start = jnp.asarray(X[:3])

    def trained(a, scanned):
        step = lambda a: a - 0.01 * jax.grad(of_start, argnums=1)(start, a)
        if scanned:
            a = jax.lax.scan(lambda a, _: (step(a), None), a, length=2)[0]
        else:
            a = step(step(a))
        return of_start(start, a)

    ours, truth = (
        jax.jit(jax.grad(lambda a, s=scanned: trained(a, s)))(1.1) for scanned in (True, False)
    )
    assert_tree_close(ours, truth, rtol=1e-10)


@pytest.mark.parametrize("way", ["forward", "reverse"])
def test_times_that_only_the_second_derivative_moves(way):
    """The record of the first one does not know how its steps move with them."""

    def slope(t1):
        of = lambda y0: loss(diffrax.Bosh3(), PID, ends=lambda x: (0.0, t1))(jnp.append(y0, 1.1))
        return jax.grad(of)(jnp.asarray(X[:3]))

    derivative = jax.jacfwd if way == "forward" else jax.jacrev
    of_both = lambda x: loss(diffrax.Bosh3(), PID, ends=lambda x: (0.0, x[4]))(x)
    whole = jax.jit(jax.hessian(of_both))(jnp.append(jnp.asarray(X[:3]), jnp.array([1.1, 1.0])))
    assert_tree_close(jax.jit(derivative(slope))(1.0), whole[4, :3], rtol=1e-8)


@jax.custom_vjp
def opaque(y):
    return jnp.sin(y)


opaque.defvjp(lambda y: (jnp.sin(y), y), lambda y, ct: (ct * jnp.cos(y),))


@pytest.mark.parametrize("what", ["field", "Kvaerno3"])
def test_what_has_no_forward_mode_is_refused_by_name(what):
    solver = diffrax.Bosh3() if what == "field" else diffrax.Kvaerno3()
    field = diffrax.ODETerm(lambda t, y, args: opaque(y) if what == "field" else bent(t, y, args))
    of = loss(solver, PID, terms=field)
    assert np.all(np.isfinite(jax.jit(jax.grad(of))(jnp.asarray(X))))
    for second in (
        lambda x: jax.jvp(of, (x,), (V,)),
        lambda x: jax.jvp(jax.grad(of), (x,), (V,)),
        jax.grad(lambda x: jnp.sum(jax.grad(of)(x) ** 2)),
    ):
        with pytest.raises(Exception, match=r"diffrax\.DirectAdjoint\(\)|custom_vjp"):
            jax.jit(second)(jnp.asarray(X))
