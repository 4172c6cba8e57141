"""Models made of a vector field and a solve: neural ODEs, SDEs and CDEs, flows, latent SDEs."""

from .carried import Carried
from .cde_stream import CDEState
from .classifier import ODEClassifier
from .cnf import CNF
from .densities import AbstractDensity, Normal, StandardNormal
from .flow import Flow
from .flow_models import GRUD, ODERNN, GRUDt, GRUODEBayes, JumpODE
from .flow_reset import Flowed, FlowReset, Stream
from .known_flow import AbstractKnownFlow
from .latent_bound import latent_bound
from .latent_ode import LatentODE, LatentPath
from .latent_prior import Latent, LatentPrior, PathKL
from .latent_sde import LatentSDE
from .linear_cde import LinearCDE, LinearSolution
from .matched_sde import MarginalDrift, MatchedLatentSDE
from .mixture import GaussianMixture
from .neural_cde import NeuralCDE
from .neural_ode import NeuralODE
from .neural_sde import NeuralSDE
from .observations import Observation
from .sde_gan import SDEGAN, Discriminator, Generator
from .series_losses import bayes_loss, jump_loss, masked_gaussian

__all__ = [
    "AbstractDensity",
    "AbstractKnownFlow",
    "CDEState",
    "CNF",
    "Carried",
    "Discriminator",
    "Flow",
    "FlowReset",
    "Flowed",
    "GRUD",
    "GRUDt",
    "GRUODEBayes",
    "GaussianMixture",
    "Generator",
    "JumpODE",
    "Latent",
    "LatentODE",
    "LatentPath",
    "LatentPrior",
    "LatentSDE",
    "LinearCDE",
    "LinearSolution",
    "MarginalDrift",
    "MatchedLatentSDE",
    "NeuralCDE",
    "NeuralODE",
    "NeuralSDE",
    "Normal",
    "ODERNN",
    "ODEClassifier",
    "Observation",
    "PathKL",
    "SDEGAN",
    "StandardNormal",
    "Stream",
    "bayes_loss",
    "jump_loss",
    "latent_bound",
    "masked_gaussian",
]
