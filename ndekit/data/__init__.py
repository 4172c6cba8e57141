"""Data sets as arrays in memory, read from an installed package or from a given folder."""

from .batches import Batches
from .buckets import Buckets, buckets
from .dataset import DataError, Dataset
from .digits import digits
from .grids import to_grid
from .long_tables import Panel, from_long
from .mnist import mnist
from .padding import pad
from .scaling import Scaling, standardize
from .series import Series
from .splitting import split

__all__ = [
    "Batches",
    "Buckets",
    "DataError",
    "Dataset",
    "Panel",
    "Scaling",
    "Series",
    "buckets",
    "digits",
    "from_long",
    "mnist",
    "pad",
    "split",
    "standardize",
    "to_grid",
]
