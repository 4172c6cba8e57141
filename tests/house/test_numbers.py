"""Whatever takes a number refuses what is none, or none of its kind, by name."""

import importlib
import inspect
import math
import re

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import ndekit as nk
from ndekit.numbers import count, counts, positive, real

pytestmark = pytest.mark.usefixtures("types_unchecked")

PARTS = (
    "couplings", "data", "deploy", "diagnose", "fields", "losses", "models", "paths", "probes",
    "regularize", "samplers", "train",
)  # fmt: skip
KEY = jr.key(0)
FIELD = nk.fields.MLP(2, width=4, depth=1, key=KEY)
ODE = nk.models.NeuralODE(FIELD)
LATENT = dict(size=1, latent=2, context=2, width=4, dt0=0.1, key=KEY)
FIT = dict(
    model=jnp.zeros(2),
    loss_fn=lambda w, b, s, *, key: (jnp.sum(w**2), {}),
    batch_fn=lambda step: None,
    optimizer=optax.sgd(0.1),
    num_updates=1,
    key=KEY,
    progress=False,
    evaluate=lambda w: {"loss": 0.0},
)
SOLVE = dict(term=diffrax.ODETerm(FIELD), solver=diffrax.Tsit5(), t0=0.0, t1=1.0, dt0=0.1)
ON_PATH = dict(path0=nk.paths.VE(0.002, 80.0), field=FIELD, solver=diffrax.Heun(), tolerance=1e-2)
SERIES = nk.data.Series([0.0, 0.5], np.ones((2, 1)))
SIZES = dict(channels=1, hidden_size=4, key=KEY)
SAID = nk.models.Flowed(jnp.zeros((2, 1)), jnp.zeros((2, 1)), None, None, None)
GAUSSIAN = nk.models.Flowed(jnp.zeros((2, 2, 1)), jnp.zeros((2, 2, 1)), None, None, None)
PATH = nk.models.LatentODE(1, 2, key=KEY)(SERIES, key=KEY)[0]
# What each takes besides the number in question.
GIVEN = {
    "fields.Preconditioned": dict(network=FIELD, path=nk.paths.CondOT()),
    "samplers.ClassifierFree": dict(network=FIELD, none=None),
    "samplers.ClassifierGuided": dict(
        network=FIELD, log_prob=lambda t, x, args: 0.0, path=nk.paths.CondOT()
    ),
    "samplers.Grid": dict(steps=3),
    "samplers.ReverseSDE": dict(flow=nk.samplers.ProbabilityFlow(FIELD, nk.paths.CondOT())),
    "samplers.Sampler": dict(
        solver=diffrax.Heun(), controller=diffrax.PIDController(rtol=1e-3, atol=1e-3)
    ),
    "samplers.adams": dict(steps=3),
    "samplers.adaptive": {},
    "samplers.ddim": dict(steps=3),
    "samplers.dpm_solver_2": {},
    "samplers.dpm_solver_3": {},
    "samplers.dpmpp_2m": {},
    "samplers.dpmpp_3m": {},
    "samplers.edm_heun": dict(steps=3),
    "samplers.plms": dict(steps=4),
    "samplers.unipc": dict(steps=3),
    "models.Flow": dict(network=FIELD, path=nk.paths.CondOT(), shape=2),
    "couplings.ExactOT": {},
    "couplings.SchroedingerBridge": {},
    "couplings.Sinkhorn": dict(epsilon=1.0),
    "losses.stratified_times": dict(key=KEY, number=3),
    "losses.iso": dict(field=FIELD, t=0.0, x=jnp.ones(2), h=0.1),
    "paths.Bridge": {},
    "paths.CondOT": {},
    "paths.Cosine": {},
    "paths.EDM": {},
    "paths.LearnedPath": dict(sigma_min=0.01, sigma_max=50.0),
    "paths.LogVariance": {},
    "paths.NoisyLine": {},
    "paths.PathUnits": dict(path=nk.paths.CondOT()),
    "paths.Polynomial": {},
    "paths.Shifted": dict(path=nk.paths.CondOT()),
    "paths.SubVP": {},
    "paths.VE": {},
    "paths.VP": {},
    "data.Buckets": dict(series=[SERIES], batch_size=1, key=KEY),
    "data.buckets": dict(series=[SERIES], batch_size=1, key=KEY),
    "data.black_scholes": dict(num=2, key=KEY),
    "data.brusselator": dict(num=2, key=KEY),
    "data.damped_pendulum": dict(num=2, key=KEY),
    "data.double_ou": dict(num=2, key=KEY),
    "data.double_ou_filter": dict(
        series=nk.data.Series([[0.0, 0.5]], np.ones((1, 2, 2))), mean=np.zeros((1, 2))
    ),
    "data.drop_rows": dict(series=SERIES, key=KEY),
    "data.nafld": dict(folder="/nowhere"),
    "data.ornstein_uhlenbeck": dict(num=2, key=KEY),
    "data.pad": dict(series=[SERIES]),
    "data.spirals": dict(num=2, key=KEY),
    "fields.CDEField": dict(SIZES, width=4, depth=1),
    "fields.Augmented": dict(field=FIELD, extra=1),
    "fields.ConcatSquash": dict(size=2, width=4, depth=1, key=KEY),
    "fields.ConvField": dict(channels=1, width=4, depth=1, key=KEY),
    "fields.GatedAffine": dict(in_size=2, out_size=2, key=KEY),
    "fields.Graph": dict(adjacency=np.eye(2), size=1, width=4, depth=1, key=KEY),
    "fields.Lagrangian": dict(lagrangian=lambda t, y, args: y[1] ** 2),
    "fields.UNet": dict(channels=1, width=4, groups=2, key=KEY),
    "fields.GRUFlow": dict(hidden_size=2, key=KEY),
    "fields.LinearField": SIZES,
    "fields.LogField": dict(field=nk.fields.CDEField(2, 1, 4, 1, key=KEY)),
    "models.CNF": dict(field=FIELD, base=nk.models.StandardNormal(2)),
    "models.FlowReset": dict(
        start=lambda s: jnp.zeros(2), flow=FIELD, reset=lambda y, row: y, readout=lambda y: y,
        channels=1,
    ),
    "models.GRUD": dict(SIZES, out_size=1),
    "models.GRUDt": dict(SIZES, out_size=1),
    "models.GRUODEBayes": SIZES,
    "models.JumpODE": SIZES,
    "models.LatentODE": dict(channels=1, latent=2, key=KEY),
    "models.LinearCDE": dict(SIZES, out_size=1),
    "models.NeuralCDE": dict(SIZES, out_size=1),
    "models.ODERNN": dict(SIZES, out_size=1),
    "models.StandardNormal": {},
    "models.bayes_loss": dict(said=GAUSSIAN, series=SERIES),
    "models.jump_loss": dict(said=SAID, series=SERIES),
    "models.latent_bound": dict(path=PATH, series=SERIES, noise_std=0.1),
    "regularize.schedules.kl_anneal": {},
    "data.Batches": dict(arrays=np.zeros(4), key=KEY, batch_size=2),
    "data.mnist": dict(folder="/nowhere"),
    "deploy.Correction": dict(size=2, width=4, key=KEY),
    "deploy.distill": dict(
        ode=ODE, y0=jnp.ones(2), num_steps=2, key=KEY,
        correction=nk.deploy.Correction(2, width=4, key=KEY),
    ),
    "deploy.fix_steps": dict(model=ODE, data=jnp.ones(2), max_error=0.1),
    "diagnose.record_steps": dict(SOLVE, y0=jnp.ones(2)),
    "fields.Affine": dict(in_size=2, out_size=2, key=KEY),
    "fields.MLP": dict(size=2, width=4, depth=1, key=KEY),
    "models.LatentSDE": LATENT,
    "models.MatchedLatentSDE": LATENT,
    "models.LatentPrior": {name: LATENT[name] for name in LATENT if name != "context"},
    "models.NeuralODE": dict(field=FIELD),
    "models.NeuralSDE": dict(drift=FIELD, diffusion=FIELD, noise="general", noise_size=1),
    "models.SDEGAN": dict(size=1, hidden=2, width=4, depth=1, noise_size=1, dt0=0.1, key=KEY),
    "probes.HutchPP": {},
    "probes.Hutchinson": {},
    "probes.value_and_trace": dict(fn=jnp.sin, x=jnp.ones(2), directions=jnp.eye(2)),
    "regularize.LossBudget": dict(target_loss=1.0),
    "regularize.StepBudget": dict(target_steps=8),
    "regularize.schedules.constant": dict(value=1.0),
    "regularize.schedules.linear": dict(start=1.0, end=0.0, steps=10),
    "regularize.schedules.exponential": dict(start=1.0, end=0.1, steps=10),
    "regularize.TrajectoryPolynomial": {},
    "regularize.Steer": dict(width=0.1),
    "regularize.Taylor": dict(order=2),
    "train.PathSolve": ON_PATH,
    "train.WeightAverage": dict(model=jnp.zeros(2)),
    "train.fit": FIT,
    "train.fit_path": dict(ON_PATH, starts=jnp.ones((4, 2)), key=KEY),
}  # fmt: skip
# Records of what a function found; nobody gives these numbers.
FOUND = {
    "data.Dataset",
    "data.ExpectedPaths",
    "data.Scaling",
    "deploy.FixedSteps",
    "deploy.Scheme",
    "train.FitResult",
    "train.PathFit",
}
# Made by another of these, which checks.
MADE = {"models.Generator"}
# Zero or less is meant here: none, or the other direction.
ZERO = {
    "num_validation", "start", "end", "depth", "degree", "gain", "decay", "value", "input_size",
    "condition_weight", "paths.Bridge.sigma", "paths.NoisyLine.sigma",
    "paths.CondOT.sigma_min",
    "static_size", "final_gain", "scale", "mixing", "weight", "share", "damping", "spread",
    "inertia", "fields.UNet.depth", "ndim", "eta", "rtol", "atol",
    "data.brusselator.volatility", "data.spirals.noise_std", "data.damped_pendulum.noise_std",
}  # fmt: skip
# Of a solve that runs backwards; of processes that may go anywhere.
EITHER_SIGN = {
    "dt0", "drift", "mean", "correlation", "data.ornstein_uhlenbeck.start",
    "samplers.ClassifierFree.weight", "samplers.ClassifierGuided.weight",
    "data.spirals.decay", "losses.stratified_times.lo", "losses.stratified_times.hi",
}  # fmt: skip
NO_COUNTS = (2.5, 2.0, math.nan, math.inf, True, "3", None, np.array(1.5), np.array([1, 2]))
NO_NUMBERS = (math.nan, math.inf, -math.inf, True, "3", 1j, np.array([1.0, 2.0]))


def public():
    """Every public function and class, by name."""
    for part in PARTS:
        module = importlib.import_module(f"ndekit.{part}")
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.ismodule(thing):
                found = vars(thing).items()
                own = {n: f for n, f in found if getattr(f, "__module__", "") == thing.__name__}
                yield from ((f"{part}.{name}.{n}", f) for n, f in own.items() if n[0] != "_")
            elif not (inspect.isclass(thing) and issubclass(thing, Exception)):
                yield f"{part}.{name}", thing


def numbers_of(thing):
    """Names and kinds of the parameters that are said to be numbers."""
    for parameter in inspect.signature(thing).parameters.values():
        said = str(parameter.annotation)
        plain = re.fullmatch(r"<class '(int|float)'>|(int|float)( \| .*)?", said)
        if plain:
            yield parameter.name, "int" if "int" in said and "float" not in said else "float"
        elif parameter.name == "dt0":
            yield parameter.name, "float"


ARGUMENTS = [
    (name, thing, argument, kind)
    for name, thing in public()
    if name not in FOUND | MADE
    for argument, kind in numbers_of(thing)
]


def test_the_law_looks_at_something():
    assert len(ARGUMENTS) > 50
    assert {("regularize.Taylor", "order"), ("train.fit", "patience")} <= {
        (name, argument) for name, _, argument, _ in ARGUMENTS
    }


def bad_values(name, argument, kind, thing):
    bad = list(NO_COUNTS if kind == "int" else NO_NUMBERS)
    said = str(inspect.signature(thing).parameters[argument].annotation)
    if "None" in said or argument == "max_steps":  # without a bound, in models
        bad = [value for value in bad if value is not None]
    names = {argument, f"{name}.{argument}"}
    if not names & EITHER_SIGN:
        bad.append(-1 if kind == "int" else -1.0)
    if not names & (ZERO | EITHER_SIGN):
        bad.append(0 if kind == "int" else 0.0)
    return bad


@pytest.mark.filterwarnings("ignore:A JAX array is being set as static:UserWarning")
@pytest.mark.parametrize(
    ("name", "thing", "argument", "kind"), ARGUMENTS, ids=[f"{a[0]}-{a[2]}" for a in ARGUMENTS]
)
def test_what_is_no_number_of_its_kind_is_refused_by_name(name, thing, argument, kind):
    assert name in GIVEN, f"a new function with numbers: what else does {name} take?"
    for value in bad_values(name, argument, kind, thing):
        with pytest.raises(ValueError, match=f"`{argument}` must"):
            thing(**{**GIVEN[name], argument: value})


@pytest.mark.parametrize(
    "bad", [-1.0, math.nan, math.inf, "1", jnp.array(-0.5), lambda step: -1.0, lambda s: jnp.nan]
)
def test_a_coefficient_that_is_no_weight_is_refused_by_name(bad):
    with pytest.raises(ValueError, match=r"`coefficients\['steps'\]` must be"):
        nk.penalty({"steps": jnp.array(1.0)}, {"steps": bad})


def test_numbers_that_are_traced_are_let_through():
    weighed = jax.jit(lambda c: nk.penalty({"steps": jnp.array(2.0)}, {"steps": c})[0])
    assert weighed(0.5) == 1.0
    budget = lambda target: nk.StepBudget(target).target_steps
    assert jax.jit(budget)(8.0) == 8.0


def test_integers_and_numbers_of_other_libraries_are_taken():
    assert count("n", np.int64(3)) == 3 == count("n", jnp.array(3))
    counts(a=1, b=np.int32(7))
    positive("x", np.float32(0.5))
    real("x", jnp.array(-2.0))
    assert nk.fields.MLP(2, 4, 1, out=np.int64(3), key=KEY).out == (3,)


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (lambda: count("n", 2.5), "`n` must be a whole number, got 2.5."),
        (lambda: count("n", 10.0), "`n` must be a whole number, got 10.0."),
        (lambda: count("n", 0), "`n` must be at least 1, got 0."),
        (lambda: real("x", math.nan), "`x` must be a finite number, got nan."),
        (lambda: positive("x", -1.0), "`x` must be positive, got -1.0."),
        (
            lambda: real("x", 2.0, least=0.0, most=1.0, advice="Mend it."),
            "`x` must be at least 0 and at most 1, got 2.0. Mend it.",
        ),
    ],
)
def test_messages_say_what_was_expected_and_what_came(check, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        check()
