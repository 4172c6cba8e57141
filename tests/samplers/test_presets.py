"""Samplers of the literature against their published updates, written out in x."""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.integrate
from support.gaussian_paths import PATHS
from support.marks import slow_but

import ndekit as nk

S = nk.samplers
SPREAD, MEAN = 0.6, 0.3


@pytest.fixture(autouse=True)
def float64(x64):
    pass


PATH = "VP"
TS = np.array([0.02, 0.21, 0.4, 0.58, 0.7, 0.83, 0.94, 0.99])


def noise_in(path, t, x):
    """Of two points of data, -1 (3 of 10) and 2, with a deviation of 0.1."""
    a, m = path.a(t), path.m(t)
    variance = (0.1 * a) ** 2 + m**2
    centres, weights = a * jnp.array([-1.0, 2.0]), jnp.log(jnp.array([0.3, 0.7]))
    off = x[..., None] - jnp.broadcast_to(centres, (*x.shape, 2))
    logits = jnp.broadcast_to(weights, off.shape) - off**2 / (2 * variance)
    return m * jnp.sum(jax.nn.softmax(logits) * off, -1) / variance


def flow_of(path, predicts="noise"):
    return S.ProbabilityFlow(lambda t, x, args: noise_in(path, t, x), path, predicts)


class Schedule:
    """a, m and lambda of the path, and the noise, by NumPy."""

    def __init__(self):
        self.path = PATHS[PATH]()
        self.seen = 0

    def am(self, t):
        return float(self.path.a(jnp.asarray(t))), float(self.path.m(jnp.asarray(t)))

    def lam(self, t):
        a, m = self.am(t)
        return np.log(a / m)

    def at_lam(self, lam):
        return float(self.path.t_of_sigma(jnp.asarray(np.exp(-lam))))

    def eps(self, t, x):
        self.seen += 1
        return np.asarray(noise_in(self.path, jnp.asarray(t), jnp.asarray(x)))


def transfer(s, x, eps, t, u):
    """DDIM's step, PNDM's phi."""
    (a0, m0), (a1, m1) = s.am(t), s.am(u)
    return a1 / a0 * x + (m1 - m0 * a1 / a0) * eps


def by_ddim(s, x, ts):
    for t, u in zip(ts[:-1], ts[1:], strict=True):
        x = transfer(s, x, s.eps(t, x), t, u)
    return x


def by_plms(s, x, ts):
    past = []
    for t, u in zip(ts[:-1], ts[1:], strict=True):
        e = s.eps(t, x)
        if len(past) < 3:
            mid = (t + u) / 2
            e2 = s.eps(mid, transfer(s, x, e, t, mid))
            e3 = s.eps(mid, transfer(s, x, e2, t, mid))
            e4 = s.eps(u, transfer(s, x, e3, t, u))
            used = (e + 2 * e2 + 2 * e3 + e4) / 6
        else:
            used = (55 * e - 59 * past[-1] + 37 * past[-2] - 9 * past[-3]) / 24
        past.append(e)
        x = transfer(s, x, used, t, u)
    return x


def by_s_pndm(s, x, ts):
    last = None
    for t, u in zip(ts[:-1], ts[1:], strict=True):
        e = s.eps(t, x)
        used = (3 * e - last) / 2 if last is not None else None
        if last is None:
            used = (e + s.eps(u, transfer(s, x, e, t, u))) / 2
        last = e
        x = transfer(s, x, used, t, u)
    return x


def by_dpm_2(s, x, ts):
    for t, u in zip(ts[:-1], ts[1:], strict=True):
        h, mid = s.lam(u) - s.lam(t), s.at_lam((s.lam(t) + s.lam(u)) / 2)
        (a0, _), (ai, mi), (a1, m1) = s.am(t), s.am(mid), s.am(u)
        inner = ai / a0 * x - mi * np.expm1(h / 2) * s.eps(t, x)
        x = a1 / a0 * x - m1 * np.expm1(h) * s.eps(mid, inner)
    return x


def by_dpm_3(s, x, ts):
    r1, r2 = 1 / 3, 2 / 3
    for t, u in zip(ts[:-1], ts[1:], strict=True):
        h = s.lam(u) - s.lam(t)
        s1, s2 = s.at_lam(s.lam(t) + r1 * h), s.at_lam(s.lam(t) + r2 * h)
        (a0, _), (a1, m1), (a2, m2), (a3, m3) = s.am(t), s.am(s1), s.am(s2), s.am(u)
        e = s.eps(t, x)
        x1 = a1 / a0 * x - m1 * np.expm1(r1 * h) * e
        d1 = s.eps(s1, x1) - e
        x2 = a2 / a0 * x - m2 * np.expm1(r2 * h) * e
        x2 = x2 - m2 * r2 / r1 * (np.expm1(r2 * h) / (r2 * h) - 1) * d1
        d2 = s.eps(s2, x2) - e
        x = a3 / a0 * x - m3 * np.expm1(h) * e - m3 / r2 * (np.expm1(h) / h - 1) * d2
    return x


def by_dpmpp_2m(s, x, ts):
    last = None
    for t, u in zip(ts[:-1], ts[1:], strict=True):
        (a0, m0), (a1, m1), h = s.am(t), s.am(u), s.lam(u) - s.lam(t)
        data = (x - m0 * s.eps(t, x)) / a0
        used = data
        if last is not None:
            before, h0 = last
            used = data + h / (2 * h0) * (data - before)
        last = data, h
        x = m1 / m0 * x - a1 * np.expm1(-h) * used
    return x


def by_edm(s, x, ts):
    for t, u in zip(ts[:-1], ts[1:], strict=True):
        (a0, m0), (a1, m1) = s.am(t), s.am(u)
        x, s0, s1 = x / a0, m0 / a0, m1 / a1
        d = s.eps(t, a0 * x)
        ahead = x + (s1 - s0) * d
        x = a1 * (x + (s1 - s0) * (d + s.eps(u, a1 * ahead)) / 2)
    a, m = s.am(ts[-1])
    return (x - m * s.eps(ts[-1], x)) / a * s.am(ts[-1])[0]


PUBLISHED = {
    "ddim": (S.ddim, by_ddim, len(TS) - 1),
    "plms": (S.plms, by_plms, len(TS) - 1 + 9),
    "S-PNDM": (lambda ts: S.plms(ts, order=2), by_s_pndm, len(TS)),
    "dpm_solver_2": (S.dpm_solver_2, by_dpm_2, 2 * (len(TS) - 1)),
    "dpm_solver_3": (S.dpm_solver_3, by_dpm_3, 3 * (len(TS) - 1)),
    "dpmpp_2m": (S.dpmpp_2m, by_dpmpp_2m, len(TS)),
    "edm_heun": (S.edm_heun, by_edm, 2 * len(TS) - 1),
}


@pytest.mark.parametrize("name", slow_but(("ddim", "plms", "dpm_solver_3", "edm_heun"), PUBLISHED))
def test_each_makes_its_published_steps_and_counts_them(name):
    preset, by_hand, evals = PUBLISHED[name]
    schedule, x0 = Schedule(), np.array([0.4, -1.1])
    expected = by_hand(schedule, x0, TS) / schedule.am(TS[-1])[0]
    flow, sampler = flow_of(schedule.path), preset(jnp.asarray(TS))
    x, sol = sampler(flow, jnp.asarray(x0), TS[0], TS[-1])
    np.testing.assert_allclose(x, expected, rtol=1e-9)
    assert sol.stats["num_evals"] == evals
    # 2M evaluates at the last point, too.
    assert schedule.seen == evals - (name == "dpmpp_2m")


@pytest.mark.parametrize("name", slow_but(("ddim",), PUBLISHED))
def test_each_sample_is_its_own_in_a_batch_and_in_lanes(name):
    preset, _, _ = PUBLISHED[name]
    flow, sampler = flow_of(PATHS[PATH]()), preset(jnp.asarray(TS))
    x0 = jnp.array([[0.4, -1.1], [1.3, 0.2], [-0.5, 0.9]])
    run = lambda x0: sampler(flow, x0, TS[0], TS[-1])
    alone = jnp.stack([run(x)[0] for x in x0])
    np.testing.assert_allclose(run(x0)[0], alone, rtol=1e-9)
    lanes, sol = jax.vmap(run)(x0)
    np.testing.assert_allclose(lanes, alone, rtol=1e-9)
    assert sol.stats["num_evals"].shape == (3,)


# Of a single Gaussian everything is known.
def gaussian_flow(path):
    def noise(t, x, args):
        a, m = path.a(t), path.m(t)
        return m * (x - a * MEAN) / ((a * SPREAD) ** 2 + m**2)

    return S.ProbabilityFlow(noise, path, "noise")


@pytest.mark.parametrize("spacing", slow_but(("arctan",), ["log_sigma", "arctan", "edm"]))
def test_the_error_of_ddim_on_a_gaussian_is_a_product_of_cosines(spacing):
    """T2: with theta = arctan(sigma / s)."""
    path = PATHS[PATH]()
    flow, (most, least), n = gaussian_flow(path), (80.0, 0.01), 12
    t0, t1 = path.t_of_sigma(most), path.t_of_sigma(least)
    grid = S.Grid(n, spacing, data_std=SPREAD)
    x0 = path.a(t0) * jnp.array([30.0])
    x, _ = S.ddim(grid)(flow, x0, t0, t1)
    theta = np.arctan(np.asarray(path.sigma(grid(path, t0, t1))) / SPREAD)
    exact = (30.0 - MEAN) * np.sqrt((SPREAD**2 + least**2) / (SPREAD**2 + most**2))
    np.testing.assert_allclose((x[0] - MEAN) / exact, np.prod(np.cos(np.diff(theta))), rtol=1e-8)
    if spacing == "arctan":
        np.testing.assert_allclose(np.diff(theta), (theta[-1] - theta[0]) / n, rtol=1e-6)


SPECIAL = {
    "ddim": S.ddim, "plms": S.plms, "dpm_solver_2": S.dpm_solver_2,
    "dpm_solver_3": S.dpm_solver_3, "dpmpp_2m": S.dpmpp_2m, "dpmpp_3m": S.dpmpp_3m,
    "unipc": S.unipc, "adams": S.adams, "edm_heun": S.edm_heun,
}  # fmt: skip


@pytest.mark.parametrize("name", slow_but(("dpmpp_3m",), SPECIAL))
def test_of_a_single_point_any_steps_of_any_sampler_are_exact(name):
    """T3, by each preset: the noise, and the data, are constant along a solution."""
    path = PATHS[PATH]()
    noise = lambda t, x, args: (x - path.a(t) * MEAN) / path.m(t)
    flow = S.ProbabilityFlow(noise, path, "noise")
    t0, t1 = path.t_of_sigma(50.0), path.t_of_sigma(0.1)
    x, sol = SPECIAL[name](4)(flow, path.a(t0) * jnp.array([20.0]), t0, t1)
    expected = MEAN if name == "edm_heun" else MEAN + 0.1 * (20.0 - MEAN) / 50.0
    np.testing.assert_allclose(x, [expected], rtol=1e-8)


# A first step of order 1 leaves two of the multistep methods with 2, however small its part.
ORDERS = {
    "ddim": (S.ddim, 1), "S-PNDM": (lambda ts: S.plms(ts, order=2), 1), "plms": (S.plms, 1),
    "dpm_solver_2": (S.dpm_solver_2, 2), "dpm_solver_3": (S.dpm_solver_3, 3),
    "dpmpp_2m": (S.dpmpp_2m, 2), "dpmpp_3m": (S.dpmpp_3m, 2), "unipc": (S.unipc, 3),
    "adams": (S.adams, 2),
}  # fmt: skip


@pytest.mark.parametrize("kind", slow_but(("uneven",), ["log_sigma", "uneven"]))
@pytest.mark.parametrize("name", slow_but(("dpm_solver_3",), ORDERS))
def test_orders_on_equal_and_on_uneven_steps(name, kind):
    """T4: where steps are short and long in turn PNDM is of order 1; the others are as they say."""
    preset, order = ORDERS[name]
    path = PATHS[PATH]()
    t0, t1 = path.t_of_sigma(5.0), path.t_of_sigma(0.2)
    lams = lambda n: jnp.linspace(np.log(5.0), np.log(0.2), n + 1)

    def grid(n):
        if kind == "log_sigma":
            return lams(n)
        ends = np.concatenate([[0], np.cumsum(np.where(np.arange(n) % 2, 1.5, 0.5))])
        return np.log(5.0) + (np.log(0.2) - np.log(5.0)) * jnp.asarray(ends / ends[-1])

    def end(n):
        ts = jax.vmap(path.t_of_sigma)(jnp.exp(grid(n))).at[0].set(t0).at[-1].set(t1)
        flow = flow_of(path)
        return preset(ts)(flow, path.a(t0) * jnp.array([3.0]), t0, t1)[0]

    rate = jax.jit(lambda sigma, x: flow_of(path).by("sigma")(sigma, x))
    exact = scipy.integrate.solve_ivp(
        lambda sigma, x: np.asarray(rate(sigma, x)),
        (5.0, 0.2), [3.0], rtol=1e-12, atol=1e-13, method="DOP853",
    ).y[:, -1]  # fmt: skip
    coarse, fine = (np.linalg.norm(end(n) - exact) for n in (80, 160))
    slope = np.log2(coarse / fine)
    assert order - 0.4 < slope
    if name in ("plms", "S-PNDM"):
        assert slope < (1.5 if kind == "uneven" else 2.6)


def test_steps_can_be_chosen_by_the_error_of_exponential_methods():
    path = PATHS[PATH]()
    ends = path.t_of_sigma(20.0), path.t_of_sigma(0.05)
    fine, _ = S.adaptive(1e-10, 1e-10, diffrax.Dopri8())(flow_of(path), jnp.array([0.7]), *ends)
    for solver, variable in ((nk.DPMSolver(3), "sigma"), (nk.DPMSolver(2), "rho")):
        sampler = S.adaptive(1e-5, 1e-5, solver, variable, dt0=0.01)
        x, sol = sampler(flow_of(path), jnp.array([0.7]), *ends)
        np.testing.assert_allclose(x, fine, atol=1e-3)
        assert sol.stats["num_evals"] == solver.order_ * sol.stats["num_steps"]


def test_from_noise_alone_to_data_alone_the_last_step_of_a_grid_is_eulers():
    path = PATHS["CondOT"]()
    velocity = lambda t, x, args: nk.paths.convert(
        path, t, x, gaussian_data(path, t, x), src="data", dst="velocity"
    )
    flow, x0 = S.ProbabilityFlow(velocity, path), jnp.array([0.8])
    x, sol = S.ddim(16)(flow, x0, 0.0, 1.0)
    assert sol.stats["num_evals"] == 16
    by_hand, ts = x0, np.linspace(0, 1, 17)
    for t, u in zip(ts[:-1], ts[1:], strict=True):
        data = gaussian_data(path, t, by_hand)
        by_hand = (1 - u) / (1 - t) * by_hand + (u - (1 - u) * t / (1 - t)) * data
    np.testing.assert_allclose(x, by_hand, rtol=1e-9)


def gaussian_data(path, t, x):
    a, m = path.a(t), path.m(t)
    return MEAN + a * SPREAD**2 * (x - a * MEAN) / ((a * SPREAD) ** 2 + m**2)


def test_a_sample_is_differentiable_by_its_noise_and_the_network():
    path = PATHS[PATH]()
    t0, t1 = path.t_of_sigma(20.0), path.t_of_sigma(0.05)

    def end(x0, scale):
        network = lambda t, x, args: scale * noise_in(path, t, x)
        return S.plms(8)(S.ProbabilityFlow(network, path, "noise"), x0, t0, t1)[0][0]

    given, h = (jnp.array([0.3]), jnp.array(1.0)), 1e-5
    by_noise, by_scale = jax.grad(end, (0, 1))(*given)
    steps = (end(given[0] + h, given[1]) - end(given[0] - h, given[1])) / (2 * h)
    np.testing.assert_allclose(by_noise[0], steps, rtol=1e-5)
    steps = (end(given[0], given[1] + h) - end(given[0], given[1] - h)) / (2 * h)
    np.testing.assert_allclose(by_scale, steps, rtol=1e-5)


SPACINGS = ("t", "quadratic", "log_sigma", "edm", "arctan")


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", slow_but(("VP", "EDM"), ["VP", "EDM", "CondOT", "LearnedPath"]))
def test_grids_rise_from_end_to_end(name, spacing):
    path = PATHS[name]()
    t0, t1 = path.t_of_sigma(40.0), path.t_of_sigma(0.05)
    ts = S.Grid(9, spacing)(path, t0, t1)
    assert ts.shape == (10,) and ts[0] == t0 and ts[-1] == t1 and np.all(np.diff(ts) > 0)
    evenly = {
        "t": lambda s, t: t,
        "quadratic": lambda s, t: np.sqrt(1 - t),
        "log_sigma": lambda s, t: np.log(s),
        "edm": lambda s, t: s ** (1 / 7),
        "arctan": lambda s, t: np.arctan(s),
    }
    even = evenly[spacing](np.asarray(path.sigma(ts)), np.asarray(ts))
    np.testing.assert_allclose(np.diff(even), (even[-1] - even[0]) / 9, rtol=1e-5)


def test_the_published_levels_of_edm():
    path = nk.paths.EDM()
    ts = S.Grid(17, "edm")(path, path.t_of_sigma(80.0), path.t_of_sigma(0.002))
    i = np.arange(18)
    levels = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(path.sigma(ts), levels, rtol=1e-6)


BAD = {
    "downwards": (lambda: S.ddim(jnp.array([0.9, 0.5, 0.1])), 0.1, 0.9, "rising times from noise"),
    "levels": (lambda: S.ddim(jnp.array([80.0, 1.0, 0.1])), 0.1, 0.9, "have their times by"),
    "elsewhere": (lambda: S.ddim(jnp.array([0.1, 0.5, 0.8])), 0.1, 0.9, "run from `t0` to `t1`"),
    "backwards": (lambda: S.ddim(4), 0.9, 0.1, "A grid runs from noise at `t0` to data"),
    "no level": (lambda: S.ddim(4, "log_sigma"), 0.1, 1.0, "divides the levels of noise"),
}


def test_adaptive_steps_of_an_sde_want_a_solver_for_sdes():
    controller = diffrax.PIDController(rtol=0.1, atol=0.1)
    for make in (
        lambda: nk.samplers.adaptive(eta=1.0),
        lambda: nk.samplers.Sampler(diffrax.Tsit5(), controller=controller, eta=1.0),
    ):
        with pytest.raises(ValueError, match="`Tsit5` is for ODEs.*diffrax.Heun"):
            make()
    with pytest.raises(ValueError, match="`eta` must be"):
        nk.samplers.adaptive(eta=-1.0)
    sampler, path = nk.samplers.adaptive(0.1, 0.1, diffrax.Heun(), eta=1.0), PATHS[PATH]()
    x, _ = sampler(flow_of(path), jnp.ones(1), 0.1, 0.9, key=jr.key(0))
    assert np.isfinite(x).all()


@pytest.mark.parametrize("case", BAD)
def test_a_grid_that_is_none_is_refused(case):
    make, t0, t1, said = BAD[case]
    for wrap in (lambda f: f, jax.jit):
        with pytest.raises(ValueError, match=said):
            sampler = make()
            wrap(lambda x, sampler=sampler: sampler(flow_of(PATHS[PATH]()), x, t0, t1)[0])(
                jnp.ones(1)
            )


def test_what_a_sampler_is_made_of_is_checked(types_unchecked):
    with pytest.raises(ValueError, match="`steps` must be given, or a `controller`"):
        S.Sampler(diffrax.Heun(), "t")
    with pytest.raises(ValueError, match="`variable` must be one of"):
        S.Sampler(diffrax.Heun(), "theta", S.Grid(3))
    with pytest.raises(ValueError, match="`spacing` must be one of 't'"):
        S.Grid(3, "karras")
    with pytest.raises(ValueError, match="`order` must be 2 or 4, as published"):
        S.plms(5, order=3)
    with pytest.raises(ValueError, match="Order 1 is DDIM"):
        nk.DPMSolver(1)


class TestGuidance:
    @pytest.mark.parametrize(
        "predicts", slow_but(("data", "velocity"), ["data", "noise", "velocity", "score"])
    )
    def test_a_classifier_makes_the_conditional_of_a_mixture(self, predicts):
        """By Bayes' rule, at weight 1: the law of one mode."""
        path, t = PATHS[PATH](), 0.6
        means = jnp.array([[-1.0, 0.5], [2.0, 0.0], [0.0, -1.0]])
        whole, one = (
            nk.models.GaussianMixture(means, 0.4),
            nk.models.GaussianMixture(means[1:2], 0.4),
        )
        says = lambda law: lambda t, x, args: law.predict(path, t, x, predicts)

        def log_prob(t, x, args):
            return one.along(path, t).log_prob(x) - whole.along(path, t).log_prob(x)

        guided = S.ClassifierGuided(says(whole), log_prob, path, predicts)
        x = jnp.array([[0.3, -0.2], [1.0, 0.8]])
        np.testing.assert_allclose(guided(t, x), says(one)(t, x, None), rtol=1e-9)
        S.ProbabilityFlow(guided, path, predicts)
        with pytest.raises(ValueError, match="made for the path"):
            S.ProbabilityFlow(guided, nk.paths.CondOT(), predicts)

    def test_without_a_classifier_it_is_the_same_in_every_prediction(self):
        path, t, x = PATHS[PATH](), 0.4, jnp.array([0.3, -0.2])
        means = jnp.array([[-1.0, 0.5], [2.0, 0.0]])
        laws = nk.models.GaussianMixture(means, 0.4), nk.models.GaussianMixture(means[:1], 0.4)

        def guided(predicts):
            net = lambda t, x, c: laws[c].predict(path, t, x, predicts)
            return S.ClassifierFree(net, 0, 3.0)(t, x, 1)

        for predicts in ("noise", "velocity", "score"):
            found = nk.paths.convert(path, t, x, guided(predicts), src=predicts, dst="data")
            np.testing.assert_allclose(found, guided("data"), rtol=1e-8)

    def test_samples_of_a_guided_network_are_of_its_class(self):
        path = PATHS[PATH]()
        means = jnp.array([[-1.0, 0.5], [2.0, 0.0]])
        whole, first = (
            nk.models.GaussianMixture(means, 0.3),
            nk.models.GaussianMixture(means[:1], 0.3),
        )
        net = lambda t, x, c: jnp.where(
            c, first.predict(path, t, x, "noise"), whole.predict(path, t, x, "noise")
        )
        guided = S.ClassifierFree(net, jnp.array(False), 1.0)
        t0, t1 = path.t_of_sigma(30.0), path.t_of_sigma(0.05)
        flow = nk.models.Flow(guided, path, 2, predicts="noise", t0=t0, t1=t1)
        x = flow.sample((200,), jnp.array(True), key=jr.key(0), sampler=S.unipc(15))
        np.testing.assert_allclose(np.mean(x, axis=0), means[0], atol=0.1)
        np.testing.assert_allclose(np.std(x, axis=0), 0.3, atol=0.06)
