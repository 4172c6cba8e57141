"""An optimiser whose parameters stay where they may be."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import PyTree


def projected(
    optimizer: optax.GradientTransformation, project: Callable[[PyTree], PyTree]
) -> optax.GradientTransformation:
    r"""The optimiser, and after each of its updates $\theta \leftarrow
    \mathrm{project}(\theta)$, to the last digit of what $\theta$ was before.

    To be the outermost of all transformations: one around it would change its updates.

    Args:
        optimizer: any optax transformation.
        project: from a model to one of the same structure. What it sees is the model with `None`
            in place of everything that is not trained.

    Raises:
        ValueError: by the update, if it is not given the parameters.

    Example:
        ```python
        import optax
        import ndekit as nk

        optimizer = nk.train.projected(optax.rmsprop(1e-3), nk.fields.clip_weights)
        ```
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def update(
        updates: PyTree, state: Any, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, Any]:
        if params is None:
            raise ValueError("`projected` needs the parameters: `update(updates, state, params)`.")
        changes, state = optimizer.update(updates, state, params, **extra)
        wanted = project(optax.apply_updates(params, changes))
        # As changes, which the caller adds: rounded to the last digit of the old value.
        return jax.tree.map(lambda new, old: new - old, wanted, params), state

    return optax.GradientTransformationExtraArgs(optimizer.init, update)
