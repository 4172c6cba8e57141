"""Data sets as arrays in memory: series with gaps, images, and processes with known answers."""

from .batches import Batches
from .brusselator import brusselator
from .buckets import Buckets, buckets
from .clinical import nafld, pbcseq
from .conditional_expectations import ExpectedPaths, black_scholes, ornstein_uhlenbeck
from .dataset import DataError, Dataset
from .digits import digits
from .double_ou import Filtered, double_ou, double_ou_filter
from .grids import to_grid
from .hopper import hopper
from .long_tables import Panel, from_long
from .mnist import mnist
from .oscillators import damped_pendulum, spirals
from .padding import pad
from .scaling import Scaling, standardize
from .selection import drop_rows
from .series import Series
from .simulated import Simulated
from .splitting import split
from .ucr import LabelledSeries, ucr

__all__ = [
    "Batches",
    "Buckets",
    "DataError",
    "Dataset",
    "ExpectedPaths",
    "Filtered",
    "LabelledSeries",
    "Panel",
    "Scaling",
    "Series",
    "Simulated",
    "black_scholes",
    "brusselator",
    "buckets",
    "damped_pendulum",
    "digits",
    "double_ou",
    "double_ou_filter",
    "drop_rows",
    "from_long",
    "hopper",
    "mnist",
    "nafld",
    "ornstein_uhlenbeck",
    "pad",
    "pbcseq",
    "spirals",
    "split",
    "standardize",
    "to_grid",
    "ucr",
]
