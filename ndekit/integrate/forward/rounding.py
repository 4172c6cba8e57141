"""Products of matrices that an accelerator rounds, where an error estimate must see further."""

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core

from ..times import is_concrete
from .problem import Operands, Problem

# The sum of both tolerances. At looser ones the rounding costs a step or two.
_TIGHT = 2.01e-3
_PRODUCTS = ("dot_general", "conv_general_dilated")


def warn_of_rounding(problem: Problem, operands: Operands) -> None:
    """Say that an error estimate will mostly be rounding, if it will be.

    By default a GPU or TPU multiplies float32 matrices in some ten bits. The field is then known to
    three digits, and a controller that asks for six shortens the steps until it gets them.
    """
    if jax.default_backend() == "cpu":
        return
    both = eqx.combine(operands.tolerances, problem.tolerances)
    if not all(x is not None and is_concrete(x) for x in both):
        return
    rtol, atol = (float(np.min(np.asarray(x))) for x in both)
    if rtol + atol > _TIGHT or not rounds(problem.dynamics.jaxpr.jaxpr):
        return
    warnings.warn(
        f"At rtol={rtol:g}, atol={atol:g} the error estimate of this solve will mostly be "
        "rounding, and its steps many times too short: this device multiplies float32 matrices in "
        "about ten bits unless told otherwise. Call "
        "`jax.config.update('jax_default_matmul_precision', 'highest')`, or set it to 'default' to "
        "say that you want it so.",
        stacklevel=2,
    )


def rounds(jaxpr: jex_core.Jaxpr) -> bool:
    """Whether a program multiplies float32 matrices in a precision that nobody chose."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in _PRODUCTS and _is_unchosen(eqn.params, eqn.invars[0].aval):
            return True
        if any(rounds(inner) for inner in jex_core.jaxprs_in_params(eqn.params)):
            return True
    return False


def _is_unchosen(params: dict[str, Any], operand: Any) -> bool:
    return params["precision"] is None and operand.dtype == jnp.float32
