"""Data sets as arrays in memory, read from an installed package or from a given folder."""

from .batches import Batches
from .dataset import DataError, Dataset
from .digits import digits
from .mnist import mnist
from .series import Series

__all__ = [
    "Batches",
    "DataError",
    "Dataset",
    "Series",
    "digits",
    "mnist",
]
