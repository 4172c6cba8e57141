"""A training run on the disk: written whole or not at all, and read back bit for bit."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .update import Row

FORMAT = 1
FILE_NAME = "checkpoint.eqx"


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or belongs to another run; the message says what to do."""


class State(NamedTuple):
    """Where a training run stands: all that the updates still to come depend on, and times."""

    model: PyTree
    opt_state: PyTree
    best_model: PyTree  # None if nothing is evaluated
    carry: PyTree  # what the loss hands on to the next update; None if nothing
    best_value: float
    best_update: int
    num_stale: int  # evaluations since the best one
    update: int  # updates done
    compile_seconds: float
    train_seconds: float


def save(folder: str | os.PathLike, state: State, history: list[Row], key: Array) -> None:
    """Write the state, and the history up to it, to `folder/checkpoint.eqx` in one move."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    trees, numbers = _split(state)
    header = {
        "format": FORMAT,
        "key": _bits(key),
        "leaves": _signature(trees),
        "numbers": numbers,
        # An interrupt can fall between the writing of rows and the step that they belong to.
        "history": [row for row in history if row["update"] <= state.update],
    }
    temporary = folder / (FILE_NAME + ".tmp")
    with temporary.open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        eqx.tree_serialise_leaves(file, trees)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / FILE_NAME)


def load(folder: str | os.PathLike, like: State, key: Array) -> tuple[State, list[Row]] | None:
    """The state and history in `folder`, or `None` if there is no checkpoint.

    Args:
        like: a state with the same structure, shapes and dtypes.
        key: the run's key.

    Raises:
        CheckpointError: if the file is damaged, or was written with another key or model.
    """
    path = Path(folder) / FILE_NAME
    if not path.exists():
        return None
    trees, _ = _split(like)
    with path.open("rb") as file:
        header = _read_header(path, file.readline())
        if header["key"] != _bits(key):
            raise CheckpointError(
                f"`{path}` was written by a run with another `key`. Pass that key, choose another "
                "`checkpoint_dir`, or start over with `resume=False`."
            )
        if header["leaves"] != _signature(trees):
            raise CheckpointError(
                f"`{path}` holds another model, optimiser or evaluation than those given. Pass "
                "the same ones, choose another `checkpoint_dir`, or start over with `resume=False`."
            )
        try:
            trees = eqx.tree_deserialise_leaves(file, trees)
        except Exception as error:  # NumPy raises many kinds on damaged bytes
            raise _damaged(path) from error
    return State(**trees, **header["numbers"]), header["history"]


def _read_header(path: Path, line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
        readable = header["format"] == FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    if not readable:
        raise CheckpointError(
            f"`{path}` has checkpoint format {header['format']}, but this version reads {FORMAT}. "
            "Start over with `resume=False`."
        )
    return header


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        f"`{path}` is no whole checkpoint. Delete it, or start over with `resume=False`."
    )


def _split(state: State) -> tuple[dict[str, PyTree], dict[str, Any]]:
    fields = state._asdict()
    trees = {name: fields.pop(name) for name in ("model", "opt_state", "best_model", "carry")}
    return trees, fields


def _signature(trees: PyTree) -> list[str]:
    """Where each array stands, its shape and dtype: two runs must agree on it to go on."""
    arrays = jax.tree_util.tree_flatten_with_path(eqx.filter(trees, eqx.is_array))[0]
    return [f"{jax.tree_util.keystr(path)}: {leaf.dtype}{leaf.shape}" for path, leaf in arrays]


def _bits(key: Array) -> list:
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    return np.asarray(key).tolist()
