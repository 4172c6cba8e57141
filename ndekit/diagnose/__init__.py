"""Tools to examine a solve, step by step and without gradients."""

from .solve_record import StepTable, record_steps

__all__ = [
    "StepTable",
    "record_steps",
]
