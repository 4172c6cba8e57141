"""Which values of a parameter a plain `make test` takes."""

import pytest


def slow_but(fast, names):
    """All `names` as parameters, slow but for those in `fast`."""
    return [pytest.param(n, marks=() if n in fast else pytest.mark.slow) for n in names]
