"""All mutants, in the order of what they break."""

from .in_costs import IN_COSTS
from .in_data import IN_DATA
from .in_flows import IN_FLOWS
from .in_loops import IN_LOOPS
from .in_noise import IN_NOISE
from .in_replay import IN_REPLAY
from .in_resets import IN_RESETS
from .in_steps import IN_STEPS
from .in_times import IN_TIMES
from .in_training import IN_TRAINING
from .mutant import Mutant

MUTANTS: list[Mutant] = [
    *IN_STEPS, *IN_LOOPS, *IN_REPLAY, *IN_RESETS, *IN_TIMES, *IN_NOISE, *IN_COSTS, *IN_TRAINING,
    *IN_DATA, *IN_FLOWS,
]  # fmt: skip
assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
