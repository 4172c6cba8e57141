"""An update of diffrax's notebook on continuous normalizing flows, by diffrax and by ndekit."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from races import KEPT, Asked, Race, Way

import ndekit as nk

BATCH, WIDTH, DEPTH, T1, DT0 = 512, 64, 3, 0.5, 0.05
OPTIMIZER = optax.adamw(1e-3, weight_decay=1e-5)
DIFFRAX, LANES, STATE = "diffrax, vmap", "ndekit, vmap", "ndekit, one state"


class ConcatSquash(eqx.Module):
    """The notebook's layer: an affine map, scaled and shifted by time."""

    weight: Any
    bias: Any
    scale: Any
    scale_bias: Any
    shift: Any

    def __init__(self, in_size: int, out_size: int, key: Any):
        keys = jr.split(key, 3)
        limit = in_size**-0.5
        self.weight = jr.uniform(keys[0], (in_size, out_size), minval=-limit, maxval=limit)
        self.bias, self.scale_bias = jnp.zeros(out_size), jnp.zeros(out_size)
        self.scale = jr.uniform(keys[1], (out_size,), minval=-1.0, maxval=1.0)
        self.shift = jr.uniform(keys[2], (out_size,), minval=-1.0, maxval=1.0)

    def __call__(self, t: Any, y: Any) -> Any:
        scale = jax.nn.sigmoid(t * self.scale + self.scale_bias)
        y = y @ self.weight
        wide = lambda x: jnp.broadcast_to(x, y.shape)
        return (y + wide(self.bias)) * wide(scale) + wide(t * self.shift)


class Net(eqx.Module):
    """The notebook's field, for any leading axes."""

    layers: list

    def __init__(self, key: Any):
        sizes = [2, *[WIDTH] * DEPTH, 2]
        keys = jr.split(key, DEPTH + 1)
        pairs = zip(sizes[:-1], sizes[1:], keys, strict=True)
        self.layers = [ConcatSquash(a, b, k) for a, b, k in pairs]

    def __call__(self, t: Any, y: Any, args: Any) -> Any:
        for layer in self.layers[:-1]:
            y = jnp.tanh(layer(t, y))
        return self.layers[-1](t, y)


def by_diffrax(net: Net, x: Any, probe: Any) -> Any:
    """The log density of one sample as the notebook has it: the trace by reverse mode."""

    def exact(t: Any, state: Any, net: Any) -> Any:
        rate, vjp = jax.vjp(lambda y: net(t, y, None), state[0])
        (jacobian,) = jax.vmap(vjp)(jnp.eye(2))
        return rate, jnp.trace(jacobian)

    def estimated(t: Any, state: Any, net: Any) -> Any:
        rate, vjp = jax.vjp(lambda y: net(t, y, None), state[0])
        return rate, jnp.sum(vjp(probe)[0] * probe)

    term = diffrax.ODETerm(exact if probe is None else estimated)
    sol = diffrax.diffeqsolve(term, diffrax.Tsit5(), T1, 0.0, -DT0, (x, jnp.zeros(())), net)
    assert sol.ys is not None
    return sol.ys[1][0] + nk.models.StandardNormal(2).log_prob(sol.ys[0][0])


def flow_of(net: Net, exact: bool) -> nk.models.CNF:
    trace = nk.probes.Exact() if exact else nk.probes.Hutchinson("gaussian")
    return nk.models.CNF(
        net, nk.models.StandardNormal(2), t1=T1, dt0=DT0, trace=trace,
        controller=diffrax.ConstantStepSize(),
    )  # fmt: skip


def densities(exact: bool) -> dict[str, Callable]:
    """`(net, xs, keys) -> log densities`, by three ways."""

    def diffrax_lanes(net: Any, xs: Any, keys: Any) -> Any:
        probes = None if exact else jax.vmap(lambda key: jr.normal(key, (2,)))(keys)
        return jax.vmap(by_diffrax, in_axes=(None, 0, None if exact else 0))(net, xs, probes)

    def lanes(net: Any, xs: Any, keys: Any) -> Any:
        return jax.vmap(lambda x, key: flow_of(net, exact).log_prob(x, key=key))(xs, keys)

    def one_state(net: Any, xs: Any, keys: Any) -> Any:
        return flow_of(net, exact).log_prob(xs, key=keys[0])

    return {DIFFRAX: diffrax_lanes, LANES: lanes, STATE: one_state}


def update_of(density: Callable) -> Callable:
    loss = lambda net, xs, keys: -jnp.mean(density(net, xs, keys))

    def update(net: Any, state: Any, xs: Any, keys: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(net, xs, keys)
        changes, state = OPTIMIZER.update(grads, state, net)
        return eqx.apply_updates(net, changes), state, value

    return update


def gradient_of(density: Callable) -> Callable:
    return jax.grad(lambda net, xs, keys: -jnp.mean(density(net, xs, keys)))


def plain(net: Net, xs: Any, keys: Any) -> Any:
    """The points alone, as one state."""
    sol = flow_of(net, True).ode(xs)
    return jnp.sum(jnp.asarray(sol.ys) ** 2, axis=-1)


def notebook_race(exact: bool) -> Race:
    net, xs = Net(jr.key(0)), 2 * jr.normal(jr.key(1), (BATCH, 2))
    keys, given = jr.split(jr.key(2), BATCH), densities(exact)
    state = OPTIMIZER.init(net)
    ways = {
        name: Way(lambda density=density: update_of(density), (net, state, xs, keys))
        for name, density in given.items()
    }
    for name in (LANES, STATE):
        density = given[name]
        forward = lambda density=density: lambda *args: density(*args)
        ways[f"forward, {name}"] = Way(forward, (net, xs, keys))
        ways[f"gradient, {name}"] = Way(lambda d=density: gradient_of(d), (net, xs, keys))
    ways["plain solve"] = Way(lambda: lambda *args: plain(*args), (net, xs, keys))

    def agree() -> None:
        # One state draws its probes from one key, so that only exact traces can be compared.
        names = list(given) if exact else [DIFFRAX]
        found = [jax.jit(ways[name].make())(*ways[name].arguments)[2] for name in names]
        np.testing.assert_allclose(found, found[0], rtol=1e-4)

    asked = [
        Asked("an update: diffrax / ndekit under vmap", DIFFRAX, LANES, 2.0, True),
        Asked("an update: diffrax / ndekit as one state", DIFFRAX, STATE, 3.0, True),
        *[Asked(f"gradient / forward: {n}", f"gradient, {n}", f"forward, {n}", 4.3)
          for n in (LANES, STATE)],
        Asked(f"{'exact' if exact else 'estimated'} trace / plain solve, one state",
              f"forward, {STATE}", "plain solve", 2.5 if exact else None),
    ]  # fmt: skip
    compiled = [
        Asked(f"trace + compile of an update: {name} / diffrax", name, DIFFRAX, 0.5)
        for name in (LANES, STATE)
    ]
    memory: dict[str, tuple[int, float | None]] = {name: (KEPT, None) for name in given}
    return Race(ways, tuple(asked), tuple(compiled), memory, rounds=15, agree=agree)
