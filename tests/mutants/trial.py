"""Tests run on a copy of the package, with one mutant in it or none."""

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

from .mutant import Mutant

PATIENCE = 400  # seconds for the tests of one mutant
COPIED = ("ndekit", "tests", "pyproject.toml")


@dataclasses.dataclass(frozen=True)
class Trial:
    """What came of it: `caught`, `survived`, or `broken` where no test has spoken."""

    verdict: str
    by: str  # the first test that failed, or what happened instead
    seconds: float
    said: str  # the output


def copied(checkout: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """A copy of what the tests need; compiled bytecode goes along if the source is a copy."""
    for name in COPIED:
        source, target = checkout / name, folder / name
        if source.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
        else:
            shutil.copytree(source, target)
    return folder


def environment(folder: pathlib.Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(folder)}


def imports_itself(folder: pathlib.Path, environment: dict[str, str]) -> bool:
    """Whether a program that runs in the copy imports the copy."""
    find = "import importlib.util as u; print(u.find_spec('ndekit').origin)"
    command = [sys.executable, "-c", find]
    found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return pathlib.Path(found.stdout.strip()).is_relative_to(folder)


def run(
    tests: tuple[str, ...],
    folder: pathlib.Path,
    environment: dict[str, str],
    patience: float | None = None,
) -> Trial:
    """Run tests in a copy until the first one fails, or for so many seconds."""
    options = "-x -q -n 0 -p no:cacheprovider -rfE --no-header --tb=short".split()
    command = [sys.executable, "-m", "pytest", *options, *tests]
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=patience
        )
    except subprocess.TimeoutExpired:
        seconds = time.perf_counter() - start
        return Trial("broken", f"no end after {seconds:.0f} s", seconds, "")
    said = done.stdout + done.stderr
    return Trial(*verdict_of(done.returncode, said), time.perf_counter() - start, said)


def verdict_of(code: int, said: str) -> tuple[str, str]:
    """From pytest's exit code and output: a fixture or an import that fails has caught nothing."""
    failed = re.search(r"^FAILED (.+?)( - |$)", said, re.MULTILINE)
    if code == 0:
        return "survived", ""
    if code == 1 and failed:
        return "caught", failed.group(1)
    return "broken", f"pytest ended with {code}"


def tried(mutant: Mutant, base: pathlib.Path, room: pathlib.Path) -> Trial:
    """Run the tests of a mutant in a copy of `base` that has it."""
    folder = copied(base, room / mutant.name)
    mutant.put_into(folder)
    trial = run(mutant.tests, folder, environment(folder), PATIENCE)
    shutil.rmtree(folder)
    return trial
