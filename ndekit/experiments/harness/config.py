"""What an experiment is: a data set, a network, a solve, an optimiser, and coefficients."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import optax

from .classification import Classification
from .task import AbstractTask

# A constant, or the start and the end of an exponential schedule over all updates.
Coefficient = float | tuple[float, float]


class Config(NamedTuple):
    """A model with an ODE inside: every number that a run depends on.

    Attributes:
        about: one line for `ndekit list`.
        task: what the model is for.
        load: the data; takes the folder that the user named, or `None`.
        width, depth: units in each of the field's hidden layers, and how many there are.
        final: what follows the field's last layer, as in [`ndekit.fields.MLP`][].
        rtol, atol: tolerances of the solve on t in [0, 1], by Tsit5 or, for an SDE, as its task
            has it.
        pcoeff, icoeff: of the step size controller.
        max_steps: attempts that a solve may take.
        dt0: the first step; `None` for the controller's own choice.
        equal_steps: so many of them from one reading to the next, in place of tolerances: for
            experiments on series. A solver that controls no error has nothing to be regularised.
        model: which of its models, for an experiment that compares several.
        float64: whether everything is in float64 (JAX's x64 mode is switched on for the process).
        epochs, batch_size: how long to train; what is left over of an epoch is dropped.
        optimizer: makes the optax transformation, given the number of updates.
        updates_per_call: updates in one compiled call, at most.
        predict_batch: images that are solved as one state when the model is measured.
        average_from: after which part of the updates the trained model begins to be the mean of
            the weights; `None` for the last weights.
        coefficients: the default for each regulariser that makes sense here.
    """

    about: str
    load: Callable[[str | None], Any]
    width: int
    final: Literal["scaled_tanh", "tanh", "linear"]
    rtol: float
    atol: float
    epochs: int
    batch_size: int
    optimizer: Callable[[int], optax.GradientTransformation]
    updates_per_call: int
    predict_batch: int
    coefficients: Mapping[str, Coefficient]
    pcoeff: float = 0.0
    icoeff: float = 1.0
    max_steps: int = 256
    depth: int = 1
    dt0: float | None = None
    equal_steps: int | None = None
    model: str = ""
    float64: bool = False
    average_from: float | None = None
    task: AbstractTask = Classification()
