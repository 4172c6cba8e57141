"""Times at which a batch is looked at."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.core import Tracer
from jaxtyping import Array, Float, Key, UInt

from ..numbers import count, real
from ..shapes import Time


def stratified_times(
    key: Key[Array, ""] | UInt[Array, "2"], number: int, lo: Time = 0.0, hi: Time = 1.0
) -> Float[Array, " number"]:
    r"""`number` times in `[lo, hi)`, each uniform, one in each of as many equal strata.

    $t_i = \mathrm{lo} + (\mathrm{hi} - \mathrm{lo}) (i + u) / n$ with one $u \sim U(0, 1)$. The
    mean of a smooth loss over them varies far less than over independent times.

    Args:
        key: draws $u$.
        number: of times, at least 1.
        lo, hi: where times are, `lo` below `hi`.

    Returns:
        The times, increasing: samples of a shuffled batch may take them in order.

    Raises:
        ValueError: if `number` is no whole number from 1, or `lo` is not below `hi`.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr, ndekit as nk

        ts = nk.losses.stratified_times(jr.key(0), 8)
        assert jnp.all(jnp.floor(8 * ts) == jnp.arange(8))
        ```

    Reference: Kingma et al. (2021), "Variational diffusion models", arXiv 2107.00630, appendix I.
    """
    count("number", number)
    real("lo", lo)
    real("hi", hi)
    # Numbers of Python: inside of jit a comparison of arrays is traced, also of known ones.
    if not (isinstance(lo, Tracer) or isinstance(hi, Tracer)) and not float(lo) < float(hi):
        raise ValueError(f"`hi` must be above `lo`, got {lo} and {hi}.")
    u = jr.uniform(key)
    ts = lo + (hi - lo) * (jnp.arange(number, dtype=u.dtype) + u) / number
    # Rounding may reach `hi`, where some paths have an infinite velocity.
    ends = (jax.lax.stop_gradient(jnp.asarray(end, ts.dtype)) for end in (hi, lo))
    return jnp.minimum(ts, jnp.nextafter(*ends))
