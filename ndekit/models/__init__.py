"""Models made of a vector field and a solve."""

from .classifier import ODEClassifier as ODEClassifier
from .latent_sde import Latent as Latent
from .latent_sde import LatentSDE as LatentSDE
from .latent_sde import PathKL as PathKL
from .neural_ode import NeuralODE as NeuralODE
from .neural_sde import NeuralSDE as NeuralSDE
from .sde_gan import SDEGAN as SDEGAN
from .sde_gan import Discriminator as Discriminator
from .sde_gan import Generator as Generator
