"""After training: models that solve with a fixed number of steps."""

from .fixed_steps import FixedSteps as FixedSteps
from .fixed_steps import Scheme as Scheme
from .fixed_steps import fix_steps as fix_steps
from .hypersolver import Correction as Correction
from .hypersolver import Hypersolver as Hypersolver
from .hypersolver import distill as distill
