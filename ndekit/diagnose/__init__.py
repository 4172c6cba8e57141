"""Tools that look at a solve or a model, outside of any gradient."""

from .solve_record import StepTable, record_steps

__all__ = [
    "StepTable",
    "record_steps",
]
