"""Tools that look at a solve or a model, outside of any gradient."""

from .solve_record import StepTable as StepTable
from .solve_record import record_steps as record_steps
