"""A user's controller that begins steps elsewhere than where the last one ended."""

import diffrax
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ndekit as nk

pytestmark = pytest.mark.usefixtures("types_unchecked", "x64")


class FromSideToSide(diffrax.AbstractStepSizeController):
    """Steps from behind one whole number to before the next, and says nothing of a jump."""

    def wrap(self, direction):
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        return eqxi.prevbefore(t0 + 1.0), None

    def adapt_step_size(self, t0, t1, y0, y1, args, y_error, error_order, controller_state):
        begin = eqxi.nextafter(jnp.round(t1))
        end = eqxi.prevbefore(jnp.round(t1) + 1.0)
        return True, begin, end, False, None, diffrax.RESULTS.successful


def solve(rates, adjoint=nk.ReplayAdjoint(), solver=diffrax.Heun(), **options):
    """A field of its own in each interval: a stage on the wrong side reads another rate."""
    field = lambda t, y, args: -args[jnp.floor(t).astype(int)] * y
    return nk.diffeqsolve(
        diffrax.ODETerm(field), solver, 0.0, 4.0 - 1e-9, None, jnp.ones(()), rates,
        stepsize_controller=FromSideToSide(), adjoint=adjoint, **options,
    )  # fmt: skip


@pytest.mark.parametrize("options", (
    dict(), dict(adjoint=nk.ReplayAdjoint(checkpoints=1)), dict(solver=diffrax.Bosh3()),
    dict(adjoint=nk.ReplayAdjoint(keep="stages")),
), ids=("all rows", "1 checkpoint", "Bosh3", "stages"))  # fmt: skip
def test_gradient_is_that_of_the_steps_that_were_taken(options):
    rates = jnp.array([0.3, -0.7, 1.1, 0.2])
    value = lambda rates: solve(rates, **options).ys[-1]
    h = 1e-6
    towards = [rates.at[i].add(h) for i in range(4)], [rates.at[i].add(-h) for i in range(4)]
    wanted = [(value(a) - value(b)) / (2 * h) for a, b in zip(*towards, strict=True)]
    np.testing.assert_allclose(jax.grad(value)(rates), wanted, rtol=1e-7)
    lanes = jax.vmap(jax.grad(value))(jnp.stack([rates, 2 * rates]))
    np.testing.assert_allclose(lanes[0], wanted, rtol=1e-7)
    slope = jax.jvp(value, (rates,), (jnp.ones(4),))[1]
    np.testing.assert_allclose(slope, sum(wanted), rtol=1e-7)
