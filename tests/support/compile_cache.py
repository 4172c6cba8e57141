"""Where compiled programs are kept between runs, and how many."""

import importlib.metadata
import os
import pathlib
import platform

from support.checkout import ROOT

# Of a folder that has grown larger, the files longest unused go until half of that is left.
LARGEST = 2 * 2**30


def folder() -> pathlib.Path:
    """A folder of the user's, for these versions: a fresh checkout finds it as it was left. In the
    checkout where the user's cannot be written to.
    """
    known = [f"{name}{importlib.metadata.version(name)}" for name in ("jax", "jaxlib")]
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    path = base / "ndekit" / "-".join([f"python{platform.python_version()}", *known])
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ROOT / ".jax_cache"
    return path if os.access(path, os.W_OK) else ROOT / ".jax_cache"


def has_older_emitters() -> bool:
    """Whether XLA can be told not to use its newer way to emit fusions on CPU: jaxlib 0.11 has no
    other, and a process that names the flag ends at once.
    """
    major, minor = importlib.metadata.version("jaxlib").split(".")[:2]
    return (int(major), int(minor)) < (0, 11)


def keep_bounded(path: pathlib.Path, largest: int = LARGEST) -> None:
    """Remove what has not been used for longest, if there is too much."""
    files = [(file, file.stat()) for file in path.glob("*") if file.is_file()]
    size = sum(about.st_size for _, about in files)
    if size <= largest:
        return
    for file, about in sorted(files, key=lambda item: max(item[1].st_atime, item[1].st_mtime)):
        if size <= largest // 2:
            return
        file.unlink(missing_ok=True)  # another process may be doing the same
        size -= about.st_size
