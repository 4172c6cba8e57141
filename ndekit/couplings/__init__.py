"""Couplings: which noise of a batch goes with which data, `coupling(x0, x1, key=key)`.

All take two batches, `(n, ...)`, and give two batches back, row by row a pair. The rows of the
second one stay where they are, so what goes with the data (labels, say) need not be moved.
"""

from .assignment import ExactOT
from .entropic import SchroedingerBridge, Sinkhorn
from .independent import Independent
from .reflow import Reflow

__all__ = ["ExactOT", "Independent", "Reflow", "SchroedingerBridge", "Sinkhorn"]
