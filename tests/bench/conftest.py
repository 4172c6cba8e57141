"""Measures each case once, and sums up in one table at the end."""

import pathlib

import jax
import pytest
from measurement import Measurement, measure
from races import Raced, run_race
from series_races import RACES
from tables import as_json, machine, page

RESULTS = pathlib.Path(__file__).resolve().parents[2] / ".benchmarks"
MEASURED = pytest.StashKey[dict[str, Measurement | Raced | Exception]]()

jax.config.update("jax_platforms", "cpu")
# A program from the cache has no compile time.
jax.config.update("jax_enable_compilation_cache", False)
# Where they are called: a program that calls Python back, as diffrax's do, is run so anyway. To
# hand a program to another thread takes 20 to 100 us.
jax.config.update("jax_cpu_enable_async_dispatch", False)


def pytest_configure(config):
    config.stash[MEASURED] = {}


@pytest.fixture
def measured(request):
    """The measurement of the case that the test names, made when first asked for."""
    done, name = request.config.stash[MEASURED], request.getfixturevalue("case_name")
    if name not in done:
        try:
            done[name] = run_race(name, RACES[name]()) if name in RACES else measure(name)
        except Exception as error:  # once is enough: every row of the case fails by it
            done[name] = error
    if isinstance(done[name], Exception):
        raise done[name]
    return done[name]


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    done = config.stash[MEASURED].values()
    measurements = [m for m in done if isinstance(m, Measurement)]
    races = [m for m in done if isinstance(m, Raced)]
    if not measurements and not races:
        return
    about = machine()
    text = page(measurements, races, about)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "ratios.md").write_text(text)
    (RESULTS / "ratios.json").write_text(as_json(measurements, races, about))
    terminalreporter.write_line("")
    terminalreporter.write(text)
    terminalreporter.write_line(f"Also in {RESULTS}/ratios.md and ratios.json.")
