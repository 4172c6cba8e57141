"""A training run on the disk: written whole or not at all, and read back bit for bit."""

import hashlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jaxtyping import PyTree

from .fingerprint import Fingerprint, plain
from .update import Row

FORMAT = 2
# Without a fingerprint.
OLD_FORMAT = 1
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+,-]*")


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


class Kept(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        fingerprint: of the run that wrote it; `None` in files of the old format.
        num_updates: how many were asked for when it was written, likewise.
    """

    state: State
    history: list[Row]
    fingerprint: Fingerprint | None
    num_updates: int | None


class Standing(NamedTuple):
    """How far a training run has come, as its checkpoint says."""

    update: int
    num_updates: int | None  # as in `Kept`
    train_seconds: float


def path_in(folder: str | os.PathLike, tag: str | None) -> Path:
    """Where the checkpoint of a run lies: `checkpoint.eqx`, or `checkpoint-TAG.eqx`.

    Raises:
        ValueError: for a tag that is no part of a file's name.
    """
    if tag is None:
        return Path(folder) / "checkpoint.eqx"
    if not isinstance(tag, str) or not TAG.fullmatch(tag):
        raise ValueError(
            f"`tag` must be a word of letters, digits and any of `._=+,-`, got {tag!r}: it becomes "
            "a part of the checkpoint's name."
        )
    return Path(folder) / f"checkpoint-{tag}.eqx"


def prepare(path: Path) -> None:
    """Make the folder and write to it, so that a run need not end before it is known to fail.

    Raises:
        OSError: if it cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    temporary.write_bytes(b"")
    temporary.unlink()


def save(
    path: Path, state: State, history: list[Row], fingerprint: Fingerprint, num_updates: int
) -> None:
    """Write the state, and the history up to it, to `path` in one move."""
    trees, numbers = _split(state)
    arrays = io.BytesIO()
    eqx.tree_serialise_leaves(arrays, jax.tree.map(plain, trees))
    header = {
        "format": FORMAT,
        "fingerprint": fingerprint._asdict(),
        "num_updates": num_updates,
        "leaves": _signature(trees),
        "numbers": numbers,
        # A byte that a disk has changed would go on as a number.
        "digest": _digest(arrays.getvalue()),
        # An interrupt can fall between the writing of rows and the step that they belong to.
        "history": [row for row in history if row["update"] <= state.update],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    with temporary.open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        file.write(arrays.getvalue())
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load(path: Path, like: State, key: list) -> Kept | None:
    """What `path` holds, or `None` if there is no such file.

    Args:
        like: a state with the same structure, shapes and dtypes.
        key: the bits of the run's key.

    Raises:
        CheckpointError: if the file is damaged, or was written with another key or model.
    """
    if not path.exists():
        return None
    trees, _ = _split(like)
    with path.open("rb") as file:
        header = _read_header(path, file.readline())
        marks = header.get("fingerprint")
        if (header["key"] if marks is None else marks["key"]) != key:
            raise refused(path, "another `key`")
        if header["leaves"] != (leaves := _signature(trees)):
            difference = _first_difference(header["leaves"], leaves)
            raise refused(path, f"another model, optimiser or evaluation: {difference}")
        arrays = file.read()
        # Older files have none.
        if header.get("digest", _digest(arrays)) != _digest(arrays):
            raise _damaged(path)
        try:
            found = eqx.tree_deserialise_leaves(io.BytesIO(arrays), jax.tree.map(plain, trees))
        except Exception as error:  # NumPy raises many kinds on damaged bytes
            raise _damaged(path) from error
    state = State(**jax.tree.map(_made_key_like, trees, found), **header["numbers"])
    marks = None if marks is None else Fingerprint(**marks)
    return Kept(state, header["history"], marks, header.get("num_updates"))


def standing(path: Path) -> Standing | None:
    """How far the run has come that wrote `path`, or `None` if there is no such file.

    Raises:
        CheckpointError: if its first line is damaged.
    """
    if not path.exists():
        return None
    with path.open("rb") as file:
        header = _read_header(path, file.readline())
    numbers = header["numbers"]
    return Standing(numbers["update"], header.get("num_updates"), numbers["train_seconds"])


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _made_key_like(like: Any, found: Any) -> Any:
    """What was read, as a key where its bits were written."""
    if plain(like) is like:
        return found
    return jax.random.wrap_key_data(found, impl=jax.random.key_impl(like))


def refused(path: Path, what: str) -> CheckpointError:
    """The error for a checkpoint of a run with another model, say."""
    return CheckpointError(
        f"`{path}` was written by a run with {what}. To keep both runs give this one a `tag` or "
        "another `checkpoint_dir`; `resume=False` writes over the other."
    )


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def _read_header(path: Path, line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
        readable = header["format"] in (FORMAT, OLD_FORMAT)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    if not readable:
        raise CheckpointError(
            f"`{path}` has checkpoint format {header['format']}, but this version reads up to "
            f"{FORMAT}. Use the version of ndekit that wrote it, or start over with `resume=False`."
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


def _first_difference(theirs: list[str], ours: list[str]) -> str:
    """Of the arrays of two runs."""

    def first(word: str, leaves: list[str], others: list[str]) -> list[str]:
        # That of the model rather than those that follow from it.
        only = [leaf for leaf in leaves if leaf not in others]
        only.sort(key=lambda leaf: not leaf.startswith("['model']"))
        return [f"{word} {leaf.replace(chr(39), '')[1:].replace(']', '', 1)}" for leaf in only[:1]]

    found = first("its", theirs, ours) + first("here", ours, theirs)
    return ", ".join(found) or "the same arrays in another order"
