"""Where a row was made: the device, the commit, the versions."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import jax


def device_name() -> str:
    """What the numbers were measured on, as far as JAX and Python know."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return f"cpu ({os.cpu_count()} cores, {platform.machine()})"
    return f"{device.platform} ({device.device_kind})"


def commit_of(folder: Path) -> str | None:
    """The commit of the checkout that the package lies in, if it lies in one."""
    command = ["git", "-C", str(folder), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str]:
    found = {}
    for name in ("ndekit", "jax", "diffrax", "equinox", "optax"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
