"""Settings that hold for every test: strict numerics, fixed keys, a persistent compile cache."""

import gc
import itertools
import os
import pathlib
import zlib

import hypothesis
import jax
import jax.random as jr
import jaxtyping
import pytest
from support import compile_cache, slow_siblings

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent

os.environ.setdefault("MPLBACKEND", "Agg")

DATA = CHECKOUT.parent / "shared" / "data"
if DATA.is_dir():
    os.environ.setdefault("NDEKIT_DATA", str(DATA))

# Most of the tests' time is compilation. Without LLVM's optimisations, without XLA's newer way to
# emit fusions and without threads of the compiler (two workers on two cores leave nothing for them)
# it takes a quarter of its time; what XLA itself does to a program is as ever. Read when the first
# array is made.
FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if compile_cache.has_older_emitters():
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()

# ndekit itself is not imported here: the import hook that checks its types is not yet in place.
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# In the environment too, for the programs and notebooks that tests start.
cache = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compile_cache.folder()))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# The same examples on every run. Compilation makes the time of one example meaningless.
hypothesis.settings.register_profile(
    "fixed",
    derandomize=True,
    deadline=None,
    max_examples=25,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)
hypothesis.settings.load_profile("fixed")


# Tracing makes millions of small objects that live on, and JAX looks at its own at each collection.
gc.set_threshold(100_000, 50, 100)


def pytest_addoption(parser):
    parser.addoption(
        "--time-spent", action="store_true", help="print where the seconds of the run went"
    )


# What takes longest goes first, so that no worker is left with it at the end; the other files go in
# the order of their names.
LONGEST = (
    "test_auto_switch test_gradients_composed test_sde test_gradients test_neural_sde "
    "test_steps_at_once test_local_step test_recorder test_robustness test_catalogue "
    "test_stiffness_readings test_experiments test_optimizers test_user_times test_cli "
    "test_compare test_docs test_padded_series test_events test_sde_gan test_rejected "
    "test_matched_sde"
).split()


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out the slow ones
def pytest_collection_modifyitems(items):
    for item in items:
        if slow_siblings.is_slow(item.path.relative_to(CHECKOUT / "tests").as_posix(), item.name):
            item.add_marker(pytest.mark.slow)
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONGEST)))


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        compile_cache.keep_bounded(compile_cache.folder())
    if config.getoption("--time-spent"):
        from support.time_spent import TimeSpent

        config.pluginmanager.register(TimeSpent(), "time_spent")


@pytest.fixture
def x64():
    """Float64 for one test; float32 is the default.

    For a whole module put this at its top:

        @pytest.fixture(autouse=True)
        def float64(x64):
            pass

    Arrays made while a module is imported are float32 all the same: make them inside the tests.
    """
    with jax.enable_x64(True):
        yield


@pytest.fixture
def types_unchecked():
    """As a user has it: the checks of types that the tests add would speak first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def getkey(request):
    """A function that gives a new random key at each call, the same ones on every run of a test."""
    seed = zlib.crc32(request.node.nodeid.encode()) & 0x7FFFFFFF
    draws = itertools.count()

    def next_key():
        return jr.fold_in(jr.key(seed), next(draws))

    return next_key


@pytest.fixture(autouse=True, scope="module")
def fresh_traces():
    """Forget what earlier modules traced.

    Some of JAX's own traces are found again after `enable_x64` has changed, and then mix float64
    with float32 (seen with jax 0.10.2 where a field unpacks an array: `a, b = args`).
    """
    jax.clear_caches()
