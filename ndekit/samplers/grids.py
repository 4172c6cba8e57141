"""Times at which steps of a sampler end."""

from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from ..choices import check_choice
from ..numbers import count, positive
from ..paths import AbstractGaussianPath
from ..paths.roots import as_time
from ..shapes import Time

Spacing = Literal["t", "quadratic", "log_sigma", "edm", "arctan"]


class Grid(eqx.Module):
    r"""`steps` steps between two times of a path, spaced in one of these ways.

    - `"t"`: equal steps of time;
    - `"quadratic"`: equal steps of $\sqrt{1 - t}$, finer at the data, as DDIM's `quad`;
    - `"log_sigma"`: equal steps of $\log \sigma$;
    - `"edm"`: equal steps of $\sigma^{1 / p}$ with $p = 7$ as `power`;
    - `"arctan"`: equal steps of $\arctan(\sigma / s)$ with $s$ as `data_std`, the best for data
      $N(\mu, s^2)$.

    Args:
        steps: how many, from 1.
        spacing: one of the above.
        power: of `"edm"`.
        data_std: of `"arctan"`, positive.

    Raises:
        ValueError: for another spacing, no steps, or a number that is not positive.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        path = nk.paths.EDM()
        grid = nk.samplers.Grid(4, "edm")
        ts = grid(path, path.t_of_sigma(80.0), path.t_of_sigma(0.002))
        assert jnp.allclose(path.sigma(ts)[1], 17.53, rtol=1e-3)  # of 80, ..., 0.002
        ```

    References: Karras et al. (2022), arXiv 2206.00364, equation 5; Sabour et al. (2024), "Align
    your steps", arXiv 2404.14507.
    """

    steps: int = eqx.field(static=True)
    spacing: Spacing = eqx.field(static=True, default="t")
    power: float = eqx.field(static=True, default=7.0)
    data_std: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        count("steps", self.steps)
        positive("power", self.power)
        positive("data_std", self.data_std)
        check_choice("spacing", self.spacing, get_args(Spacing))

    def __call__(
        self, path: AbstractGaussianPath, t0: Time, t1: Time
    ) -> Float[Array, " steps_and_1"]:
        """The times, from `t0` to `t1`, these two included.

        Raises:
            ValueError: if `t1` is not above `t0`, or the spacing needs a level of noise that is
                infinite, or 0, at an end.
        """
        # Also inside of jit: what is known is checked, and none of it is left in the program.
        with jax.ensure_compile_time_eval():
            return self._times(path, as_time(t0), as_time(t1))

    def _times(self, path: AbstractGaussianPath, t0: Array, t1: Array) -> Array:
        if not isinstance(t0, Tracer) and not isinstance(t1, Tracer) and not t0 < t1:
            raise ValueError(
                f"A grid runs from noise at `t0` to data at `t1`, in rising times, but `t0` is "
                f"{float(t0):g} and `t1` {float(t1):g}. Diffusion's s is 1 - t."
            )
        shares = jnp.linspace(0.0, 1.0, self.steps + 1, dtype=t0.dtype)
        inner = self._between(path, t0, t1, shares)[1:-1]
        return jnp.concatenate([t0[None], inner, t1[None]])

    def _between(self, path: AbstractGaussianPath, t0: Array, t1: Array, shares: Array) -> Array:
        if self.spacing == "t":
            return t0 + (t1 - t0) * shares
        if self.spacing == "quadratic":
            root0, root1 = jnp.sqrt(1 - t0), jnp.sqrt(1 - t1)
            return 1 - (root0 + (root1 - root0) * shares) ** 2
        ends = path.sigma(jnp.stack([t0, t1]))
        self._check(path, ends)
        if self.spacing == "log_sigma":
            levels = ends[0] * (ends[1] / ends[0]) ** shares
        elif self.spacing == "edm":
            roots = ends ** (1 / self.power)
            levels = (roots[0] + (roots[1] - roots[0]) * shares) ** self.power
        else:
            angles = jnp.arctan(ends / self.data_std)
            levels = self.data_std * jnp.tan(angles[0] + (angles[1] - angles[0]) * shares)
        # Rounding must not take an end out of what the path has.
        return path.t_of_sigma(jnp.clip(levels, ends[1], ends[0]))

    def _check(self, path: AbstractGaussianPath, ends: Array) -> None:
        if isinstance(ends, Tracer):
            return
        may_be_infinite, may_be_zero = self.spacing == "arctan", self.spacing != "log_sigma"
        if (jnp.isinf(ends[0]) and not may_be_infinite) or (ends[1] == 0 and not may_be_zero):
            raise ValueError(
                f"`spacing={self.spacing!r}` divides the levels of noise, here of "
                f"{type(path).__name__} from {float(ends[0]):g} to {float(ends[1]):g}. Use "
                "`t0 = path.t_of_sigma(80.0)` and `t1 = path.t_of_sigma(0.002)`, or other spacing."
            )
