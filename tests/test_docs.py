"""The documentation keeps its word: its code runs, its links lead somewhere, it names all names."""

import ast
import functools
import importlib
import inspect
import pathlib
import pydoc
import re
import runpy
import sys
import textwrap
import types

import griffe
import jax
import pytest
from marks import slow_but

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PACKAGES = sorted((ROOT / "ndekit").rglob("__init__.py"))
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

# A fence, perhaps indented (in a tab or an admonition): indent, info string, code.
FENCE = re.compile(r"^([ ]*)```([^\n`]*)\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")


# Pages whose code takes half a minute to compile.
LONG = (
    "generate_series",
    "regularize_one_step",
    "solve_sdes",
    "stiff_problems",
    "penalise_the_path",
)


# Attributes of ours that a base in diffrax defines, which the API pages do not read.
INHERITED = ("stats",)


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


def relative_links(text):
    """Targets of the links outside of code that are neither on the web nor on the page itself."""
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    return [link for link in LINK.findall(prose) if not re.match(r"[a-z]+:|#", link)]


def public_names(source):
    """The names that `ndekit/__init__.py` takes from the package."""
    return [
        alias.asname or alias.name
        for node in ast.parse(source).body
        if isinstance(node, ast.ImportFrom) and (node.level or node.module.startswith("ndekit"))
        for alias in node.names
        if not (alias.asname or alias.name).startswith("_")
    ]


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


WITH_CODE = [path for path in PAGES if any(python_blocks(path.read_text()))]
QUICK = [path for path in WITH_CODE if path.stem not in LONG]


@pytest.mark.parametrize("path", slow_but(QUICK, WITH_CODE), ids=name_of)
def test_code_of_page_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NDEKIT_QUICK", "1")
    run_page(path.read_text(), str(path))


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_of_page_resolve(path):
    targets = [link.split("#")[0] for link in relative_links(path.read_text())]
    missing = [link for link in targets if not (path.parent / link).exists()]
    assert not missing, f"no such file: {missing}"


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
    assert {"ndekit.integrate.door.diffeqsolve", "ndekit.integrate.step.Step"} <= set(documented)
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


def test_every_page_is_in_the_navigation():
    pages = {str(path.relative_to(DOCS)) for path in PAGES if path.is_relative_to(DOCS)}
    listed = set(re.findall(r"[\w/.-]+\.md\b", (ROOT / ".mkdocs.yml").read_text()))
    assert pages == listed


# The judge is judged.


def test_blocks_are_found():
    text = "```python\na = 1\n```\n```bash\nls\n```\n```python no-run\nb\n```\n"
    indented = '=== "tab"\n\n    ```python\n    if True:\n        d = 1\n    ```\n'
    assert list(python_blocks(text)) == [(2, "a = 1")]
    assert list(python_blocks(indented)) == [(4, "if True:\n    d = 1")]


def test_blocks_of_a_page_share_a_namespace(tmp_path):
    run_page("```python\na = 1\n```\ntext\n```python\nassert a == 1\n```\n", "page.md")
    with pytest.raises(NameError):
        run_page("```python\na\n```\n", "page.md")


def test_links_are_found():
    text = "[a](b.md#c) ![d](e.png) [w](https://x.org) [s](#s) `[i](j)`\n```\n[k](l)\n```\n"
    assert relative_links(text) == ["b.md#c", "e.png"]


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
