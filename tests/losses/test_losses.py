"""Losses of flows on Gaussian data, whose best field and whose flow map are known."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.marks import slow_but

import ndekit as nk
from ndekit.losses import (
    bridge_matching,
    consistency,
    denoising,
    flow_matching,
    iso,
    mean_flow,
    shortcut,
    stratified_times,
)
from ndekit.paths import VP, Bridge, CondOT, NoisyLine, Trigonometric, convert

MEAN, DEVIATION = np.array([1.0, -0.5]), 0.6
NUMBER = 100_000
PATHS = {"CondOT": CondOT(), "Trigonometric": Trigonometric(), "VP": VP()}


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def size(path, t):
    """The deviation of x_t for data N(MEAN, DEVIATION^2)."""
    return jnp.sqrt((DEVIATION * path.a(t)) ** 2 + path.m(t) ** 2)


def exact(path):
    """The velocity field between noise and these data: x_t - a mean scales with the deviation."""

    def field(t, x, args):
        _, rate = jax.jvp(lambda t: jnp.log(size(path, t)), (t,), (jnp.ones_like(t),))
        return path.dadt(t) * MEAN + (x - path.a(t) * MEAN) * rate

    return field


def along(path, t, x, s):
    """Where the flow through x at t is at s."""
    return path.a(s) * MEAN + (x - path.a(t) * MEAN) * size(path, s) / size(path, t)


def exact_map(path):
    def flow_map(t, x, s):
        is_same = s == t
        gap = jnp.where(is_same, 1.0, s - t)
        return jnp.where(is_same, exact(path)(t, x, None), (along(path, t, x, s) - x) / gap)

    return flow_map


def data(key, number=NUMBER):
    return MEAN[None] + DEVIATION * jr.normal(key, (number, 2))


def bent(field):
    """A field off by the parameter, differently at each place and time."""
    return lambda weight: (
        lambda t, x, args: field(t, x, args) + weight * jnp.stack([x[0] * t, jnp.cos(x[1]) + t])
    )


def mean_of(loss, x1, key):
    ts = stratified_times(jr.fold_in(key, 1), len(x1), 0.02, 0.98)
    return jnp.mean(jax.vmap(loss)(x1, jr.split(key, len(x1)), ts))


@pytest.mark.parametrize("name", slow_but(("VP",), PATHS))
def test_the_velocity_of_the_flow_is_where_flow_matching_is_least(name, getkey):
    path, x1, key = PATHS[name], data(getkey()), getkey()
    made = bent(exact(path))

    @jax.jit
    def total(weight):
        one = lambda x1, key, t: flow_matching(made(weight), path, x1, key=key, t=t)
        return mean_of(one, x1, key)

    value, slope, away = total(0.0), jax.grad(total)(0.0), total(0.3)
    curvature = jax.grad(jax.grad(total))(0.0)
    assert abs(slope) < 0.02 * curvature  # at a distance of 0.02 from the least, by chance
    # Elsewhere the loss is larger by the mean square of how far off the field is.
    np.testing.assert_allclose(away - value, 0.3 * slope + 0.3**2 * curvature / 2, rtol=1e-6)
    assert away > value


@pytest.mark.parametrize("predicts", ["data", "noise", "score", "velocity"])
@pytest.mark.parametrize("name", PATHS)
def test_denoising_is_flow_matching_with_another_weight(name, predicts, getkey):
    """One sample, one network: the errors are those that the conversions between them say."""
    path, t = PATHS[name], jnp.array(0.37)
    net = lambda t, x, args: jnp.sin(3 * x) + t
    velocity = lambda t, x, args: convert(path, t, x, net(t, x, args), src=predicts, dst="velocity")
    given = dict(key=getkey(), x0=jr.normal(getkey(), (2,)), t=t)
    x1 = data(getkey(), 1)[0]
    a, m = path.a(t), path.m(t)
    turn = a * path.dmdt(t) - m * path.dadt(t)
    ratio = {"data": turn / m, "noise": turn / a, "velocity": 1.0, "score": turn / a}[predicts]
    found = denoising(net, path, x1, predicts=predicts, **given)
    np.testing.assert_allclose(
        flow_matching(velocity, path, x1, **given), ratio**2 * found, rtol=1e-9
    )
    double = denoising(net, path, x1, predicts=predicts, weight=lambda t: 2 + t, **given)
    np.testing.assert_allclose(double, (2 + t) * found, rtol=1e-12)


@pytest.mark.parametrize("bridge", [Bridge(0.7), NoisyLine(0.7)], ids=lambda b: type(b).__name__)
def test_a_bridge_between_given_ends_has_its_velocity_and_score(bridge, getkey):
    """Between N(-0.1, 1) and N(0.1, 1), coupled independently: the mean velocity and the score of
    the marginal N(mean_t, (1 - t)^2 + t^2 + sigma_t^2) are where the loss is least.
    """
    key = getkey()
    x0 = jr.normal(getkey(), (NUMBER, 1)) - 0.1
    x1 = jr.normal(getkey(), (NUMBER, 1)) + 0.1
    variance = lambda t: (1 - t) ** 2 + t**2 + bridge.deviation(t) ** 2
    centre = lambda t: -0.1 + 0.2 * t

    def field(t, x, args):
        rate = jax.grad(variance)(t) / (2 * variance(t))
        return 0.2 + rate * (x - centre(t)) + args[0] * jnp.cos(x)

    def score(t, x, args):
        return -(x - centre(t)) / variance(t) + args[1] * x

    @jax.jit
    def total(weights):
        one = lambda pair, key, t: bridge_matching(
            field, bridge, *pair, key=key, score=score, t=t, args=weights
        )
        ts = stratified_times(jr.key(3), NUMBER, 0.05, 0.95)
        return jnp.mean(jax.vmap(one)((x0, x1), jr.split(key, NUMBER), ts))

    slope, curvature = jax.grad(total)(jnp.zeros(2)), jnp.diag(jax.hessian(total)(jnp.zeros(2)))
    assert jnp.all(jnp.abs(slope) < 0.03 * curvature)


@pytest.mark.parametrize("name", slow_but(("CondOT",), ["CondOT", "Trigonometric"]))
def test_the_flow_map_of_a_teacher_has_no_loss(name, getkey):
    path, key = PATHS[name], getkey()
    x1 = data(getkey(), 64)
    teacher, flow = exact(path), exact_map(path)
    times = 0.05 + 0.9 * jnp.sort(jr.uniform(getkey(), (64, 2)), axis=1)

    def losses(flow):
        keys = jr.split(key, 64)
        of_mean = jax.vmap(
            lambda x1, key, ts: mean_flow(
                flow, path, x1, key=key, t=ts[0], s=ts[1], teacher=teacher
            )
        )(x1, keys, times)
        of_two = jax.vmap(lambda x1, key: shortcut(flow, path, x1, key=key, step=0.2))(x1, keys)
        at_once = jax.vmap(lambda x1, key: shortcut(flow, path, x1, key=key, teacher=teacher))
        return jnp.stack([jnp.mean(of_mean), jnp.mean(of_two), jnp.mean(at_once(x1, keys))])

    assert jnp.all(losses(flow) < 1e-20)
    wrong = lambda t, x, s: flow(t, x, s) + 0.1 * jnp.sin(x) * (1 + t)
    assert jnp.all(losses(wrong) > 1e-5)


def test_mean_flow_of_pairs_is_least_at_the_flow_map(getkey):
    """With the velocity of each pair in place of the field's, in the mean."""
    path, x1, key = CondOT(), data(getkey()), getkey()
    flow = exact_map(path)
    made = lambda weight: lambda t, x, s: flow(t, x, s) + weight * (jnp.cos(x) + s)

    @jax.jit
    def slope_and_size(weight):
        def one(x1, key, t):
            given = dict(key=key, t=0.8 * t, s=0.8 * t + 0.15)
            return mean_flow(made(weight), path, x1, **given)

        return mean_of(one, x1, key)

    slope = jax.grad(slope_and_size)
    # The target is not differentiated: of a quadratic that leaves the slope at the least 0.
    assert abs(slope(0.0)) < 0.02 * abs(slope(1.0))


def test_consistency_of_the_end_of_the_flow(getkey):
    """Along the flow of a teacher: the error is that of one step of Heun's method."""
    path, key, x1 = CondOT(), getkey(), data(getkey(), 256)
    end = lambda t, x, args: along(path, t, x, jnp.ones_like(t))

    def mean(step, net=end, **options):
        one = lambda x1, key: consistency(net, path, x1, key=key, step=step, **options)
        return jnp.mean(jax.vmap(one)(x1, jr.split(key, 256)))

    errors = [mean(h, teacher=exact(path)) ** 0.5 for h in (0.1, 0.05)]
    assert 2.5 < np.log2(errors[0] / errors[1]) < 3.5
    off = lambda t, x, args: end(t, x, args) + 0.1 * (1 - t) * jnp.sin(x)
    assert mean(0.05, off, teacher=exact(path)) > 3 * mean(0.05, teacher=exact(path))
    # At the end the target is the data themselves, whatever a network says there.
    nothing = lambda t, x, args: 0 * x
    given = dict(key=getkey(), t=0.5, step=0.5)
    np.testing.assert_allclose(
        consistency(nothing, path, x1[0], **given), np.mean(x1[0] ** 2), rtol=1e-12
    )
    other = lambda t, x, args: x + 1
    found = consistency(nothing, path, x1[0], key=key, t=0.2, step=0.1, target_net=other)
    x0 = jr.normal(jr.split(jr.split(key)[0])[0], (2,))
    np.testing.assert_allclose(found, np.mean((path.sample(0.3, x0, x1[0]) + 1) ** 2), rtol=1e-9)


def test_consistency_of_the_end_has_no_loss_where_the_step_is_exact(getkey):
    """The teacher moves everything by the same vector, in a line: a step of Heun leads there."""
    key, x1 = getkey(), data(getkey(), 64)
    teacher = lambda t, x, args: MEAN + 0 * x

    def mean(end):
        one = lambda x1, key: consistency(end, CondOT(), x1, key=key, step=0.2, teacher=teacher)
        return jnp.mean(jax.vmap(one)(x1, jr.split(key, 64)))

    off = lambda weight: lambda t, x, args: x + (1 - t) * (MEAN + weight * jnp.cos(x))
    assert mean(off(0.0)) < 1e-28 and abs(jax.grad(lambda w: mean(off(w)))(0.0)) < 1e-14
    assert mean(off(0.1)) > 1e-4


def test_iso_is_the_error_estimate_of_a_pair(getkey):
    """Of Heun and Euler in a solve of one step, and nothing for straight solutions."""
    field, x, h = exact(Trigonometric()), jr.normal(getkey(), (2,)), 0.05
    here = field(jnp.array(0.3), x, None)
    ahead = field(jnp.array(0.3 + h), x + h * here, None)
    estimate = h / 2 * (ahead - here)
    found = iso(field, 0.3, x, h)
    np.testing.assert_allclose(found, np.mean(estimate**2) * (2 / h**2) ** 2, rtol=1e-9)
    straight = lambda t, x, args: (MEAN - x) / (1 - t)
    assert iso(straight, 0.3, x, h) < 1e-20
    # Where the step leads to is held: the slope by a factor on the field is of both ends alone.
    scaled = jax.grad(lambda w: iso(lambda t, x, args: w * field(t, x, args), 0.3, x, h))(1.0)
    np.testing.assert_allclose(scaled, 2 * found, rtol=1e-9)


def test_stratified_times_are_one_in_each_stratum(getkey):
    ts = stratified_times(getkey(), 50, -1.0, 3.0)
    np.testing.assert_array_equal(np.floor((ts + 1) / 4 * 50), np.arange(50))
    many = jax.vmap(lambda key: stratified_times(key, 5))(jr.split(getkey(), 20_000))
    np.testing.assert_allclose(jnp.mean(many, axis=0), (np.arange(5) + 0.5) / 5, atol=2e-3)


def test_samples_of_any_shape_and_dtype(getkey):
    image = jr.normal(getkey(), (1, 4, 4), jnp.float32)
    net = lambda t, x, args: x * t.astype(x.dtype) + args
    one = jnp.float32(1)
    for loss in (
        flow_matching(net, CondOT(), image, key=getkey(), args=one),
        denoising(net, VP(), image, key=getkey(), args=one),
        bridge_matching(net, Bridge(0.1), image, image, key=getkey(), args=one),
    ):
        assert loss.shape == () and loss.dtype == jnp.float32 and jnp.isfinite(loss)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k: flow_matching(lambda t, x, a: x[0], CondOT(), jnp.ones(2), key=k), "jax.vmap"),
        (lambda k: mean_flow(lambda t, x, s: x, CondOT(), jnp.ones(2), key=k, t=0.1), "both"),
        (lambda k: shortcut(lambda t, x, s: x, CondOT(), jnp.ones(2), key=k, step=0.7), "step"),
        (lambda k: consistency(lambda t, x, a: x, VP(), jnp.ones(2), key=k, step=0.0), "step"),
        (lambda k: stratified_times(k, 3, 1.0, 1.0), "`hi` must be above"),
    ],
)
def test_bad_input_is_named(call, message, getkey):
    with pytest.raises(ValueError, match=message):
        call(getkey())


@pytest.mark.slow
def test_a_training_reaches_the_field(getkey):
    """Not in the mean over draws, but by descent: a linear field learns that of the flow."""
    import optax

    path, key = CondOT(), getkey()
    x1 = jnp.asarray(data(getkey(), 4096), jnp.float32)

    def loss(model, batch, step, *, key):
        ts = stratified_times(jr.fold_in(key, 1), 256, 0.0, 1.0).astype(jnp.float32)
        field = lambda t, x, args: jnp.polyval(model[0], t) * x + jnp.polyval(model[1], t)
        one = lambda x1, key, t: flow_matching(field, path, x1, key=key, t=t)
        return jnp.mean(jax.vmap(one)(batch, jr.split(key, 256), ts)), {}

    start = (jnp.zeros(6, jnp.float32), jnp.zeros((6, 2), jnp.float32))
    draw = lambda step: x1[np.random.default_rng(step).integers(0, 4096, 256)]
    fitted = nk.train.fit(
        start, loss, draw, optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 1500)),
        num_updates=1500, updates_per_call=100, key=key, progress=False,
    ).model  # fmt: skip
    for t in (0.2, 0.5, 0.8):
        x = np.array([0.4, -0.3])
        found = np.polyval(fitted[0], t) * x + np.polyval(fitted[1], t)
        wanted = exact(path)(jnp.array(t), jnp.asarray(x), None)
        np.testing.assert_allclose(found, wanted, atol=0.1)
