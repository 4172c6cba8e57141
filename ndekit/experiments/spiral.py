"""A cubic spiral: its field, from trajectories that are sampled irregularly."""

import numpy as np

from .harness.simulated import Timed
from .harness.trajectories import NUMBER, sample_trajectories, trajectory_config


def spiral(folder: str | None = None) -> Timed:
    """y' = A y^3, A = [[-0.1, 2], [-2, -0.1]] (Chen et al. 2018), from a ring, to t = 1."""
    rng = np.random.default_rng(1)
    angle, radius = rng.uniform(0, 2 * np.pi, NUMBER), rng.uniform(0.5, 2.0, NUMBER)
    starts = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    matrix = np.array([[-0.1, 2.0], [-2.0, -0.1]])
    return sample_trajectories(lambda y: matrix @ y**3, starts, 1.0, 2)


# Chosen by `ndekit search --allow 0.01` with one seed; docs/papers/known_dynamics.md has what was
# tried. What was not searched (`error+stiffness`) has the coefficient of its first part.
PRESETS = {
    "default": trajectory_config(
        "cubic spiral, 2-64-64-2 field, tolerance 1e-5, Adam",
        spiral,
        {
            "steps": 1e-4,
            "budget": 15.0,
            "error": 1e-2,
            "error_sum": 1e-3,
            "error_squared": 1e-4,
            "stiffness": 1e-4,
            "error+stiffness": 1e-2,
            "local_time": 1e-3,
            "local_step": 1e-3,
            "local_time_published": 1e-4,
            "local_step_published": 1e-4,
            "taylor2": 1e-5,
            "taylor3": 1e-8,
            "rnode": 1e-5,
            "tpr": 1e-3,
        },
    ),
}
