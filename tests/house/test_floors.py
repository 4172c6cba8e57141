"""The floors of the house: who may import whom, read from the source without running it."""

import ast
import graphlib
import pathlib

import pytest
from support.checkout import ROOT
from support.imports import PACKAGE, graph_of, module_names, part_of

# From the ground up. A part imports from the floors below it and from its own column. The columns
# of a floor never import one another. A new part is added here, and then it has a place.
FLOORS = (
    ("ground", ({"shapes", "tree", "numbers", "choices", "compiling"},)),
    ("data", ({"data"},)),
    (
        "calculus",
        (
            {"fields", "controls", "paths", "couplings", "losses", "jets", "probes"},
            {"parallel"},
        ),
    ),
    ("engine", ({"integrate"},)),
    ("rooms", ({"regularize"}, {"models", "samplers"})),
    ("workshop", ({"train"},)),
    ("tools", ({"diagnose", "plot"}, {"deploy"})),
    # The names that a user types, `ndekit/__init__.py`: above what it lists, below the roof, where
    # an experiment may write `import ndekit as nk` as a user does.
    ("door", ({PACKAGE},)),
    ("roof", ({"experiments", "cli"},)),
)


def places(floors):
    """The floor and the column of every part."""
    return {
        part: (floor, column)
        for floor, columns in enumerate(floors)
        for column, parts in enumerate(columns)
        for part in parts
    }


PLACES = places(columns for _, columns in FLOORS)
# The rooms of the engine, from the ground up, in the same way.
ENGINE = "integrate"
ROOMS = (
    ({"times"}, {"programs"}, {"solvers"}),
    ({"control"}, {"resets"}),
    ({"costs"}, {"steppers"}, {"noise"}, {"solution"}, {"checked"}),
    ({"forward"},),
    ({"replay"},),
    ({"prepare"},),
    ({"adjoint"},),
    ({"outside"},),
    ({"door"},),
)
ROOM_PLACES = places(ROOMS)
EMPTY_NAMES = {"utils", "util", "misc", "common", "helpers", "helper"}


def room_of(module):
    """`costs` for `ndekit.integrate.costs.step`; nothing for what is not inside the engine, and for
    its `__init__`, which lists what is at the top.
    """
    parts = module.split(".")
    return parts[2] if parts[1:2] == [ENGINE] and len(parts) > 2 else None


def may_import(above, below, table=None):
    """Whether part `above` may import part `below`."""
    table = PLACES if table is None else table
    if above == below:
        return True
    (floor, column), (other_floor, other_column) = table[above], table[below]
    return other_floor < floor or (other_floor == floor and other_column == column)


def climbing_imports(root):
    lines = []
    for module, path, line, target in graph_of(root):
        above, below = part_of(module), part_of(target)
        if above in PLACES and below in PLACES and not may_import(above, below):
            lines.append(f"{path}:{line}: {above} may not import {below} ({target})")
    return lines


def climbing_rooms(root):
    lines = []
    for module, path, line, target in graph_of(root):
        above, below = room_of(module), room_of(target)
        if above and below and not may_import(above, below, ROOM_PLACES):
            lines.append(f"{path}:{line}: room {above} may not enter {below} ({target})")
    return lines


def private_names(root):
    """Names that start with an underscore, imported from another module of the package."""
    return [
        f"{path}:{node.lineno}: {alias.name} is private to {node.module}"
        for path in sorted((root / PACKAGE).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
        if alias.name.startswith("_")
    ]


def private_imports(root):
    """Imports of another part's module whose name starts with an underscore."""
    return [
        f"{path}:{line}: {target} is private to {part_of(target)}"
        for module, path, line, target in graph_of(root)
        if part_of(module) != part_of(target)
        and any(name.startswith("_") for name in target.split(".")[1:])
    ]


def cycle(root, name_of):
    """A ring of imports among modules, or among parts as `name_of` says; empty if there is none."""
    below = {}
    for module, _, _, target in graph_of(root):
        above, ground = name_of(module), name_of(target)
        if above != ground:
            below.setdefault(above, set()).add(ground)
    try:
        graphlib.TopologicalSorter(below).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_every_part_has_a_floor():
    parts = {part_of(module) for module in module_names(ROOT)}
    assert parts <= set(PLACES), f"no floor yet: {sorted(parts - set(PLACES))}"


def test_no_import_climbs():
    lines = climbing_imports(ROOT)
    assert not lines, "\n" + "\n".join(lines)


def test_every_room_of_the_engine_has_a_floor():
    rooms = {room_of(module) for module in module_names(ROOT)} - {None}
    assert rooms == set(ROOM_PLACES)


def test_no_room_of_the_engine_climbs():
    lines = climbing_rooms(ROOT)
    assert not lines, "\n" + "\n".join(lines)


def test_a_room_is_entered_by_public_names():
    lines = private_names(ROOT)
    assert not lines, "\n" + "\n".join(lines)


def test_every_room_says_what_happens_in_it():
    for folder in (path for path in (ROOT / PACKAGE / ENGINE).iterdir() if path.is_dir()):
        if folder.name in ROOM_PLACES:
            tree = ast.parse((folder / "__init__.py").read_text())
            said = ast.get_docstring(tree)
            assert said and len(tree.body) == 1 and "\n\n" not in said, folder
            assert len(said.split()) > 25, f"{folder}: what comes in, what goes out?"


def test_no_part_imports_another_parts_private_module():
    lines = private_imports(ROOT)
    assert not lines, "\n" + "\n".join(lines)


@pytest.mark.parametrize(
    "name_of", [str, part_of, lambda m: room_of(m) or part_of(m)], ids=["modules", "parts", "rooms"]
)
def test_imports_have_no_cycle(name_of):
    ring = cycle(ROOT, name_of)
    assert not ring, " -> ".join(reversed(ring))


def test_every_module_has_a_name_that_says_something():
    empty = [name for name in module_names(ROOT) if EMPTY_NAMES & set(name.split("."))]
    assert not empty, f"what do these hold? {empty}"


# The judge is judged: each line below must be caught in a toy house, or let through.

CLIMBING = {
    "absolute": ("tree.py", "import ndekit.integrate.costs"),
    "from": ("integrate/costs.py", "from ndekit.regularize import StepError"),
    "from the package": ("integrate/costs.py", "from ndekit import regularize"),
    "relative": ("integrate/costs.py", "from ..regularize import StepError"),
    "relative, name": ("integrate/costs.py", "from .. import regularize"),
    "from an __init__": ("integrate/__init__.py", "from ..train import loop"),
    "inside a function": ("train/loop.py", "def f():\n    from ndekit.plot import curves"),
    "for types only": (
        "models/neural_ode.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ndekit.regularize import A",
    ),
    "between rooms": ("regularize/error.py", "from ndekit.models import NeuralODE"),
    "between columns": ("models/neural_ode.py", "import ndekit.regularize"),
    "up to the next floor": ("data/digits.py", "from ndekit.fields import mlp"),
    "the door from inside": ("train/loop.py", "import ndekit as nk"),
    "the roof from the door": ("__init__.py", "from . import experiments"),
}
ALLOWED = {
    "down": ("train/loop.py", "from ndekit.models import NeuralODE"),
    "within a part": ("integrate/solve.py", "from .costs import EveryStep"),
    "within a column": ("plot/curves.py", "from ndekit.diagnose import trace"),
    "the door lists": ("__init__.py", "from .integrate import costs as costs"),
    "the roof uses the door": ("experiments/digits.py", "import ndekit as nk"),
    "another package": ("tree.py", "import numpy as np\nfrom ndekitten import train"),
}


CLIMBING_IN_THE_ENGINE = {
    "relative": ("forward/loop.py", "from ..replay import backwards"),
    "of a name": ("steppers/explicit.py", "from ..costs.contracts import Place"),
    "absolute": ("programs/lanes.py", "import ndekit.integrate.control.norms"),
    "the top": ("prepare/parts.py", "def f():\n    from ..adjoint import ReplayAdjoint"),
}


@pytest.mark.parametrize(
    ("file", "source"), CLIMBING_IN_THE_ENGINE.values(), ids=CLIMBING_IN_THE_ENGINE
)
def test_a_climbing_import_in_the_engine_is_caught(tmp_path, file, source):
    for name in ("replay/backwards", "costs/contracts", "control/norms", "adjoint", file[:-3]):
        path = tmp_path / PACKAGE / ENGINE / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (tmp_path / PACKAGE / ENGINE / file).write_text(source)
    assert climbing_rooms(tmp_path)


def test_a_private_name_is_caught(tmp_path):
    root = toy_house(tmp_path, "tree.py", "def _zeros(): ...")
    (root / PACKAGE / "train" / "loop.py").write_text("from ..tree import _zeros")
    assert len(private_names(root)) == 1


def toy_house(root, file, source):
    for part in PLACES.keys() - {pathlib.Path(file).stem}:
        folder = root / PACKAGE / ("" if part == PACKAGE else part)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text("")
    (root / PACKAGE / "integrate" / "costs.py").write_text("")
    path = root / PACKAGE / file
    path.write_text(source)
    return root


@pytest.mark.parametrize(("file", "source"), CLIMBING.values(), ids=CLIMBING)
def test_a_climbing_import_is_caught(tmp_path, file, source):
    assert climbing_imports(toy_house(tmp_path, file, source))


@pytest.mark.parametrize(("file", "source"), ALLOWED.values(), ids=ALLOWED)
def test_an_allowed_import_passes(tmp_path, file, source):
    assert not climbing_imports(toy_house(tmp_path, file, source))


def test_a_cycle_is_caught(tmp_path):
    root = toy_house(tmp_path, "plot/__init__.py", "from ndekit import diagnose")
    (root / PACKAGE / "diagnose" / "__init__.py").write_text("def f():\n    import ndekit.plot")
    assert cycle(root, str)
    assert cycle(root, part_of)


def test_a_private_module_is_caught(tmp_path):
    root = toy_house(tmp_path, "integrate/_tableau.py", "")
    (root / PACKAGE / "train" / "loop.py").write_text("from ndekit.integrate._tableau import rows")
    (root / PACKAGE / "integrate" / "solve.py").write_text("from ._tableau import rows")
    assert len(private_imports(root)) == 1
