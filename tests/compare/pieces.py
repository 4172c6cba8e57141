"""What random programs are made of: fields, noise, conditions, and a user's own solvers.

Fields are mild, so that a rounding error stays one; they work for any PyTree unless they say so. A
program shows the source of the pieces that it uses, so each stands on its own.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx


def wave(push):
    """Every entry is pulled to rest and pushed by a wave."""

    def field(t, y, args):
        def rate(x):
            wind = push.astype(x.dtype) * jnp.cos(2 * t).astype(x.dtype)
            return wind - args.astype(x.dtype) * jnp.sin(x)

        return jax.tree.map(rate, y)

    return field


def swing(push):
    """A pendulum; y has shape [2]."""

    def field(t, y, args):
        return jnp.stack([y[1], push * jnp.cos(t).astype(y.dtype) - args * jnp.sin(y[0])])

    return field


def ring(push):
    """Each entry of a vector is driven by its neighbour."""
    return lambda t, y, args: push * jnp.tanh(jnp.roll(y, 1)) - args * y


def layer(push):
    """A layer of a network; `args` is its matrix."""
    return lambda t, y, args: jnp.tanh(args @ y + push * t.astype(y.dtype))


def spin(push):
    """Turns in the complex plane."""
    return lambda t, y, args: (1j * args - push).astype(y.dtype) * y


def still(push):
    """Nothing moves."""
    return lambda t, y, args: jax.tree.map(jnp.zeros_like, y)


def clocked(push):
    """Knows the time alone."""
    return lambda t, y, args: jax.tree.map(
        lambda x: jnp.full_like(x, (push.astype(t.dtype) * t**2).astype(x.dtype)), y
    )


def switch(push, place):
    """Jumps at a time."""

    def field(t, y, args):
        sign = jnp.where(t < place, 1.0, -1.0)
        return jax.tree.map(lambda x: sign.astype(x.dtype) * push.astype(x.dtype) - 0.5 * x, y)

    return field


def gap(push, place):
    """Not a number from a time on."""
    return lambda t, y, args: jax.tree.map(lambda x: jnp.where(t < place, -x, jnp.nan), y)


def narrow(push):
    """Has no value at the far side of zero, where a step that is too long may end."""
    return lambda t, y, args: -8 * args * jnp.log(2 * y) + push * jnp.cos(t).astype(y.dtype)


def fenced(field, start, end):
    """A field that is not a number before and behind the solve, as padded data are."""

    def inside(t, y, args):
        low, high = jnp.minimum(start, end).astype(t.dtype), jnp.maximum(start, end).astype(t.dtype)
        is_in = (low <= t) & (t <= high)
        return jax.tree.map(lambda x: jnp.where(is_in, x, jnp.nan), field(t, y, args))

    return inside


def brake(rate):
    """The stiff part of a field."""
    return lambda t, y, args: jax.tree.map(lambda x: -rate * x, y)


def named(field):
    """The same field, its parameter in a dict beside a function."""
    return lambda t, y, args: field(t, y, args["rate"])


def without(field, rate):
    """The same field, without arguments."""
    return lambda t, y, args: field(t, y, jnp.asarray(rate))


def place(push):
    """What moves the first half of a state (place, speed)."""
    return lambda t, speed, args: speed


def speed(push):
    """What moves the second half of a state (place, speed)."""
    return lambda t, place, args: push * jnp.cos(t).astype(place.dtype) - args * jnp.sin(place)


def shear(push):
    """What a control of two channels does to a state of shape [2]."""
    return lambda t, y, args: jnp.stack(
        [jnp.stack([jnp.sin(y[0]), push]), jnp.stack([-args, jnp.cos(y[1])])]
    )


def additive(size):
    """Noise of one channel that does not know the state."""
    return lambda t, y, args: size * jnp.cos(jnp.arange(y.size)).astype(y.dtype)


def multiplicative(size):
    """Noise of one channel that grows with the state."""
    return lambda t, y, args: size * y


def mixing(size):
    """Noise of two channels that act on every entry."""
    return lambda t, y, args: size * jnp.outer(jnp.cos(y), jnp.ones(2, y.dtype))


def diagonal(size):
    """Noise of one channel for each entry."""
    return lambda t, y, args: lx.DiagonalLinearOperator(size * jnp.cos(y))


def first(y):
    """The first number of a state."""
    return jnp.real(jnp.ravel(jax.tree.leaves(y)[0])[0])


def crosses(level):
    """Zero where the first number passes a level."""
    return lambda t, y, args, **kwargs: first(y) - level


def clock(end):
    """Zero at a time."""
    return lambda t, y, args, **kwargs: t - end


def under(level):
    """Whether the first number is below a level."""
    return lambda t, y, args, **kwargs: first(y) < level


def late(end):
    """Whether a time has come."""
    return lambda t, y, args, **kwargs: t >= end


def summary(t, y, args):
    """What a user may save instead of the state."""
    squares = [jnp.sum(jnp.abs(x) ** 2) for x in jax.tree.leaves(y)]
    return {"sizes": squares, "twice": (2 * t,)}


def weighed(weight):
    """The same, with a number of its own."""
    return lambda t, y, args: weight * first(y) + t


def largest(y):
    """A norm of one's own."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in jax.tree.leaves(y)]))


def louder(kind):
    """A user's own solver: inherits from another and changes `step`."""

    class Louder(kind):
        def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
            args = jax.tree.map(lambda a: 2 * a if eqx.is_inexact_array(a) else a, args)
            return super().step(terms, t0, t1, y0, args, solver_state, made_jump)

    return Louder


def loss_of(sols):
    """A number that feels all that was saved; dense output at two places."""
    saved = []
    for sol in jax.tree.leaves(sols, is_leaf=lambda x: isinstance(x, diffrax.Solution)):
        path = sol.interpolation
        if path is None:
            saved.append((sol.ts, sol.ys))
        else:
            at = path.t0 + 0.37 * (path.t1 - path.t0)
            saved.append((sol.evaluate(at), sol.derivative(at), sol.evaluate(path.t1)))
    leaves = [jnp.ravel(jnp.real(x)) for x in jax.tree.leaves(saved)]
    leaves = [jnp.where(jnp.isfinite(x), x, 0.0).astype(float) for x in leaves]
    return sum([jnp.sum(x * jnp.cos(jnp.arange(x.size))) for x in leaves], jnp.zeros(()))
