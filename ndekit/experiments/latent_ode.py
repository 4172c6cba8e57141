"""Series as readings of a latent ODE: the time series experiment of Pal et al. (2021)."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, Key

from ..fields import MLP
from ..models import LatentODE, NeuralODE
from ..models.densities import Normal
from ..regularize import schedules
from ..shapes import Args, Time
from .harness.config import Config
from .harness.readings import Given, Wanted, hopping, twin, visits
from .harness.regularizers import Regularizer
from .harness.series import AbstractSeriesTask, SeriesParts, Work
from .harness.solves import ode_of, solve_options, with_part
from .harness.task import AbstractODETask, Metric


class Said(NamedTuple):
    """The means of readings at the times asked for, and the posterior of the first state."""

    values: Float[Array, "batch times channels"]
    posterior: Normal


class Blocks(eqx.Module):
    """tanh, then networks with one hidden layer, tanh after each layer: the field of paper A's
    code.
    """

    blocks: tuple[MLP, ...]

    def __init__(self, size: int, width: int, number: int, *, key: Key[Array, ""]):
        self.blocks = tuple(
            MLP(size, width, 1, final="tanh", near_zero=False, key=one)
            for one in jr.split(key, number)
        )

    def __call__(self, t: Time, y: Float[Array, "*batch size"], args: Args = None) -> Any:
        y = jnp.tanh(y)
        for block in self.blocks:
            y = block(t, y, args)
        return y


class Together(eqx.Module):
    """Latent paths of a batch as one state, at times that all its series share."""

    ode: NeuralODE
    latent: LatentODE  # without its field, which is in `ode`
    ts: tuple[float, ...] = eqx.field(static=True)

    def encoder(self, x: Given) -> Float[Array, "batch latent"]:
        """The first states of the paths of a prediction."""
        return jax.vmap(self.latent.posterior)(x.series).mean

    def __call__(self, x: Given, args: Args = None, *, key: Any = None) -> tuple[Said, Any]:
        posterior = jax.vmap(self.latent.posterior)(x.series)
        z0, solve = posterior.mean, None
        if key is not None:
            draw, solve = jr.split(key)
            z0 = posterior.sample(key=draw)
        solution = self.ode(z0, ts=jnp.asarray(self.ts, z0.dtype), key=solve)
        assert solution.ys is not None
        values = jax.vmap(jax.vmap(self.latent.decoder))(jnp.swapaxes(solution.ys, 0, 1))
        return Said(values, posterior), solution


class OneByOne(eqx.Module):
    """Latent paths of a batch, each series solved for itself at times of its own."""

    ode: LatentODE

    def __call__(self, x: Given, args: Args = None, *, key: Any = None) -> tuple[Said, Work]:
        keys = None if key is None else jr.split(key, len(x))

        def along(series: Any, ts: Array, key: Any) -> tuple[Said, Work]:
            path, solution = self.ode(series, ts, key=key)
            costs, stats = jax.tree.map(lambda leaf: leaf[0], (solution.costs, solution.stats))
            if path.encoder is not None:  # its work is work, too; its accepted steps are not shown
                counted = ("num_steps", "num_evals")
                stats = {**stats, **{n: stats[n] + path.encoder.stats[n] for n in counted}}
            return Said(path.values[0], path.posterior), Work(costs, stats)

        ts: Any = x.ts
        return jax.vmap(along)(x.series, ts, keys)


def _judged(
    said: Said, wanted: Wanted, noise_std: float, beta: Any
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """As published, without what is constant: the squared error over twice a variance, and `beta`
    times the divergence in the mean over latent numbers; and the error asked for.
    """
    squares = (wanted.xs - said.values) ** 2
    of = lambda weights: jnp.mean(jnp.sum(weights * squares, axis=(1, 2)))
    mean, log_std = said.posterior
    divergence = 0.5 * jnp.mean(jnp.exp(2 * log_std) + mean**2 - 1 - 2 * log_std)
    return of(wanted.trained) / (2 * noise_std**2) + beta * divergence, of(wanted.asked)


def _beta(per_epoch: int, step: Any) -> Any:
    """The weight of the divergence: let in from the eleventh epoch on; whole outside training."""
    return 1.0 if step is None else schedules.kl_anneal(10)(step // per_epoch)


class Twin(AbstractODETask):
    """Readings by their squared error: of each series the mean, a batch one state."""

    metric: ClassVar[Metric] = Metric("error", False, 1000.0, "e-3")

    def __init__(self, per_epoch: int = 10):
        self.per_epoch = per_epoch

    def build_model(
        self, config: Any, regularizer: Regularizer, data: SeriesParts, *, key: Key[Array, ""]
    ) -> Together:
        """Its encoder and its field are those of paper A's code."""
        keys = jr.split(key)
        latent = LatentODE(
            data.train_y.xs.shape[-1], 20, encoder="gated", encoder_size=50, t0=0.0, key=keys[0],
            encoder_options={"units": 40},
        )  # fmt: skip
        latent = _narrow(latent)
        ts = tuple(data.train_x.ts[0].tolist())
        ode = ode_of(config, Blocks(20, config.width, config.depth, key=keys[1]), regularizer)
        return Together(ode, with_part(lambda latent: latent.field, latent, None), ts)

    def judge(self, prediction: Said, targets: Wanted, step: Any = None) -> tuple[Array, Array]:
        return _judged(prediction, targets, 0.01, _beta(self.per_epoch, step))


class Hops(AbstractSeriesTask):
    """All rows by their squared error, from some of them."""

    metric: ClassVar[Metric] = Metric("error", False, 1000.0, "e-3")

    def __init__(self, per_epoch: int):
        self.per_epoch = per_epoch

    def build_model(
        self, config: Any, regularizer: Regularizer, data: SeriesParts, *, key: Key[Array, ""]
    ) -> OneByOne:
        """`config.model` names the encoder."""
        return _one_by_one(config, regularizer, data, 15, 40, key)

    def judge(self, prediction: Said, targets: Wanted, step: Any = None) -> tuple[Array, Array]:
        return _judged(prediction, targets, 0.01, _beta(self.per_epoch, step))


class Visits(AbstractSeriesTask):
    """Forecasts of later readings by their squared error, in standard deviations."""

    metric: ClassVar[Metric] = Metric("error", False, 1.0, "sd^2")

    def __init__(self, per_epoch: int):
        self.per_epoch = per_epoch

    def build_model(
        self, config: Any, regularizer: Regularizer, data: SeriesParts, *, key: Key[Array, ""]
    ) -> OneByOne:
        """`config.model` names the encoder."""
        return _one_by_one(config, regularizer, data, 10, 30, key)

    def judge(self, prediction: Said, targets: Wanted, step: Any = None) -> tuple[Array, Array]:
        """With 0.8 for the noise of a reading, about what is left after the best simple rule."""
        return _judged(prediction, targets, 0.8, _beta(self.per_epoch, step))


def _one_by_one(
    config: Any, regularizer: Regularizer, data: SeriesParts, latent: int, encoder_size: int,
    key: Key[Array, ""],
) -> OneByOne:  # fmt: skip
    options = solve_options(config, regularizer)
    encoder_options = {}
    if config.model == "ode_rnn":  # as its decoder is solved, but nothing is charged for it
        encoder_options = {name: options[name] for name in ("controller", "max_steps")}
    model = LatentODE(
        data.train_y.xs.shape[-1], latent, encoder=config.model, encoder_size=encoder_size,
        width=config.width, depth=config.depth, t0=0.0, key=key, encoder_options=encoder_options,
        **options,
    )  # fmt: skip
    return OneByOne(_narrow(model))


def _narrow(model: LatentODE) -> LatentODE:
    """The posterior a twentieth as wide as the prior at first. As wide as the prior, its noise
    hides the first state from the decoder, which then learns each channel's mean and no more: so
    it was for 400 updates of a twin.
    """
    where = lambda model: model.encoder.model.readout
    readout = where(model)
    net = lambda readout: getattr(readout, "net", readout).layers[-1].bias
    bias = net(readout)
    return with_part(where, model, eqx.tree_at(net, readout, bias.at[model.latent :].set(-6.0)))


def _adam(num_updates: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(0.01, num_updates))


# The published ones are those of Pal et al., for their tolerance.
_COEFFICIENTS = {
    "steps": 0.3,
    "budget": 10.0,
    "error": (1000.0, 100.0),
    "error_sum": 1.0,
    "error_squared": 1.0,
    "stiffness": 10.0,
    "error+stiffness": 10.0,
    "local_time": 100.0,
    "local_step": 100.0,
    "local_time_published": (100.0, 10.0),
    "local_step_published": (100.0, 10.0),
    "taylor2": 0.01,
    "taylor3": 1e-3,
    "rnode": 0.01,
    "tpr": 1.0,
}
_TWIN = Config(
    about="series of the shape of PhysioNet 2012, paper A's latent ODE: Tsit5, Adam",
    load=lambda folder: twin(),
    task=Twin(per_epoch=10),
    width=50,
    depth=4,
    final="tanh",
    rtol=1e-4,
    atol=1e-4,
    pcoeff=0.4,
    icoeff=0.3,
    epochs=80,
    batch_size=128,
    optimizer=_adam,
    updates_per_call=10,
    predict_batch=512,
    coefficients=_COEFFICIENTS,
    max_steps=1024,
)
_HOPPER = Config(
    about="a hopping robot, 30 rows of 100 read, ODE-RNN encoder: Tsit5, Adam",
    load=lambda folder: hopping(0.3, folder),
    task=Hops(per_epoch=20),
    model="ode_rnn",
    width=50,
    depth=2,
    final="scaled_tanh",
    rtol=1e-3,
    atol=1e-3,
    epochs=60,
    batch_size=50,
    optimizer=_adam,
    updates_per_call=20,
    predict_batch=200,
    coefficients=_COEFFICIENTS,
    max_steps=1024,
)
_VISITS = _HOPPER._replace(
    about="cholesterol and blood pressure, the second half forecast from the first: Tsit5, Adam",
    load=visits,
    task=Visits(per_epoch=71),
    model="gru",
    epochs=20,
    batch_size=100,
    updates_per_call=71,
    predict_batch=396,
)


def _hopper(share: float, model: str) -> Config:
    about = f"the same, {round(100 * share)} rows of 100 read, {model} encoder"
    return _HOPPER._replace(about=about, load=lambda folder: hopping(share, folder), model=model)


PRESETS = {
    "twin": _TWIN,
    "twin_paper_a": _TWIN._replace(
        about="the same at the length, size and tolerance of paper A",
        load=lambda folder: twin((5120, 640, 1280)),
        rtol=1.4e-8,
        atol=1.4e-8,
        float64=True,
        epochs=300,
        batch_size=512,
        optimizer=lambda num_updates: optax.adamax(lambda step: 0.01 / (1 + 1e-5 * step)),
    ),
    "nafld": _VISITS,
    "hopper_10": _hopper(0.1, "ode_rnn"),
    "hopper_10_gru": _hopper(0.1, "gru"),
    "hopper_30": _HOPPER,
    "hopper_30_gru": _hopper(0.3, "gru"),
    "hopper_50": _hopper(0.5, "ode_rnn"),
    "hopper_50_gru": _hopper(0.5, "gru"),
}
