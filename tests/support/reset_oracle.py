"""A solve with resets as a user of diffrax writes it: one solve for each gap."""

import math

import diffrax
import jax
import jax.numpy as jnp
from jax import lax


def by_gaps(terms, solver, t0, t1, y0, args, update, ts, *, dt0=None, grid=None, anew=False):
    """The state at `t1`, and those before and after each reset: by `diffrax.diffeqsolve` over each
    gap, along the parts of `grid`, or of equal steps of about `dt0`. `anew`: the first step of a
    gap is what was left of an attempt at all of it, a share that stays as the gap moves.
    """
    before, after, y, start = [], [], y0, t0
    sign = 1 if t1 > t0 else -1
    if grid is None:
        number = math.ceil(float(lax.stop_gradient(t1 - t0)) / dt0)
        # As diffrax's constant steps: the first is of `dt0`, the others are fractions of the whole.
        grid = [t0 + dt0, *(t0 + (t1 - t0) * (i / number) for i in range(2, number))]

    def over(start, end, y):
        if (end - start) * sign <= 0:
            return y
        controller = diffrax.StepTo(_part(grid, start, end, sign, anew))
        sol = diffrax.diffeqsolve(
            terms, solver, start, end, None, y, args, stepsize_controller=controller, max_steps=256,
        )  # fmt: skip
        return jax.tree.map(lambda y: y[-1], sol.ys)

    for index in range(len(ts)):
        y = over(start, ts[index], y)
        before.append(y)
        y = update(index, ts[index], y, args)
        after.append(y)
        start = ts[index]
    y = over(start, t1, y)
    stack = lambda rows: jax.tree.map(lambda *x: jnp.stack(x), *rows)
    return y, stack(before), stack(after)


def _part(grid, start, end, sign, anew):
    """The times of a grid between two, these included: as arrays that carry their derivative."""
    inner = [t for t in grid if (t - start) * sign > 1e-9 and (end - t) * sign > 1e-9]
    if anew and inner:
        share = lax.stop_gradient((inner[0] - start) / (end - start))
        inner[0] = start + share * (end - start)
    return jnp.stack([jnp.asarray(t, jnp.float64) for t in (start, *inner, end)])
