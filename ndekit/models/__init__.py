"""Models made of a vector field and a solve."""

from .classifier import ODEClassifier as ODEClassifier
from .neural_ode import NeuralODE as NeuralODE
