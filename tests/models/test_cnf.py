"""Flows against linear algebra, closed forms of Gaussian paths, SciPy, and other ways to solve."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from support.close import assert_tree_close, close_to_rounding, close_to_solver
from support.fine_densities import by_scipy

import ndekit as nk
from ndekit.models import CNF, Normal, StandardNormal
from ndekit.probes import Exact, Hutchinson, HutchPP

MATRIX = np.array([[0.3, -1.1, 0.2], [0.8, -0.4, 0.5], [0.1, 0.6, 0.2]])
POINTS = np.random.default_rng(0).normal(size=(6, 3))
TRACES = (Exact(), Hutchinson(), Hutchinson("gaussian", 2), HutchPP(1))
NATS = 1e-3  # what a float32 log density at tolerance 1e-5 may be off


class Linear(eqx.Module):
    """x' = (1 + t) A x: from 0 to 1 the flow is expm(3/2 A)."""

    matrix: jax.Array

    def __call__(self, t, x, args):
        return (1 + t) * (x @ self.matrix.T)


def linear(**options):
    return CNF(Linear(jnp.asarray(MATRIX, jnp.float32)), StandardNormal(3), **options)


def points():
    return jnp.asarray(POINTS, jnp.float32)


def law_of(matrix):
    flow = scipy.linalg.expm(1.5 * matrix)
    return scipy.stats.multivariate_normal(np.zeros(len(matrix)), flow @ flow.T)


def mlp(key=0, **options):
    field = nk.fields.MLP(
        2, width=16, depth=2, time="concat", near_zero=False, final="linear", key=jr.key(key)
    )
    return CNF(eqx.tree_at(lambda f: f.layers[-1].weight, field, replace_fn=lambda w: 3 * w),
               StandardNormal(2), **options)  # fmt: skip


@pytest.mark.parametrize("error_of", ["all", "x"])
def test_a_linear_flow_has_the_density_of_the_matrix_exponential(error_of):
    found = linear(error_of=error_of).log_prob(points())
    np.testing.assert_allclose(found, law_of(MATRIX).logpdf(POINTS), atol=NATS)


@pytest.mark.parametrize("trace", TRACES, ids=str)
def test_one_noise_serves_a_whole_solve(trace):
    """Of a linear field the estimate is that of one probe, times the integral of 1 + t."""
    key, flow = jr.key(3), linear(trace=trace)
    trace_key, _ = jr.split(key)
    found = flow.log_prob(points(), key=key)
    at_start = lambda x: flow.field(1.0, x, None)
    directions = np.asarray(trace.directions(at_start, points(), 1, key=trace_key), np.float64)
    once = np.sum(directions * (directions @ MATRIX.T), axis=(0, -1))
    expected = law_of(MATRIX).logpdf(POINTS) - 1.5 * (once - np.trace(MATRIX))
    np.testing.assert_allclose(found, expected, atol=NATS)


def test_samples_come_with_the_density_that_they_have():
    flow = mlp()
    x, log_prob = flow.sample_and_log_prob((7,), key=jr.key(1))
    np.testing.assert_allclose(log_prob, flow.log_prob(x), atol=NATS)
    one, its = flow.sample_and_log_prob(key=jr.key(1))
    assert one.shape == (2,) and its.shape == ()


def test_a_sample_is_noise_moved_by_the_flow():
    noise = np.asarray(StandardNormal(3).sample((5,), key=jr.key(1)))
    x = linear().sample((5,), key=jr.key(1))
    assert close_to_solver(x, noise @ scipy.linalg.expm(1.5 * MATRIX).T, rtol=1e-5)


@pytest.mark.parametrize("backwards", [False, True])
def test_noise_is_at_t0_whatever_the_direction_of_time(backwards):
    ends = dict(t0=1.0, t1=0.0) if backwards else {}
    found = linear(dt0=0.05, **ends).log_prob(points())
    np.testing.assert_allclose(
        found, law_of(-MATRIX if backwards else MATRIX).logpdf(POINTS), atol=NATS
    )


def test_a_batch_as_one_state_is_what_its_samples_are_by_themselves():
    flow, xs = mlp(), points()[:, :2]
    together, sol = flow.log_prob_and_solution(xs)
    alone, sols = jax.vmap(flow)(xs)
    np.testing.assert_allclose(together, alone, atol=NATS)
    assert sol.stats["num_steps"].shape == () and sols.stats["num_steps"].shape == (6,)


# Velocity of the probability path x_t = t x_1 + (1 - t) x_0 from noise to a mixture of Gaussians.
MEANS, SPREADS = np.array([[2.0, 0.0], [-1.0, 1.5], [0.0, -2.0]]), np.array([0.5, 0.7, 0.9])


class MixtureField(eqx.Module):
    def __call__(self, t, x, args):
        means, spreads = (jnp.asarray(a, x.dtype) for a in (MEANS, SPREADS))
        variance = (t * spreads) ** 2 + (1 - t) ** 2
        rate = (t * spreads**2 - (1 - t)) / variance

        def of_one(x):
            off = x[None] - t * means
            log_weight = -0.5 * jnp.sum(off**2, axis=1) / variance - jnp.log(variance)
            return jax.nn.softmax(log_weight) @ (means + rate[:, None] * off)

        return jnp.vectorize(of_one, signature="(d)->(d)")(x)


def test_the_flow_of_a_gaussian_path_ends_in_the_density_of_the_data():
    xs = np.random.default_rng(1).normal(size=(40, 2)) * 2
    of_each = [scipy.stats.multivariate_normal(m, s**2).pdf(xs)
               for m, s in zip(MEANS, SPREADS, strict=True)]  # fmt: skip
    flow = CNF(MixtureField(), StandardNormal(2))
    found = flow.log_prob(jnp.asarray(xs, jnp.float32))
    np.testing.assert_allclose(found, np.log(np.mean(of_each, axis=0)), atol=NATS)


def test_float32_log_densities_are_right_to_a_thousandth_of_a_nat_by_both_traces():
    xs = POINTS[:, :2].astype(np.float32)
    expected = [by_scipy(mlp(), x) for x in xs.astype(np.float64)]
    np.testing.assert_allclose(mlp().log_prob(jnp.asarray(xs)), expected, atol=NATS)
    flow = mlp(trace=Hutchinson())
    # Two numbers have two products of signs, as likely as each other.
    keys = jr.split(jr.key(0), 12)
    signs = jnp.stack([
        flow.trace.directions(jnp.sin, jnp.zeros(2), 1, key=jr.split(key)[0])[0] for key in keys
    ])  # fmt: skip
    found = jax.vmap(jax.vmap(lambda x, key: flow.log_prob(x, key=key), (0, None)), (None, 0))(
        jnp.asarray(xs), keys
    )
    alike = np.asarray(jnp.prod(signs, axis=1)) > 0
    assert 0 < alike.sum() < len(keys)
    average = (found[alike].mean(0) + found[~alike].mean(0)) / 2
    np.testing.assert_allclose(average, expected, atol=NATS)


def test_a_flow_is_a_density():
    edges = jnp.linspace(-8.0, 8.0, 161)
    grid = jnp.stack(jnp.meshgrid(edges, edges), axis=-1)
    log_prob = mlp(controller=diffrax.PIDController(rtol=1e-4, atol=1e-4)).log_prob(grid)
    assert log_prob.shape == (161, 161)
    # A smooth function that vanishes at the ends: the sum converges faster than any power.
    np.testing.assert_allclose(np.sum(np.exp(log_prob)) * 0.1**2, 1.0, atol=1e-3)


def reversible():
    return dict(solver=nk.Reversible(diffrax.Tsit5()), adjoint=nk.ReversibleAdjoint())


ADJOINTS = {
    "replay": {},
    "differentiable steps": dict(adjoint=nk.ReplayAdjoint(step_sizes="differentiable")),
    "reversible": reversible(),
    "checkpoints": dict(adjoint=diffrax.RecursiveCheckpointAdjoint()),
    "backsolve": dict(adjoint=diffrax.BacksolveAdjoint()),
    "direct": dict(adjoint=diffrax.DirectAdjoint(), max_steps=64),
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in list(ADJOINTS)[1:]]


@pytest.mark.parametrize("adjoint", ["replay", *SLOW])
def test_densities_are_differentiable_by_points_and_parameters(adjoint):
    """Every adjoint, against the derivatives of the density of the matrix exponential."""

    def of_flow(matrix, x):
        flow = CNF(Linear(matrix), StandardNormal(3), **ADJOINTS[adjoint])
        return jnp.sum(flow.log_prob(x))

    def of_law(matrix, x):
        flow = jax.scipy.linalg.expm(1.5 * matrix)
        noise = jnp.linalg.solve(flow, x.T).T
        return jnp.sum(StandardNormal(3).log_prob(noise)) - len(x) * 1.5 * jnp.trace(matrix)

    given = jnp.asarray(MATRIX, jnp.float32), points()
    found = jax.grad(of_flow, argnums=(0, 1))(*given)
    assert close_to_solver(found, jax.grad(of_law, argnums=(0, 1))(*given), rtol=1e-5)
    score = -np.linalg.solve(law_of(MATRIX).cov, POINTS.T).T
    assert close_to_solver(found[1], score, rtol=1e-5)


@pytest.mark.slow
def test_a_score_is_differentiated_forward_and_again():
    flow = linear()
    hessian = jax.hessian(flow.log_prob)(points()[0])
    assert close_to_solver(hessian, -np.linalg.inv(law_of(MATRIX).cov), rtol=1e-5)


COSTS = {
    "kinetic": nk.Kinetic(),
    "jacobian": nk.JacobianNorm(exact=True),
    "taylor": nk.Taylor(2),
    "count": nk.StepCount(),
    "error": nk.EveryStep(nk.StepError(), "mean"),
    "raw error": nk.StepError(scaled=False),
    "stiffness": nk.EveryStep(nk.StepStiffness(), "max"),
    "local": nk.OneStep(nk.StepError(), sample="step"),
    "bent": nk.TrajectoryPolynomial(),
}


def test_costs_of_a_flow_are_those_of_its_points(x64):
    """Where the points alone choose the steps, every cost is that of the plain solve."""
    xs, key = jnp.asarray(POINTS[:, :2]), jr.key(5)
    options = dict(costs=COSTS, controller=diffrax.PIDController(rtol=1e-5, atol=1e-5))
    flow = mlp(error_of="x", **options)
    _, sol = flow.log_prob_and_solution(xs, key=key)
    plain = nk.models.NeuralODE(flow.field, t0=1.0, t1=0.0, **options)
    reference = plain(xs, key=jr.split(key)[1])
    assert int(sol.stats["num_steps"]) == int(reference.stats["num_steps"]) > 4
    assert sol.costs.keys() == COSTS.keys()
    assert_tree_close(sol.costs, reference.costs, rtol=1e-8)


def test_a_count_of_steps_counts_those_that_the_density_asks_for(x64):
    """The same as of a state that a user puts together."""
    costs = {name: COSTS[name] for name in ("count", "error")}
    flow, x = mlp(costs=costs), jnp.asarray(POINTS[0, :2])

    def field(t, state, args):
        of_x = lambda x: flow.field(t, x, args)
        return of_x(state[0]), jnp.trace(jax.jacfwd(of_x)(state[0]))

    reference = nk.diffeqsolve(
        diffrax.ODETerm(field), flow.solver, 1.0, 0.0, None, (x, jnp.zeros(())), costs=costs,
        stepsize_controller=flow.controller,
    )  # fmt: skip
    log_prob, sol = flow.log_prob_and_solution(x)
    assert int(sol.stats["num_steps"]) == int(reference.stats["num_steps"])
    _, of_x = mlp(costs=costs, error_of="x").log_prob_and_solution(x)
    assert of_x.costs["count"] < 0.99 * sol.costs["count"]
    assert close_to_solver(sol.costs, reference.costs, rtol=1e-8)
    noise, trace = (leaf[0] for leaf in reference.ys)
    assert close_to_solver(log_prob, flow.base.log_prob(noise) + trace, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", COSTS)
def test_costs_of_a_flow_are_differentiable(name):
    flow = mlp(costs={name: COSTS[name]})

    def cost(flow):
        return flow.log_prob_and_solution(points()[:, :2], key=jr.key(0))[1].costs[name]

    grads = jax.tree.leaves(eqx.filter_grad(cost)(flow))
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in grads)
    assert any(bool(jnp.any(g != 0)) for g in grads)


def test_an_end_that_is_an_array_is_learnt():
    of_end = lambda t1: linear(t1=t1).log_prob(points()[0])
    found = jax.grad(of_end)(jnp.array(1.0))
    h = 1e-5

    def log_prob(t1):
        flow = scipy.linalg.expm((t1 + t1**2 / 2) * MATRIX)
        return scipy.stats.multivariate_normal(np.zeros(3), flow @ flow.T).logpdf(POINTS[0])

    slope = (log_prob(1 + h) - log_prob(1 - h)) / (2 * h)
    np.testing.assert_allclose(found, slope, rtol=1e-3)


@pytest.mark.parametrize("law", [
    StandardNormal((2, 3)),
    Normal(jnp.arange(6.0).reshape(2, 3), jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)),
], ids=["standard", "diagonal"])  # fmt: skip
def test_base_laws_are_scipys(law):
    x = np.random.default_rng(2).normal(size=(4, 2, 3))
    mean, log_std = (0, 0) if isinstance(law, StandardNormal) else (law.mean, law.log_std)
    expected = scipy.stats.norm(np.asarray(mean), np.exp(np.asarray(log_std))).logpdf(x)
    assert close_to_rounding(law.log_prob(jnp.asarray(x, jnp.float32)), expected.sum((1, 2)))
    drawn = np.asarray(law.sample((20_000,), key=jr.key(0)), np.float64)
    np.testing.assert_allclose((drawn.mean(0) - mean) / np.exp(log_std), 0, atol=0.03)
    np.testing.assert_allclose(drawn.std(0), np.broadcast_to(np.exp(log_std), (2, 3)), rtol=0.03)


def test_what_does_not_fit_is_refused_by_name(types_unchecked):
    with pytest.raises(ValueError, match=r"`x` must be real numbers of shape \('...', 3\)"):
        linear().log_prob(jnp.ones(2))
    with pytest.raises(ValueError, match="is int32"):
        linear().log_prob(jnp.ones(3, jnp.int32))
    with pytest.raises(ValueError, match="`error_of` must be 'all' or 'x', but got 'y'"):
        linear(error_of="y")
    with pytest.raises(ValueError, match="`Hutchinson` draws its probes and needs a key"):
        linear(trace=Hutchinson()).log_prob(points())
    with pytest.raises(ValueError, match="must be a step cost or a placement"):
        linear(costs={"steps": 3.0}).log_prob(points())
