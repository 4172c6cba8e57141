"""An update of diffrax's notebook on neural CDEs, with diffrax as there and with ndekit's model."""

import math
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.scipy as jsp
import numpy as np
import optax
from races import KEPT, Asked, Race, Way

import ndekit as nk

BATCH, LENGTH, HIDDEN, WIDTH, DEPTH = 32, 100, 8, 128, 1
RATE = 1e-2
OPTIMIZER = optax.adam(RATE)


class Net(eqx.Module):
    """The field of the notebook."""

    mlp: eqx.nn.MLP

    def __call__(self, t: Any, y: Any, args: Any) -> Any:
        return self.mlp(y).reshape(HIDDEN, -1)


class Peer(eqx.Module):
    """The notebook's model: a spline of which the coefficients are given, one `diffeqsolve`."""

    initial: eqx.nn.MLP
    net: Net
    readout: eqx.nn.Linear
    on_grid: bool = eqx.field(static=True)

    def __init__(self, channels: int, on_grid: bool, *, key: Any):
        keys = jr.split(key, 3)
        self.initial = eqx.nn.MLP(channels, HIDDEN, WIDTH, DEPTH, key=keys[0])
        self.net = Net(
            eqx.nn.MLP(
                HIDDEN, HIDDEN * channels, WIDTH, DEPTH, activation=jax.nn.softplus,
                final_activation=jnp.tanh, key=keys[1],
            )
        )  # fmt: skip
        self.readout = eqx.nn.Linear(HIDDEN, 1, key=keys[2])
        self.on_grid = on_grid

    def __call__(self, ts: Any, coefficients: Any) -> Any:
        control = diffrax.CubicInterpolation(ts, coefficients)
        term = diffrax.ControlTerm(self.net, control)
        adaptive = diffrax.PIDController(rtol=1e-3, atol=1e-6)
        sol = diffrax.diffeqsolve(
            term.to_ode(),
            diffrax.Heun() if self.on_grid else diffrax.Tsit5(),
            ts[0], ts[-1], None, self.initial(control.evaluate(ts[0])),
            stepsize_controller=diffrax.StepTo(ts) if self.on_grid else adaptive,
            saveat=diffrax.SaveAt(t1=True),
        )  # fmt: skip
        return self.readout(sol.ys[-1])[0]


def of_ndekit(peer: Peer, channels: int) -> nk.models.NeuralCDE:
    """The same with the same weights, along the series as it is."""
    key = jr.key(0)
    options: dict = {"scheme": "hermite"}
    if not peer.on_grid:
        adaptive = diffrax.PIDController(rtol=1e-3, atol=1e-6)
        options |= dict(solver=diffrax.Tsit5(), controller=adaptive)
    field = nk.fields.CDEField(
        HIDDEN, channels + 1, WIDTH, DEPTH, activation=jax.nn.softplus, key=key
    )
    model = nk.models.NeuralCDE(channels, HIDDEN, 1, field=field, key=key, **options)
    layers = [*peer.net.mlp.layers, peer.readout]
    where = lambda model: [*model.field.layers, model.readout]
    weights = lambda model: [x for layer in where(model) for x in (layer.weight, layer.bias)]
    new = [x for layer in layers for x in (layer.weight.T, layer.bias)]
    return eqx.tree_at(lambda m: [m.initial, *weights(m)], model, [peer.initial, *new])


def spirals() -> tuple[Any, Any, Any]:
    """Half of them clockwise: times, positions, labels."""
    ts = np.linspace(0.0, 4 * math.pi, LENGTH, dtype=np.float32)
    angle = jr.uniform(jr.key(1), (BATCH,), maxval=2 * math.pi)
    start = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    matrix = jnp.array([[-0.3, 2.0], [-2.0, -0.3]])
    flows = jax.vmap(lambda t: jsp.linalg.expm(t * matrix))(jnp.asarray(ts))
    xs = jnp.einsum("tij,bj->bti", flows, start)
    labels = jnp.arange(BATCH) < BATCH // 2
    xs = xs.at[..., 0].multiply(jnp.where(labels, -1.0, 1.0)[:, None])
    return jnp.broadcast_to(ts, (BATCH, LENGTH)), xs, labels.astype(jnp.float32)


def update_of(static: Any, logits: Callable) -> Callable:
    """`(weights, state, labels, batch) -> (weights, state, loss)`."""

    def loss(weights: Any, labels: Any, batch: Any) -> Any:
        said = logits(eqx.combine(weights, static), batch)
        return jnp.mean(optax.sigmoid_binary_cross_entropy(said, labels))

    def update(weights: Any, state: Any, labels: Any, batch: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(weights, labels, batch)
        changes, state = OPTIMIZER.update(grads, state)
        return eqx.apply_updates(weights, changes), state, value

    return update


def way_of(model: Any, logits: Callable, labels: Any, batch: Any) -> Way:
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    given = (weights, OPTIMIZER.init(weights), labels, batch)
    return Way(lambda: update_of(static, logits), given)


def notebook_race(on_grid: bool) -> Race:
    ts, xs, labels = spirals()
    channels = xs.shape[-1]
    with_time = jnp.concatenate([ts[..., None], xs], axis=-1)
    coefficients = jax.vmap(diffrax.backward_hermite_coefficients)(ts, with_time)
    peer = Peer(channels + 1, on_grid, key=jr.key(2))
    ours = of_ndekit(peer, channels)
    ways = {
        "diffrax": way_of(peer, lambda m, b: jax.vmap(m)(*b), labels, (ts, coefficients)),
        "ndekit": way_of(
            ours, lambda m, b: jax.vmap(m)(b)[0][:, 0], labels, nk.data.Series(ts, xs)
        ),
    }

    def agree() -> None:
        theirs, mine = (jax.jit(way.make())(*way.arguments)[2] for way in ways.values())
        np.testing.assert_allclose(mine, theirs, rtol=1e-4 if on_grid else 1e-2)

    return Race(
        ways,
        (Asked("an update: diffrax / ndekit", "diffrax", "ndekit", 3.0, at_least=True),),
        (Asked("trace + compile of an update: ndekit / diffrax", "ndekit", "diffrax", 0.5),),
        {"ndekit": (KEPT, 1.0), "diffrax": (KEPT, None)},
        rounds=20,
        agree=agree,
    )
