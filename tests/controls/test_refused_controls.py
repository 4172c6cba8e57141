"""What controls do not take, and what they say then."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ndekit as nk

pytestmark = pytest.mark.usefixtures("types_unchecked")
controls = nk.controls


def series(channels=2, rows=4):
    return nk.data.Series(np.arange(1.0, 1 + rows), np.ones((rows, channels)))


def batch():
    return nk.data.Series(np.ones((3, 1)) * np.arange(4.0), np.ones((3, 4, 2)))


def timed():
    return controls.channels(series())


def signature(channels=2, depth=2):
    return controls.LogSignature.identity(channels, depth)


WRONG = {
    "array for a series": (lambda: controls.linear(np.ones((4, 2))), "needs a `nk.data.Series`"),
    "array for channels": (lambda: controls.channels(np.ones((4, 2))), "needs a `nk.data.Series`"),
    "batch, linear": (lambda: controls.linear(batch()), "Use `jax.vmap(linear)(series)`"),
    "batch, hermite": (lambda: controls.hermite(batch()), "Use `jax.vmap(hermite)(series)`"),
    "batch, rectilinear": (lambda: controls.rectilinear(batch()), "(time, channel), got (3, 4, 2)"),
    "batch, windows": (lambda: controls.logsignature(batch(), 2), "Use `jax.vmap(logsignature)"),
    "start, too many": (lambda: controls.linear(series(), start=[0.0] * 3), "each of the 2 chan"),
    "start, NaN": (lambda: controls.hermite(series(), start=np.nan), "`start` must be finite"),
    "start, infinite": (lambda: controls.rectilinear(timed(), start=np.inf), "must be finite"),
    "no time": (lambda: controls.rectilinear(series()), "row 1 holds 1 at time 2. Pass `nk.contr"),
    "another time": (lambda: controls.rectilinear(timed(), time=1), "Channel 1 of `rectilinear`"),
    "time out of range": (lambda: controls.rectilinear(timed(), time=3), "one of the 3 channels"),
    "time, no number": (lambda: controls.rectilinear(timed(), time="0"), "whole number"),
    "times at once": (lambda: controls.linear(series()).evaluate(jnp.ones(2)), "Use `jax.vmap`"),
    "counts": (lambda: controls.channels(series(), counts="all"), "one of missing, each, rows, n"),
    "per": (lambda: controls.channels(series(), per=0.0), "`per` must be positive"),
    "counts, traced": (lambda: jax.vmap(controls.channels)(batch()), 'Use `counts="each"`'),
    "depth 0": (lambda: controls.logsignature(series(), 0), "at least 1"),
    "depth 4": (lambda: controls.logsignature(series(), 4), "must be 1, 2 or 3, got 4"),
    "depth, none": (lambda: controls.logsignature(series(), 2.0), "whole number"),
    "windows": (lambda: controls.logsignature(series(), 2, 8), "Use `Windows.every(count)`"),
    "control": (
        lambda: controls.logsignature(series(), 2, control=controls.hermite),
        "Use `control=nk.controls.linear`",
    ),
    "every 0": (lambda: controls.Windows.every(0), "`count` must be at least 1"),
    "every half": (lambda: controls.Windows.every(0.5), "`count` must be a whole number"),
    "no duration": (lambda: controls.Windows.of(0.0), "`duration` must be positive"),
    "NaN long": (lambda: controls.Windows.of(np.nan), "`duration` must be"),
    "no windows": (lambda: controls.Windows.of(1.0, num=0), "`num` must be at least 1"),
    "start of windows": (lambda: controls.Windows.of(1.0, start=np.inf), "`start` must be"),
    "number unknown": (
        lambda: jax.vmap(lambda s: controls.logsignature(s, 2, controls.Windows.of(1.0)))(batch()),
        "`Windows.of(duration, num=...)`",
    ),
    "one edge": (lambda: controls.Windows.at([1.0]), "at least two times"),
    "edges in rows": (lambda: controls.Windows.at(np.ones((2, 2))), "at least two times"),
    "edges repeat": (lambda: controls.Windows.at([0.0, 1.0, 1.0]), "must be finite and increase"),
    "edges fall": (lambda: controls.Windows.at([1.0, 0.0]), "must be finite and increase"),
    "edges, NaN": (lambda: controls.Windows.at([0.0, np.nan]), "must be finite and increase"),
    "depths differ": (lambda: signature(depth=1) @ signature(depth=2), "the same depth, channels"),
    "channels differ": (lambda: signature(2) @ signature(3), "the same depth, channels"),
    "levels": (
        lambda: controls.LogSignature((jnp.ones(2), jnp.ones((2, 3))), jnp.ones(())),
        "must have shapes [(2,), (2, 2)]",
    ),
    "no levels": (lambda: controls.LogSignature((), jnp.ones(())), "must be 1 to 3 arrays"),
    "durations": (
        lambda: controls.LogSignature((jnp.ones((5, 2)),), jnp.ones(4)), "`durations` (5,)"
    ),
    "prefixes of one": (lambda: signature().prefixes(), "needs a stack"),
    "no signature": (lambda: controls.to_lyndon(jnp.ones(3)), "needs a `nk.controls.LogSignature`"),
    "coefficients": (lambda: controls.from_lyndon(jnp.ones(4), 2, 2), "2 channels have 3"),
    "words, depth": (lambda: controls.lyndon_words(2, 4), "must be 1, 2 or 3"),
    "words, channels": (lambda: controls.lyndon_words(0, 2), "`num_channels` must be at least 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_it_is_refused_with_a_remedy(name):
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        call()
    assert str(error.value).endswith(".")


def test_a_signature_composes_with_nothing_else():
    with pytest.raises(TypeError):
        signature() @ 2.0
