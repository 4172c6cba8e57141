"""Where the seconds of a test run go: tracing, lowering, compiling, reading the cache, the rest.

`python -m pytest --time-spent` prints it after the tests, of all workers together.
"""

import collections
import time

from jax import monitoring

# What JAX calls it, and what it is.
EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile, or read the cache",
    "/jax/compilation_cache/cache_retrieval_time_sec": "of these, read the cache",
}
COUNTED = {
    "/jax/compilation_cache/cache_hits": "programs found in the cache",
    "/jax/compilation_cache/cache_misses": "programs compiled",
}


class TimeSpent:
    """A pytest plugin that listens to JAX."""

    def __init__(self):
        self.seconds, self.counts = collections.Counter(), collections.Counter()
        self.begin = time.perf_counter()
        monitoring.register_event_duration_secs_listener(self.note)
        monitoring.register_event_listener(self.count)

    def note(self, event, seconds, **_):
        if event in EVENTS:
            self.seconds[EVENTS[event]] += seconds

    def count(self, event, **_):
        if event in COUNTED:
            self.counts[COUNTED[event]] += 1

    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workeroutput"):
            self.seconds["everything"] = time.perf_counter() - self.begin
            session.config.workeroutput["time_spent"] = [dict(self.seconds), dict(self.counts)]

    def pytest_testnodedown(self, node, error):
        seconds, counts = node.workeroutput.get("time_spent", [{}, {}])
        self.seconds.update(seconds)
        self.counts.update(counts)

    def pytest_terminal_summary(self, terminalreporter):
        if "everything" not in self.seconds:
            self.seconds["everything"] = time.perf_counter() - self.begin
        terminalreporter.section("time spent (seconds, all workers)")
        for name, value in sorted(self.seconds.items(), key=lambda item: -item[1]):
            terminalreporter.line(f"{value:9.1f}  {name}")
        for name, value in self.counts.items():
            terminalreporter.line(f"{value:9d}  {name}")
