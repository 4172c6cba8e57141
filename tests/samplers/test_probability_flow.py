"""One network in every variable: the same solutions, densities and marginals."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.gaussian_paths import PATHS, bent
from support.marks import slow_but

import ndekit as nk
from ndekit.samplers.variables import VARIABLES

MEANS = np.array([[1.5, 0.0], [-1.0, 1.0], [0.0, -1.2]])
LEVELS = (20.0, 0.05)
PREDICTIONS = ("data", "noise", "velocity", "score")
PID = diffrax.PIDController(rtol=1e-8, atol=1e-9)


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def law(stds=(0.3, 0.5, 0.2)):
    return nk.models.GaussianMixture(jnp.asarray(MEANS), jnp.asarray(stds))


def flow_of(path, predicts="noise", variable="t"):
    return nk.samplers.ProbabilityFlow(law().network(path, predicts), path, predicts, variable)


def solve(flow, start, levels=LEVELS):
    """From `x / a` at the one level to that at the other."""
    t0, t1 = (flow.path.t_of_sigma(level) for level in levels)
    sol = nk.diffeqsolve(
        diffrax.ODETerm(flow), diffrax.Dopri8(), flow.at(t0), flow.at(t1), None,
        flow.to_state(t0, flow.path.a(t0) * start), stepsize_controller=PID,
    )  # fmt: skip
    return flow.to_point(t1, sol.ys[-1]) / flow.path.a(t1)


END = {}


def expected_end():
    """By another solver, of the velocity on another path."""
    if not END:
        path = nk.paths.Trigonometric()
        field = lambda t, x, args: law().predict(path, t, x)
        t0, t1 = (path.t_of_sigma(level) for level in LEVELS)
        sol = diffrax.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), t0, t1, None,
            path.a(t0) * jnp.array([12.0, -7.0]),
            stepsize_controller=diffrax.PIDController(rtol=1e-10, atol=1e-12),
        )  # fmt: skip
        END["x"] = np.asarray(sol.ys[-1] / path.a(t1))
    return END["x"]


@pytest.mark.parametrize("predicts", slow_but(("noise",), PREDICTIONS))
@pytest.mark.parametrize("variable", VARIABLES)
def test_every_variable_and_every_prediction_ends_in_the_same_sample(variable, predicts):
    found = solve(flow_of(PATHS["VP"](), predicts, variable), jnp.array([12.0, -7.0]))
    np.testing.assert_allclose(found, expected_end(), rtol=1e-6)


@pytest.mark.parametrize(
    "name", slow_but(("CondOT",), ["CondOT", "EDM", "SubVP", "Cosine", "LearnedPath"])
)
def test_every_path_ends_in_the_same_sample(name):
    found = solve(flow_of(PATHS[name](), "data", "log_sigma"), jnp.array([12.0, -7.0]))
    np.testing.assert_allclose(found, expected_end(), rtol=1e-6)


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("name", slow_but(("VP",), ["VP", "CondOT", "KineticOptimal"]))
def test_states_and_times_come_back(name, variable):
    flow = flow_of(PATHS[name](), "noise", variable)
    ts = jnp.linspace(0.02, 0.98, 7)
    np.testing.assert_allclose(jax.vmap(lambda t: flow.time(flow.at(t)))(ts), ts, atol=1e-9)
    x = jnp.array([0.3, -2.0])
    for t in ts[::3]:
        np.testing.assert_allclose(flow.to_point(t, flow.to_state(t, x)), x, rtol=1e-12)


@pytest.mark.parametrize("variable", slow_but(("t", "rho"), VARIABLES))
@pytest.mark.parametrize("name", slow_but(("VP",), ["VP", "CondOT", "VE"]))
def test_the_density_is_that_of_the_data_with_noise_of_the_last_level(name, variable):
    """T7: the same for all paths and all variables."""
    path, smallest = PATHS[name](), 0.05
    t0, t1 = path.t_of_sigma(40.0), path.t_of_sigma(smallest)
    flow = nk.models.Flow(
        law().network(path, "noise"), path, 2, predicts="noise", variable=variable, t0=t0, t1=t1,
        controller=PID,
    )  # fmt: skip
    # Of the points at t0 it takes a Gaussian: here the mixture that they are.
    at_t0, scale = law().along(path, t0), flow.ode.kind.scale(path, t0)
    base = nk.models.GaussianMixture(at_t0.means / scale, jnp.exp(at_t0.log_stds[:, 0]) / scale)
    exact = eqx.tree_at(lambda cnf: cnf.base, flow.cnf, base)
    noisy = law(np.sqrt(np.array([0.3, 0.5, 0.2]) ** 2 + smallest**2))
    xs = jnp.array([[0.0, 0.0], [1.4, 0.3], [-1.5, 1.0]])
    scale = flow.ode.kind.scale(path, t1) / path.a(t1)
    found = jax.vmap(exact.log_prob)(xs / scale) - 2 * jnp.log(scale)
    np.testing.assert_allclose(found, noisy.log_prob(xs), atol=1e-6)
    # At level 40 the marginal is a Gaussian but for the mean of the data, by 1 part in 40.
    np.testing.assert_allclose(flow.log_prob(xs), noisy.log_prob(xs), atol=1e-2)
    x, log_prob = flow.sample_and_log_prob((4,), key=jr.key(0))
    np.testing.assert_allclose(log_prob, flow.log_prob(x), atol=1e-6)


def test_densities_of_samples_from_noise_alone_to_data_alone_are_exact():
    path = nk.paths.CondOT()
    flow = nk.models.Flow(law().network(path, "velocity"), path, 2, controller=PID)
    xs = jnp.array([[0.0, 0.0], [1.4, 0.3], [-1.5, 1.0]])
    np.testing.assert_allclose(flow.log_prob(xs), law().log_prob(xs), atol=1e-6)
    by_x = jax.grad(flow.log_prob)(xs[1])
    np.testing.assert_allclose(by_x, jax.grad(law().log_prob)(xs[1]), atol=1e-5)


@pytest.mark.parametrize("variable", slow_but(("rho",), VARIABLES))
def test_densities_are_differentiable_by_the_network_in_every_variable(variable):
    path = nk.paths.VP()
    t0, t1 = path.t_of_sigma(40.0), path.t_of_sigma(0.05)

    def log_prob(scale):
        network = lambda t, x, args: scale * path.m(t) * x
        flow = nk.models.Flow(
            network, path, 1, predicts="noise", variable=variable, t0=t0, t1=t1, controller=PID
        )
        return flow.log_prob(jnp.array([0.7]))

    value, slope = jax.value_and_grad(log_prob)(jnp.array(0.9))
    h = 1e-4
    numeric = (log_prob(jnp.array(0.9 + h)) - log_prob(jnp.array(0.9 - h))) / (2 * h)
    np.testing.assert_allclose(slope, numeric, rtol=1e-4)
    assert np.isfinite(value)


ETAS = {"ODE": (0.0, None), "g": (1.0, None), "half": (0.5, None), "own": (1.0, lambda t: 1 - t)}


@pytest.mark.parametrize("variable", slow_but(("t", "log_sigma"), VARIABLES))
@pytest.mark.parametrize("eta", slow_but(("g",), ETAS))
def test_marginals_do_not_depend_on_the_noise(eta, variable):
    """T8: moments at the end, of every equation of the family in every variable."""
    path, number = nk.paths.VP(), 10_000
    (eta, gamma), mixture = ETAS[eta], law()
    flow = flow_of(path, "noise", variable)
    t0, t1 = path.t_of_sigma(20.0), path.t_of_sigma(0.05)
    start = mixture.along(path, t0).sample((number,), key=jr.key(0))
    # Euler's method follows a state that grows by its logarithm with four times the error.
    grid = nk.samplers.Grid(800 if variable == "log_rho" else 200, "log_sigma")
    sampler = nk.samplers.Sampler(diffrax.Euler(), variable, grid, eta=eta, gamma=gamma)
    x = jax.jit(lambda x0, key: sampler(flow, x0, t0, t1, key=key)[0])(start, jr.key(1))
    x = np.asarray(x)
    noisy = law(np.sqrt(np.array([0.3, 0.5, 0.2]) ** 2 + 0.05**2))
    exact = np.asarray(noisy.sample((200_000,), key=jr.key(2)))
    spread = np.std(exact, axis=0) / np.sqrt(number)
    np.testing.assert_array_less(np.abs(x.mean(0) - exact.mean(0)), 4 * spread + 0.015)
    np.testing.assert_allclose(np.cov(x.T), np.cov(exact.T), atol=0.08)
    near = lambda x: np.mean(np.linalg.norm(x - MEANS[2], axis=1) < 0.4)
    np.testing.assert_allclose(near(x), near(exact), atol=0.03)


def test_noise_is_drawn_by_the_key():
    path = nk.paths.VP()
    flow, sampler = flow_of(path), nk.samplers.ddim(5, "log_sigma", eta=1.0)
    ends = path.t_of_sigma(20.0), path.t_of_sigma(0.05)
    run = lambda seed: sampler(flow, jnp.ones(2), *ends, key=jr.key(seed))[0]
    np.testing.assert_array_equal(run(0), run(0))
    assert np.all(run(0) != run(1))
    with pytest.raises(ValueError, match="draws noise: give it a `key`"):
        sampler(flow, jnp.ones(2), *ends)


def test_what_a_network_says_it_predicts_is_held_to(types_unchecked):
    path = nk.paths.VP()
    with pytest.raises(ValueError, match="predicts 'noise', but `predicts` is 'data'"):
        nk.samplers.ProbabilityFlow(law().network(path, "noise"), path, "data")
    with pytest.raises(ValueError, match="made for the path VP"):
        nk.samplers.ProbabilityFlow(law().network(path, "noise"), nk.paths.CondOT(), "noise")
    nk.samplers.ProbabilityFlow(law().network(path, "noise"), nk.paths.VP(), "noise")
    with pytest.raises(ValueError, match="`predicts` must be one of 'data', 'noise'"):
        nk.samplers.ProbabilityFlow(lambda t, x, args: x, path, "eps")
    with pytest.raises(ValueError, match="`variable` must be one of 't', 'sigma'"):
        nk.samplers.ProbabilityFlow(lambda t, x, args: x, path, "noise", "theta")
    both = lambda t, x, args: jnp.concatenate([x, x])
    flow = nk.samplers.ProbabilityFlow(both, path, "noise")
    with pytest.raises(ValueError, match=r"must return the shape of `x`, \(2,\), but returned"):
        flow(0.5, jnp.ones(2))


IMPOSSIBLE = {
    "noise alone in sigma": ("CondOT", "data", "sigma", 0.0, 0.9, "`t0` = 0, where a of CondOT"),
    "noise alone in a logarithm": ("CondOT", "data", "log_rho", 0.0, 0.9, "`t0` = 0, where a or m"),
    "data alone in rho": ("CondOT", "data", "rho", 0.0, 1.0, "`t1` = 1, where m of CondOT"),
    "the velocity of a noise": (
        "VP",
        "noise",
        "t",
        0.0,
        1.0,
        "velocity .* noise makes is infinite",
    ),
}


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_an_end_where_something_is_infinite_is_refused(case, jitted):
    name, predicts, variable, t0, t1, said = IMPOSSIBLE[case]
    flow = flow_of(PATHS[name](), predicts)
    sampler = nk.samplers.adaptive(variable=variable)
    run = lambda x: sampler(flow, x, t0, t1)[0]
    with pytest.raises(ValueError, match=said):
        (jax.jit(run) if jitted else run)(jnp.ones(2))
    with pytest.raises(ValueError, match=said):
        nk.models.Flow(
            flow.network, flow.path, 2, predicts=predicts, variable=variable, t0=t0, t1=t1
        )


@pytest.mark.parametrize(
    ("t0", "t1", "gamma"), [(0.0, 0.9, None), (0.5, 1.0, lambda t: 1.0)], ids=["noise", "data"]
)
def test_a_reverse_sde_is_refused_where_its_score_or_noise_is_infinite(t0, t1, gamma):
    flow = flow_of(nk.paths.CondOT(), "noise")
    sampler = nk.samplers.Sampler(diffrax.Euler(), "t", nk.samplers.Grid(4), eta=1.0, gamma=gamma)
    with pytest.raises(ValueError, match="score, or the noise of the reverse SDE, is infinite"):
        sampler(flow, jnp.ones(2), t0, t1, key=jr.key(0))


@pytest.mark.parametrize("variable", slow_but(("t",), ["t", "sigma"]))
def test_a_path_with_a_scale_for_each_coordinate(variable):
    path = bent(nk.paths.LearnedPath(0.05, 20.0, size=2))
    found = solve(flow_of(path, "noise", variable), jnp.array([12.0, -7.0]))
    np.testing.assert_allclose(found, expected_end(), rtol=1e-6)
