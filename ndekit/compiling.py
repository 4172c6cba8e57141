"""Compiled programs that are kept from one process to the next."""

import os
import pathlib
import platform
import re
import warnings
import zlib

import jax
from jax.experimental.compilation_cache import compilation_cache

# Of a folder that has grown too large this much is left, so that not every process has to look.
_LEFT = 0.5
# What JAX calls its files. Nothing else in the folder is counted or removed.
_OF_JAX = ("*-cache", "*-atime")


def cache_compilations(
    folder: str | os.PathLike | None = None,
    *,
    max_bytes: int = 2 * 2**30,
    min_seconds: float = 0.1,
) -> pathlib.Path | None:
    """Keep compiled programs in a folder, where the next process finds them.

    Turns on JAX's persistent compilation cache, for every program that this process compiles from
    now on; those of ndekit are among them. Call it at the top of a script or a notebook. A first
    gradient is then traced, but not compiled, when the script runs again. Nothing is kept without
    this call.

    JAX finds a program by its text, the versions of JAX and XLA, the flags of XLA and the devices:
    a stale one is never run. It does not keep programs that call Python back, as `jax.debug.print`
    does, and a solve with `throw=True` anywhere but on a CPU.

    Args:
        folder: where. By default the folder that JAX has been told of, by
            `JAX_COMPILATION_CACHE_DIR` or `jax_compilation_cache_dir`, which is then left to
            grow; else one for this kind of processor in `$XDG_CACHE_HOME/ndekit`, or
            `~/.cache/ndekit`. Programs from it are run: nobody else should be able to write there.
        max_bytes: where the folder holds more when this is called, the programs that have not been
            used for longest are removed, until half of that is left. Two gigabytes are some ten
            thousand gradients.
        min_seconds: programs that take less to compile are not kept. To find and read one takes
            some hundredths of a second.

    Returns:
        The folder; or `None`, after a warning, if the default one cannot be written to.

    Raises:
        ValueError: if a folder was given that cannot be written to, if `max_bytes` is not positive,
            or if `min_seconds` is negative.

    Example:
        ```python
        import tempfile

        import ndekit as nk

        folder = nk.cache_compilations(tempfile.mkdtemp())
        ```
    """
    if max_bytes <= 0 or min_seconds < 0:
        raise ValueError(
            "`max_bytes` must be positive and `min_seconds` not negative, but got "
            f"{max_bytes} and {min_seconds}."
        )
    told: str | None = jax.config.values["jax_compilation_cache_dir"]
    path = pathlib.Path(folder or told or _of_this_processor()).expanduser()
    if (problem := _why_not_written(path)) is not None:
        message = (
            f"Compiled programs cannot be kept in `{path}`: {problem}. Name a folder that can be "
            "written to: `nk.cache_compilations(folder)`."
        )
        if folder is not None:
            raise ValueError(message)
        warnings.warn(message, stacklevel=2)
        return None
    if folder is not None or told is None:
        _keep_bounded(path, max_bytes)
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(min_seconds))
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.set_cache_dir(str(path))
    # JAX decides when it first compiles whether it keeps programs, and where.
    compilation_cache.reset_cache()
    return path


def _of_this_processor() -> pathlib.Path:
    """A folder of the user's. Home folders are shared by machines, and a program may contain
    instructions that another processor does not have.
    """
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        about = pathlib.Path("/proc/cpuinfo").read_text()
        found = re.search(r"^(flags|Features)\s*:.*$", about, re.MULTILINE)
        features = found[0] if found else ""
    except OSError:
        features = platform.processor()
    return base / "ndekit" / f"compiled-{platform.machine()}-{zlib.crc32(features.encode()):08x}"


def _why_not_written(path: pathlib.Path) -> str | None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or str(error)
    return None if os.access(path, os.W_OK) else "it is read-only"


def _keep_bounded(path: pathlib.Path, max_bytes: int) -> None:
    """Remove what has not been used for longest, if there is too much."""
    found = []
    for file in (file for pattern in _OF_JAX for file in path.glob(pattern)):
        try:
            about = file.stat()
        except FileNotFoundError:  # another process may be doing the same
            continue
        found.append((max(about.st_atime, about.st_mtime), about.st_size, file))
    size = sum(bytes_ for _, bytes_, _ in found)
    if size <= max_bytes:
        return
    for _, bytes_, file in sorted(found):
        if size <= _LEFT * max_bytes:
            return
        file.unlink(missing_ok=True)
        size -= bytes_
