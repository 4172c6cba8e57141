"""Every public name is described, by `help` and on an API page, with all its parameters."""

import ast
import functools
import importlib
import inspect
import pathlib
import pydoc
import re
import runpy
import textwrap
import types

import griffe
import pytest
from support.checkout import ROOT

DOCS = ROOT / "docs"
PACKAGES = sorted((ROOT / "ndekit").rglob("__init__.py"))
# Attributes of ours that a base in diffrax defines, which the API pages do not read.
INHERITED = ("stats",)


def name_of(path):
    return str(path.relative_to(ROOT))


def public_names(source):
    """The names that `ndekit/__init__.py` takes from the package."""
    return [
        alias.asname or alias.name
        for node in ast.parse(source).body
        if isinstance(node, ast.ImportFrom) and (node.level or node.module.startswith("ndekit"))
        for alias in node.names
        if not (alias.asname or alias.name).startswith("_")
    ]


def test_every_public_name_has_a_place_in_the_api_pages():
    names = public_names((ROOT / "ndekit" / "__init__.py").read_text())
    api = "\n".join(path.read_text() for path in sorted((DOCS / "api").rglob("*.md")))
    missing = [name for name in names if not re.search(rf"\bndekit\.{name}\b", api)]
    assert not missing, f"not in docs/api: {missing}"


def test_every_public_name_has_a_docstring():
    missing = []
    for path in PACKAGES:
        module = ".".join(path.parent.relative_to(ROOT).parts)
        for name in public_names(path.read_text()):
            thing = getattr(importlib.import_module(module), name)
            if callable(thing) and not inspect.getdoc(thing):
                missing.append(f"{module}.{name}")
    assert not missing, f"undocumented: {missing}"


@pytest.mark.parametrize("path", PACKAGES, ids=name_of)
def test_help_lists_every_public_name(path):
    names = public_names(path.read_text())
    package = importlib.import_module(".".join(path.parent.relative_to(ROOT).parts))
    assert sorted(getattr(package, "__all__", [])) == sorted(names)
    assert not missing_in_help(package, names)


def missing_in_help(package, names):
    """The names that `help(package)` neither lists as contents nor describes."""
    text = pydoc.render_doc(package, renderer=pydoc.plaintext)
    listed = r"^    (class )?{}(\(|$| \(package\)$)"
    return [name for name in names if not re.search(listed.format(name), text, re.MULTILINE)]


def test_api_pages_list_each_parameter_that_a_docstring_names():
    documented = api_docstrings()
    known = {"ndekit.integrate.door.diffeqsolve", "ndekit.integrate.costs.step.Step"}
    assert known <= set(documented)
    wrong = {path: found for path, (thing, listed) in documented.items()
             if (found := misread(thing, listed))}  # fmt: skip
    assert not wrong, f"no such parameter, or lost in another one's text: {wrong}"


def test_api_page_lists_all_parameters_of_diffeqsolve():
    thing, listed = api_docstrings()["ndekit.integrate.door.diffeqsolve"]
    assert [entry.name for entry in listed] == [parameter.name for parameter in thing.parameters]


@functools.cache
def api_docstrings():
    """Path -> (class or function, entries of its `Args` and `Attributes`), as the pages read it."""
    extensions = griffe.load_extensions(DOCS / "griffe_modules.py")
    package = griffe.load("ndekit", search_paths=[ROOT], extensions=extensions)
    return dict(documented_in(package))


def documented_in(owner):
    for member in owner.members.values():
        if member.is_alias:
            continue
        if member.docstring and (member.is_class or member.is_function):
            sections = member.docstring.parse("google", warnings=False)
            lists = [s.value for s in sections if s.kind.value in ("parameters", "attributes")]
            yield member.path, (member, [entry for entries in lists for entry in entries])
        if member.is_class or member.is_module:
            yield from documented_in(member)


def misread(thing, listed):
    """Entries that name nothing in the signature, and parameters inside the text of another one."""
    parameters = [parameter.name for parameter in thing.parameters]
    known = [*parameters, *(thing.attributes if thing.is_class else ()), *INHERITED]
    names = [entry.name.lstrip("*") for entry in listed]
    unknown = [name for name in names if name not in known]
    hidden = [p for p in parameters if p not in names]
    return unknown + [p for p in hidden if any(f" {p}: " in f" {e.description}" for e in listed)]


# The judge is judged.


def test_parameters_that_a_page_would_lose_are_found():
    source = """
        def f(a, b, c, d):
            \"\"\"F.

            Args:
                a, b: the ends.
                c: one. d: another.
                e: nothing.
            \"\"\"
    """
    with griffe.temporary_visited_module(textwrap.dedent(source)) as module:
        ((_, (thing, listed)),) = documented_in(module)
        assert misread(thing, listed) == ["a, b", "e", "d"]
        extension = runpy.run_path(str(DOCS / "griffe_modules.py"))
        module["f"].docstring.value = extension["ungrouped"](module["f"].docstring.value)
        ((_, (thing, listed)),) = documented_in(module)
    assert [(entry.name, entry.description) for entry in listed[:2]] == [
        ("a", "the ends."),
        ("b", "the ends."),
    ]


def test_what_help_does_not_list_is_found():
    package = types.ModuleType("package", "A package.")
    package.Path = pathlib.Path
    assert missing_in_help(package, ["Path"]) == ["Path"]
    package.__all__ = ["Path"]
    assert missing_in_help(package, ["Path"]) == []


def test_public_names_are_found():
    source = "from . import fields as fields\nfrom .a import B as B, _c\nimport os\n"
    assert public_names(source) == ["fields", "B"]
