"""Models made of a vector field and a solve: neural ODEs, SDEs and CDEs, latent SDEs, SDE-GANs."""

from .classifier import ODEClassifier
from .latent_prior import Latent, LatentPrior, PathKL
from .latent_sde import LatentSDE
from .matched_sde import MarginalDrift, MatchedLatentSDE
from .neural_cde import NeuralCDE
from .neural_ode import NeuralODE
from .neural_sde import NeuralSDE
from .sde_gan import SDEGAN, Discriminator, Generator

__all__ = [
    "Discriminator",
    "Generator",
    "Latent",
    "LatentPrior",
    "LatentSDE",
    "MarginalDrift",
    "MatchedLatentSDE",
    "NeuralCDE",
    "NeuralODE",
    "NeuralSDE",
    "ODEClassifier",
    "PathKL",
    "SDEGAN",
]
