"""Neural differential equations that are cheap to solve: the names that a user types."""

from . import data as data
from . import diagnose as diagnose
from . import fields as fields
from . import models as models
from . import plot as plot
from . import regularize as regularize
from . import train as train
from .integrate import AbstractPlacement as AbstractPlacement
from .integrate import AbstractReversibleSolver as AbstractReversibleSolver
from .integrate import AbstractStepCost as AbstractStepCost
from .integrate import AlongTimes as AlongTimes
from .integrate import AsynchronousLeapfrog as AsynchronousLeapfrog
from .integrate import AutoSwitch as AutoSwitch
from .integrate import EachStep as EachStep
from .integrate import EveryStep as EveryStep
from .integrate import Recorder as Recorder
from .integrate import ReplayAdjoint as ReplayAdjoint
from .integrate import Reversible as Reversible
from .integrate import ReversibleAdjoint as ReversibleAdjoint
from .integrate import Solution as Solution
from .integrate import diffeqsolve as diffeqsolve
from .regularize import StepCount as StepCount
from .regularize import StepError as StepError
from .regularize import StepStiffness as StepStiffness
