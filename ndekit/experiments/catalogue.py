"""The list of experiments: a new one is a file beside this and its line here."""

from importlib import import_module

from .harness.config import Config
from .harness.measured import Measurement
from .harness.registry import EXPERIMENTS, MEASUREMENTS

# Of files, each with its configurations in `PRESETS`, the default first. In the order of the list.
NAMES = (
    "digits",
    "mnist_ode",
    "spiral",
    "van_der_pol",
    "spiral_sde",
    "mnist_sde",
    "ou_gan",
    "lorenz_latent_sde",
    "known_answers",
    "vowels",
    "latent_ode",
    "windows",
    "states",
    "nested_circles",
    "pendulum",
    "cnf_toys",
    "two_dimensions",
    "cnf_digits",
    "learnt_solvers",
)

# Of files that are measurements, each with its own in `MEASUREMENT`.
MEASURED = ("samplers", "paths")


def presets_of(name: str) -> dict[str, Config]:
    """The configurations in an experiment's file."""
    return import_module(f"{__package__}.{name}").PRESETS


def measurement_of(name: str) -> Measurement:
    """What is measured in an experiment's file."""
    return import_module(f"{__package__}.{name}").MEASUREMENT


EXPERIMENTS.update({name: presets_of(name) for name in NAMES})
MEASUREMENTS.update({name: measurement_of(name) for name in MEASURED})
