"""Data sets as arrays in memory, read from an installed package or a folder that the user names."""

from .batches import Batches as Batches
from .dataset import DataError as DataError
from .dataset import Dataset as Dataset
from .digits import digits as digits
from .mnist import mnist as mnist
