"""Compiled programs that one process leaves to the next."""

import json
import os
import subprocess
import sys
import textwrap
import time

import jax
import pytest
from support.checkout import ROOT

import ndekit as nk
from ndekit import compiling

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def as_it_was():
    """The other tests go on with the cache that they had."""
    before = {name: jax.config.values[name] for name in OPTIONS}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compiling.compilation_cache.reset_cache()


@pytest.fixture
def told_nothing(monkeypatch, tmp_path):
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


SCRIPT = """
    import json, sys

    import diffrax
    import jax
    import jax.numpy as jnp

    import ndekit as nk

    found = {"hits": 0, "misses": 0}

    def listen(event, **_):
        for kind in found:
            found[kind] += event == f"/jax/compilation_cache/cache_{kind}"

    jax.monitoring.register_event_listener(listen)
    if sys.argv[2] == "late":
        jax.block_until_ready(jax.jit(lambda x: 2 * x)(jnp.ones(3)))
    nk.cache_compilations(sys.argv[1], min_seconds=0.0)

    def end(rate):
        term = diffrax.ODETerm(lambda t, y, rate: -rate * y)
        controller = diffrax.PIDController(rtol=1e-3, atol=1e-3)
        sol = nk.diffeqsolve(
            term, diffrax.Heun(), 0.0, 1.0, 0.1, jnp.ones(2), rate,
            stepsize_controller=controller,
        )
        return jnp.sum(sol.ys)

    before = dict(found)
    gradient = jax.jit(jax.grad(end)).lower(1.5).compile()
    print(json.dumps({kind: found[kind] - before[kind] for kind in found}))
    print(float(gradient(1.5)))
"""


def run(folder, when):
    """What a process found in the cache for the gradient of a solve, and that gradient."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder), when],
        capture_output=True, text=True, check=True, cwd=ROOT, env=env | {"JAX_PLATFORMS": "cpu"},
    ).stdout  # fmt: skip
    found, gradient = out.splitlines()
    return json.loads(found), float(gradient)


def test_the_next_process_finds_what_one_has_compiled_even_if_jax_had_started(tmp_path):
    first, gradient = run(tmp_path, "early")
    assert first["hits"] == 0 < first["misses"]
    second, again = run(tmp_path, "late")
    assert second["misses"] == 0 < second["hits"]
    assert again == gradient


def test_a_folder_may_be_named_after_programs_were_compiled(tmp_path):
    jax.jit(lambda x: 2 * x)(1.0)
    for folder in (tmp_path / "one", tmp_path / "two"):
        assert nk.cache_compilations(folder, min_seconds=0.0) == folder
        jax.jit(lambda x: 2 * x).lower(1.0).compile()
        assert list(folder.glob("*-cache"))


def test_the_default_folder_is_that_of_the_user(tmp_path, told_nothing):
    folder = nk.cache_compilations()
    assert folder is not None and folder.is_dir()
    assert folder.parent == tmp_path / "ndekit"
    assert jax.config.values["jax_compilation_cache_dir"] == str(folder)


def test_a_folder_that_jax_has_been_told_of_is_kept_and_left_to_grow(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    (tmp_path / "jit_f-0-cache").write_bytes(bytes(100))
    assert nk.cache_compilations(max_bytes=10) == tmp_path
    assert (tmp_path / "jit_f-0-cache").exists()


def test_what_was_not_used_for_longest_goes_and_nothing_that_is_not_jax_s(tmp_path):
    for age in range(4):
        file = tmp_path / f"jit_f-{age}-cache"
        file.write_bytes(bytes(100))
        then = time.time() - 1000 * age
        os.utime(file, (then, then))
    (tmp_path / "notes.txt").write_bytes(bytes(1000))
    nk.cache_compilations(tmp_path, max_bytes=400)
    assert len(list(tmp_path.glob("*-cache"))) == 4
    nk.cache_compilations(tmp_path, max_bytes=399)
    assert [f.name for f in tmp_path.iterdir() if "cache" in f.name] == ["jit_f-0-cache"]
    assert (tmp_path / "notes.txt").exists()


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be kept in .*file.*Name a folder"):
        nk.cache_compilations(tmp_path / "file")


def test_without_a_home_nothing_is_kept_and_that_is_said(tmp_path, told_nothing):
    before = jax.config.values["jax_persistent_cache_min_compile_time_secs"]
    (tmp_path / "ndekit").write_text("")  # in the way of the default folder
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert nk.cache_compilations() is None
    assert jax.config.values["jax_compilation_cache_dir"] is None
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == before


@pytest.mark.parametrize("bounds", [{"max_bytes": 0}, {"min_seconds": -1.0}])
def test_bounds_that_bound_nothing_are_refused(bounds, tmp_path):
    with pytest.raises(ValueError, match="must be positive"):
        nk.cache_compilations(tmp_path, **bounds)
