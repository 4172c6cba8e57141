"""Every experiment and every regulariser by the name that a user types."""

import difflib
from collections.abc import Collection
from typing import NamedTuple

from ...numbers import count, positive
from .config import Coefficient, Config
from .errors import SettingError, UnknownNameError
from .measured import Measurement
from .regularizers import ABLATION, REGULARIZERS, Regularizer

# By name, the default preset first. `experiments/catalogue.py`, their list, fills it from above.
EXPERIMENTS: dict[str, dict[str, Config]] = {}
MEASUREMENTS: dict[str, Measurement] = {}


class Job(NamedTuple):
    """One run: which experiment, which regulariser with which coefficient, which seed.

    Attributes:
        coefficient: a number, or the start and the end of an exponential schedule; 0 for none.
    """

    experiment: str
    preset: str
    regularizer: str
    coefficient: Coefficient
    seed: int
    epochs: int

    @property
    def name(self) -> str:
        """A folder's name that no other job has."""
        ends = self.coefficient if isinstance(self.coefficient, tuple) else (self.coefficient,)
        strength = "to".join(f"{value:g}" for value in ends)
        return (
            f"{self.experiment}-{self.preset}-{self.epochs}epochs-{self.regularizer}-{strength}"
            f"-seed{self.seed}"
        )


def find_config(experiment: str, preset: str | None) -> tuple[str, Config]:
    """The named preset of an experiment, or its default one, with the preset's name."""
    presets = EXPERIMENTS[_known("experiment", experiment, EXPERIMENTS)]
    name = next(iter(presets)) if preset is None else preset
    return name, presets[_known(f"preset of `{experiment}`", name, presets)]


def find_measurement(name: str, parts: list[str]) -> tuple[Measurement, list[str]]:
    """The measurement of this name, and the parts that are asked for: all of them if none is."""
    measurement = MEASUREMENTS[_known("measurement", name, MEASUREMENTS)]
    asked = [_known(f"part of `{name}`", part, measurement.parts) for part in parts]
    return measurement, asked or list(measurement.parts)


def find_regularizer(name: str) -> Regularizer:
    """The regulariser of this name, one of the ablation included."""
    if name in ABLATION:
        return ABLATION[name]
    return REGULARIZERS[_known("regularizer", name, REGULARIZERS)]


def make_job(
    experiment: str,
    regularizer: str,
    seed: int,
    *,
    preset: str | None = None,
    coefficient: float | None = None,
    epochs: int | None = None,
) -> Job:
    """A job with the defaults of its experiment filled in.

    Raises:
        UnknownNameError: if a name is in no registry.
        SettingError: for a coefficient of `none`.
        ValueError: if `epochs` or `seed` is out of range.
    """
    preset, config = find_config(experiment, preset)
    find_regularizer(regularizer)
    epochs = count("epochs", config.epochs if epochs is None else epochs)
    count("seed", seed, 0)
    if coefficient is not None:
        positive("coefficient", coefficient)
    if regularizer == "none":
        if coefficient is not None:
            raise SettingError("`none` has no coefficient. Leave it out, or choose a regularizer.")
        chosen: Coefficient = 0.0
    else:
        family = regularizer
        if regularizer in ABLATION:
            family = max((n for n in REGULARIZERS if regularizer.startswith(n + "_")), key=len)
        _known(f"regularizer of `{experiment}`", family, config.coefficients)
        chosen = config.coefficients[family] if coefficient is None else coefficient
    return Job(experiment, preset, regularizer, chosen, seed, epochs)


def _known(kind: str, name: str, names: Collection[str]) -> str:
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise UnknownNameError(
            f"There is no {kind} `{name}`.{hint} Choose from: {', '.join(names)}."
        )
    return name
