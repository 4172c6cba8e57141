"""The stiff van der Pol oscillator: its field, from trajectories that are sampled irregularly."""

import numpy as np
from scipy.integrate import solve_ivp

from .harness.simulated import Timed
from .harness.trajectories import NUMBER, sample_trajectories, trajectory_config


def stiff_van_der_pol(folder: str | None = None) -> Timed:
    """x'' = mu (1 - x^2) x' - x, mu = 5, from states on and about the limit cycle, to t = 0.4."""
    mu, rng = 5.0, np.random.default_rng(3)
    field = lambda y: np.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])
    cycle = solve_ivp(
        lambda t, y: field(y), (0, 60), [2.0, 0.0], "Radau", rtol=1e-8, atol=1e-10,
        t_eval=np.sort(rng.uniform(20, 60, NUMBER)),
    ).y.T  # fmt: skip
    starts = rng.permutation(cycle) + 0.1 * rng.standard_normal((NUMBER, 2))
    return sample_trajectories(field, starts, 0.4, 4)


# Chosen by `ndekit search --allow 0.01` with one seed; docs/papers/known_dynamics.md has what was
# tried. What was not searched (`error+stiffness`) has the coefficient of its first part.
PRESETS = {
    "default": trajectory_config(
        "stiff van der Pol (mu 5), 2-64-64-2 field, as above",
        stiff_van_der_pol,
        {
            "steps": 1e-4,
            "budget": 9.0,
            "error": 1e-3,
            "error_sum": 1e-4,
            "error_squared": 1e-4,
            "stiffness": 1e-4,
            "error+stiffness": 1e-3,
            "local_time": 1e-2,
            "local_step": 1e-2,
            "local_time_published": 1.0,
            "local_step_published": 1.0,
            "taylor2": 1e-6,
            "taylor3": 1e-8,
            "rnode": 1e-5,
            "tpr": 1e-3,
        },
    ),
}
