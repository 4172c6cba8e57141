"""What the options of a controlled equation must be."""

from typing import Any, get_args

import diffrax
import jax.numpy as jnp

from ..choices import check_choice
from ..controls import Windows
from ..numbers import count, counts, real
from .cde_control import Scheme


def kind_of(
    order: int, windows: Windows | None, scheme: Scheme | None, *, adaptive: bool = False
) -> tuple[int, Windows | None, Scheme]:
    if count("order", order) > 3:
        raise ValueError(f"`order` must be 1, 2 or 3, got {order}.")
    if windows is None and order > 1:
        windows = Windows.every(8)
    if not isinstance(windows, Windows | None):
        raise ValueError(
            f"`windows` must be a `nk.controls.Windows`, got {type(windows).__name__}. "
            "Use for example `nk.controls.Windows.every(8)`."
        )
    if scheme is None:
        # Equal steps of Heun's method take the increments of a line exactly, and not those of a
        # cubic; adaptive steps may cross the readings of a smooth control.
        scheme = "hermite" if windows is None and adaptive else "linear"
    check_choice("scheme", scheme, get_args(Scheme))
    if windows is not None and scheme == "hermite":
        raise ValueError(
            "Log-signatures in windows are those of straight lines: use `scheme='linear'` or "
            "`'rectilinear'`, or order 1 without windows."
        )
    return order, windows, scheme


def check_sizes(
    channels: int, hidden: int, out: int, static: int, substeps: int, max_steps: int | None
) -> None:
    counts(channels=channels, hidden_size=hidden, out_size=out, substeps=substeps)
    count("static_size", static, 0)
    if max_steps is not None:
        count("max_steps", max_steps)


def check_dtype(dtype: Any) -> None:
    """Increments of a control are differences of times and readings, of which half precision leaves
    two or three digits.
    """
    if dtype is not None and jnp.finfo(dtype).bits < 32:
        raise ValueError(
            f"`dtype` must have 32 bits at least, got {jnp.dtype(dtype).name}: differences of "
            "times and readings need them. Use `jnp.float32`."
        )


def check_steps(controller: Any, dt0: Any, substeps: int) -> None:
    if dt0 is not None:
        real("dt0", dt0)
    if controller is None and dt0 is not None:
        raise ValueError(
            "`dt0` is the first of adaptive steps. Give a `controller`, or set the length of equal "
            "steps by `substeps`."
        )
    if controller is not None and not isinstance(
        controller, diffrax.AbstractAdaptiveStepSizeController
    ):
        raise ValueError(
            f"`controller` must be an adaptive one, such as `diffrax.PIDController`, got "
            f"{type(controller).__name__}. Equal steps are those of `controller=None`."
        )
    if controller is not None and substeps != 1:
        raise ValueError("`substeps` are those of equal steps. Leave them or `controller` out.")
