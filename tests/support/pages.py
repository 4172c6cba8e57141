"""Code within prose: in a page of the documentation, or in a docstring."""

import re
import sys
import types

import jax
from support.checkout import ROOT

# A fence, perhaps indented (in a tab or an admonition): indent, info string, code.
FENCE = re.compile(r"^([ ]*)```([^\n`]*)\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)


def name_of(path):
    return str(path.relative_to(ROOT))


def python_blocks(text):
    """The (first line, source) of every block in Python that is not tagged `no-run`."""
    for match in FENCE.finditer(text):
        indent, info, source = match.groups()
        words = re.findall(r"[\w-]+", info)
        if words[:1] == ["python"] and "no-run" not in words:
            lines = [line.removeprefix(indent) for line in source.splitlines()]
            yield text.count("\n", 0, match.start()) + 2, "\n".join(lines)


def run_page(text, file):
    """Run the blocks of a page one after the other in one namespace, as a reader would.

    That is under JAX's own promotion rules, which optax's optimisers rely on.
    """
    page = types.ModuleType("page")
    sys.modules["page"] = page  # dataclasses look their module up
    try:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            for line, source in python_blocks(text):
                padded = "\n" * (line - 1) + source  # a traceback then shows the page's own line
                exec(compile(padded, file, "exec"), page.__dict__)
    finally:
        del sys.modules["page"]
