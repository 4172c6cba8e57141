"""Models made of a vector field and a solve."""

from .classifier import ODEClassifier as ODEClassifier
from .latent_prior import Latent as Latent
from .latent_prior import LatentPrior as LatentPrior
from .latent_prior import PathKL as PathKL
from .latent_sde import LatentSDE as LatentSDE
from .matched_sde import MarginalDrift as MarginalDrift
from .matched_sde import MatchedLatentSDE as MatchedLatentSDE
from .neural_ode import NeuralODE as NeuralODE
from .neural_sde import NeuralSDE as NeuralSDE
from .sde_gan import SDEGAN as SDEGAN
from .sde_gan import Discriminator as Discriminator
from .sde_gan import Generator as Generator
