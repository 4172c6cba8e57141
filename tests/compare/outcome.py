"""What a program gives back by one of the two libraries: numbers by path, or a refusal."""

import contextlib
import dataclasses
import re
import warnings
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

FIELDS = "t0 t1 ts ys result solver_state made_jump event_mask".split()
COUNTS = ("num_steps", "num_accepted_steps", "num_rejected_steps", "max_steps")
SHARES = (0.0, 0.041, 0.3, 0.77, 1.0)


@dataclasses.dataclass
class Outcome:
    """Leaves by their path; or, of a refusal, its type and its first sentence."""

    leaves: dict[str, Any]
    kinds: dict[str, str]  # dtype and shape, or the Python type
    raised: type[Exception] | None
    said: str
    warned: frozenset[str]

    @property
    def steps(self) -> int:
        counts = [v for p, v in self.leaves.items() if "'num_steps'" in p]
        return int(max([np.max(v, initial=0) for v in counts], default=0))


@contextlib.contextmanager
def precision(facts: dict):
    promotion = "strict" if facts["strict"] else "standard"
    with jax.enable_x64(facts["x64"]), jax.numpy_dtype_promotion(promotion):
        yield


def scope_of(draft: Any) -> dict[str, Any]:
    """The program's names, ready to be called: `inputs`, `solve`, `answer`."""
    names: dict[str, Any] = {"__name__": f"configuration_{draft.number}"}
    exec(compile(draft.source(), f"<configuration {draft.number}>", "exec"), names)
    return names


def outcome(scope: dict, facts: dict, diffeqsolve: Callable) -> Outcome:
    """Run `answer(diffeqsolve)` and write down all that it gives back."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            came = told(scope["answer"](diffeqsolve), len_of_lanes(facts))
            came, raised, said = jax.block_until_ready(came), None, ""
        except Exception as error:
            came, raised, said = {}, kind_of(error), first_sentence(str(error))
    warned = frozenset(first_sentence(str(w.message)) for w in caught)
    leaves, kinds = flat(came)
    return Outcome(leaves, kinds, raised, said, warned)


def kind_of(error: Exception) -> type[Exception]:
    """Equinox's own kind cannot be pickled, and nobody catches it by its name."""
    kind = type(error)
    return RuntimeError if kind.__name__ == "EquinoxRuntimeError" else kind


def len_of_lanes(facts: dict) -> int:
    """How often a solution is mapped."""
    return 0 if facts["derivative"] else facts["transform"].split().count("vmap")


def told(out: Any, depth: int) -> Any:
    is_solution = lambda x: isinstance(x, diffrax.Solution)
    of = lambda x: _of_solution(x, depth) if is_solution(x) else x
    return jax.tree.map(of, out, is_leaf=is_solution)


def _of_solution(sol: Any, depth: int) -> dict[str, Any]:
    found = {name: getattr(sol, name) for name in FIELDS}
    found["stats"] = {name: sol.stats[name] for name in COUNTS}
    found["controller_state"] = jax.tree.map(_kind_of_memory, sol.controller_state)
    if sol.interpolation is not None:
        look = along
        for _ in range(depth):
            look = eqx.filter_vmap(look)
        found["dense"] = eqx.filter_jit(look)(sol.interpolation)
    return found


def along(path: Any) -> Any:
    """Dense output at some places, its derivative there, and a difference."""
    times = [path.t0 + (path.t1 - path.t0) * share for share in SHARES]
    values = [(path.evaluate(t), path.derivative(t)) for t in times]
    # Of a PyTree, diffrax cannot take the difference.
    pair = path.evaluate(times[1], times[2]) if eqx.is_array(values[0][0]) else None
    return path.t0, path.t1, values, pair


def _kind_of_memory(x: Any) -> Any:
    """Of what a controller remembers, numbers are not compared: a PID controller keeps the inverse
    of a small error, a rounding error made large. The steps that follow from it are compared."""
    return jnp.isfinite(x) if eqx.is_inexact_array(x) else x


def flat(tree: Any) -> tuple[dict[str, Any], dict[str, str]]:
    leaves, kinds = {}, {}
    for path, leaf in jtu.tree_flatten_with_path(tree)[0]:
        name = jtu.keystr(path)
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        is_number = eqx.is_array_like(leaf)
        kinds[name] = type(leaf).__name__
        if eqx.is_array(leaf):
            kinds[name] = f"{leaf.dtype}{list(leaf.shape)}"
        leaves[name] = np.asarray(leaf) if is_number else re.sub(r"0x\w+", "0x", repr(leaf))
    return leaves, kinds


def first_sentence(message: str) -> str:
    """Of a message; JAX and Equinox wrap those of run time into the stack."""
    *_, message = re.split(r"EquinoxRuntimeError: |ndekit: ", message)
    return re.split(r"(?<=[.!?])\s|\n", message.strip(), maxsplit=1)[0]
