"""Words of a group, and what they amount to so far: what a linear CDE can keep track of."""

import dataclasses
import itertools
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from ..data import Series
from ..models import LinearCDE
from .harness.config import Config
from .harness.regularizers import Regularizer
from .harness.series import AbstractSeriesTask, NoSolve, OfSeries, SeriesParts
from .harness.task import Metric

Group = Literal["cycle", "a5"]
TRAINED, ASKED = 20, 40  # letters
HIDDEN = 32
NOT_ASKED = -1


class AtReadings(eqx.Module):
    """A model of series, asked at each row."""

    model: LinearCDE

    def __call__(self, series: Series) -> tuple[Array, Any]:
        return self.model(series, "readings")


@dataclasses.dataclass(frozen=True)
class States(AbstractSeriesTask):
    """The element of a group that the letters so far amount to, by a linear CDE."""

    metric: ClassVar[Metric] = Metric("accuracy", True, 100.0, "%")
    block_size: int
    flow: Literal["exp", "euler"]

    def build_model(
        self, config: Any, regularizer: Regularizer, data: SeriesParts, *, key: Key[Array, ""]
    ) -> OfSeries:
        model = LinearCDE(
            data.train_x.num_channels, HIDDEN, int(data.train_y.max()) + 1,
            block_size=self.block_size, flow=self.flow, scale=0.5, time=False, key=key,
        )  # fmt: skip
        return OfSeries(NoSolve(AtReadings(model)))

    def judge(
        self,
        prediction: Float[Array, "batch rows elements"],
        targets: Int[Array, "batch rows"],
        step: Any = None,
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Cross-entropy and accuracy, means over the rows that are asked for."""
        asked = targets != NOT_ASKED
        wanted = jnp.where(asked, targets, 0)
        losses = optax.softmax_cross_entropy_with_integer_labels(prediction, wanted)
        right = jnp.argmax(prediction, axis=-1) == wanted
        mean = lambda x: jnp.sum(jnp.where(asked, x, 0)) / jnp.sum(asked.astype(prediction.dtype))
        return mean(losses), mean(right.astype(prediction.dtype))


def letters_of(group: Group) -> np.ndarray:
    """Each letter as a permutation, `(letters, points)`.

    Of the cycle of five: stay, go on, go back. Of A5: (12)(34) and (12345), which generate it.
    """
    if group == "cycle":
        return np.stack([np.roll(np.arange(5), turn) for turn in (0, 1, -1)])
    return np.array([[1, 0, 3, 2, 4], [1, 2, 3, 4, 0]])


def elements_of(letters: np.ndarray) -> list[tuple[int, ...]]:
    """All that words amount to, the identity first."""
    found = [tuple(range(letters.shape[1]))]
    for element in found:
        for letter in letters:
            product = tuple(letter[list(element)].tolist())
            if product not in found:
                found.append(product)
    return found


def words(group: Group, num: int, length: int, rng: np.random.Generator) -> tuple[Any, np.ndarray]:
    """Words as paths that go one up in the channel of each letter; the element after each row."""
    letters = letters_of(group)
    drawn = rng.integers(0, len(letters), (num, length))
    counted = np.cumsum(np.eye(len(letters), dtype=np.float32)[drawn], axis=1)
    xs = np.concatenate([np.zeros_like(counted[:, :1]), counted], axis=1)
    number = {element: n for n, element in enumerate(elements_of(letters))}
    state = np.broadcast_to(np.arange(letters.shape[1]), (num, letters.shape[1]))
    elements = np.full((num, length + 1), NOT_ASKED, np.int32)
    for place in range(length):
        state = np.take_along_axis(letters[drawn[:, place]], state, axis=1)
        elements[:, place + 1] = [number[tuple(row)] for row in state.tolist()]
    ts = np.broadcast_to(np.arange(length + 1, dtype=np.float32), (num, length + 1))
    return Series(ts, xs), elements


def of_words(group: Group, sizes: tuple[int, int, int]) -> SeriesParts:
    """Words of 20 letters to train and to validate; of 40 to test, asked from the 21st on."""
    rng = np.random.default_rng(13)
    train, validation = (words(group, size, TRAINED, rng) for size in sizes[:2])
    x, y = words(group, sizes[2], ASKED, rng)
    y[:, : TRAINED + 1] = NOT_ASKED
    chance = 1 / len(elements_of(letters_of(group)))
    return SeriesParts(*train, *validation, x, y, yardsticks={"chance": chance})


def _preset(group: Group, block_size: int, flow: Literal["exp", "euler"]) -> Config:
    kind = {1: "diagonal", HIDDEN: "dense"}.get(block_size, f"blocks of {block_size}")
    name = {"cycle": "a cycle of five", "a5": "A5, 60 elements"}[group]
    return Config(
        about=f"words in {name}, by a linear CDE: {kind}, flow={flow}",
        load=lambda folder: of_words(group, (4000, 500, 1000)),
        task=States(block_size, flow),
        width=HIDDEN,
        final="linear",
        rtol=1e-3,
        atol=1e-3,
        equal_steps=1,
        epochs={"cycle": 8, "a5": 20}[group],
        batch_size=100,
        optimizer=lambda num_updates: optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adam(optax.cosine_decay_schedule(1e-2, num_updates)),
        ),
        updates_per_call=20,
        predict_batch=100,
        coefficients={},
    )


NAMES = {1: "diagonal", 2: "block2", 4: "block4", HIDDEN: "dense"}
PRESETS = {
    f"{group}_{NAMES[block_size]}_{flow}": _preset(group, block_size, flow)
    for group, block_size, flow in itertools.product(
        ("a5", "cycle"), (4, 1, 2, HIDDEN), ("exp", "euler")
    )
}
