"""One configuration as it is drawn, and the small program that it becomes."""

import dataclasses
import inspect
import random
import re
from collections.abc import Mapping
from typing import Any

from support import catalogue_parts

from . import pieces

HEAD = """
import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import lineax as lx
import numpy as np
import optimistix as optx
from diffrax import ODETerm
from typing import ClassVar
"""
TAIL = """
import ndekit as nk

for diffeqsolve in (diffrax.diffeqsolve, nk.diffeqsolve):
    try:
        eqx.tree_pprint(answer(diffeqsolve), short_arrays=False)
    except Exception as error:
        print(type(error).__name__, str(error).strip().splitlines()[0])
"""
OF_CATALOGUE = "Extrapolated Kutta3 Growing Doubled".split()
PIECES = {
    **{name: value for name, value in vars(pieces).items() if inspect.isfunction(value)},
    **{name: getattr(catalogue_parts, name) for name in OF_CATALOGUE},
}


@dataclasses.dataclass
class Draft:
    """What is chosen so far: facts by name, and the source text of each part of the program."""

    rng: random.Random
    number: int
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    inputs: dict[str, str] = dataclasses.field(default_factory=dict)  # arrays, as `x["name"]`
    lines: list[str] = dataclasses.field(default_factory=list)  # what `solve` does first
    call: dict[str, str] = dataclasses.field(default_factory=dict)  # arguments of `diffeqsolve`
    body: list[str] = dataclasses.field(default_factory=list)  # how `solve` ends
    answer: list[str] = dataclasses.field(default_factory=list)  # of `answer`

    def pick(self, weights: Mapping[Any, float]) -> Any:
        return self.rng.choices(list(weights), list(weights.values()))[0]

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def settle(self, **facts: Any) -> None:
        self.facts.update(facts)

    def source(self) -> str:
        """All but the imports of ndekit and what sets the precision."""
        parts = [*(f"    {line}" for line in self.lines), *(f"    {line}" for line in self.body)]
        inputs = ",\n".join(f"    {name}={text}" for name, text in self.inputs.items())
        answer = "\n".join(f"    {line}" for line in self.answer)
        solve = "\n".join(["def solve(diffeqsolve, x):", *parts])
        own = f"inputs = dict(\n{inputs},\n)\n\n\n{solve}\n\n\ndef answer(diffeqsolve):\n{answer}\n"
        return f"{HEAD.strip()}\n\n\n{pieces_in(own)}{own}"

    def call_text(self, **changed: str) -> str:
        """`diffeqsolve(...)`, with some arguments changed."""
        call = self.call | changed
        first = "terms solver t0 t1 dt0 y0 args".split()
        named = [f"{name}={text}" for name, text in call.items() if name not in first]
        return f"diffeqsolve({', '.join([*(call[name] for name in first), *named])})"

    def program(self) -> str:
        """What a reader can run."""
        switches = f'jax.config.update("jax_enable_x64", {self.facts["x64"]})\n'
        if self.facts["strict"]:
            switches += 'jax.config.update("jax_numpy_dtype_promotion", "strict")\n'
        head, rest = self.source().split("\n\n\n", 1)
        return f"{head}\n\n{switches}\n\n{rest}\n{TAIL}"


def pieces_in(text: str) -> str:
    """The source of each piece that is named in a text, and of those named in their sources."""
    found: dict[str, str] = {}
    waiting = [text]
    while waiting:
        names = set(re.findall(r"\w+", waiting.pop())) & set(PIECES) - set(found)
        for name in sorted(names):
            found[name] = inspect.getsource(PIECES[name])
            waiting.append(found[name])
    return "".join(f"{found[name]}\n\n" for name in sorted(found))
