"""The documentation keeps its word: its code runs and fits a page, its links lead somewhere."""

import json
import re

import pytest
from support.checkout import ROOT
from support.marks import slow_but
from support.pages import FENCE, name_of, python_blocks, run_page

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# What a page shows beside its two columns of contents, on a screen of 1280 pixels.
MAX_COLUMNS = 80

# What the site reads as a fence: a language, perhaps with options, or attributes in braces.
INFO = re.compile(r'(\w*( \w+="[^"]*")*|{ *\.\w+( \.[\w-]+)* *})')
LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")


# Pages whose code takes half a minute to compile.
LONG = (
    "change_the_state",
    "choose_an_adjoint",
    "deploy_fixed_steps",
    "generate_series",
    "regularize_one_step",
    "second_derivatives",
    "solve_sdes",
    "stiff_problems",
    "penalise_the_path",
    "choose_a_sampler",
    "choose_a_path",
    "choose_a_control",
    "when_training_fails",
    "a_density",
    "your_data",
    "coming_from_diffrax",
    "keep_a_budget",
)


def relative_links(text):
    """Targets of the links outside of code that are neither on the web nor on the page itself."""
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    return [link for link in LINK.findall(prose) if not re.match(r"[a-z]+:|#", link)]


WITH_CODE = [path for path in PAGES if any(python_blocks(path.read_text()))]
QUICK = [path for path in WITH_CODE if path.stem not in LONG]


@pytest.mark.parametrize("path", slow_but(QUICK, WITH_CODE), ids=name_of)
def test_code_of_page_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NDEKIT_QUICK", "1")
    run_page(path.read_text(), str(path))


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_blocks_of_page_are_read_as_code_and_fit(path):
    wrong = list(unfit_blocks(path.read_text()))
    assert not wrong, "\n".join(wrong)


def unfit_blocks(text):
    """Fences that the site would print as text, and lines for which it would scroll sideways."""
    for match in FENCE.finditer(text):
        indent, info, source = match.groups()
        line = text.count("\n", 0, match.start()) + 1
        if not INFO.fullmatch(info):
            yield f"line {line}: `{info}` is no fence to the site; write {{.python .no-run}}"
        for number, code in enumerate(source.splitlines(), line + 1):
            if len(code.removeprefix(indent)) > MAX_COLUMNS:
                yield f"line {number}: more than {MAX_COLUMNS} columns"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_code_and_output_of_notebook_fit(path):
    for cell in json.loads(path.read_text())["cells"]:
        printed = [line for output in cell.get("outputs", ()) for line in output.get("text", ())]
        code = cell["source"] if cell["cell_type"] == "code" else []
        wide = [line for line in [*code, *printed] if len(line.rstrip("\n")) > MAX_COLUMNS]
        assert not wide, "".join(wide)


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=name_of)
def test_links_of_page_resolve(path):
    targets = [link.split("#")[0] for link in relative_links(prose_of(path))]
    missing = [link for link in targets if not (path.parent / link).exists()]
    assert not missing, f"no such file: {missing}"


def prose_of(path):
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def test_every_page_is_in_the_navigation():
    pages = {str(path.relative_to(DOCS)) for path in PAGES if path.is_relative_to(DOCS)}
    pages |= {name_of(path) for path in NOTEBOOKS}
    listed = set(re.findall(r"[\w/.-]+\.(?:md|ipynb)\b", (ROOT / ".mkdocs.yml").read_text()))
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


def test_blocks_that_do_not_fit_are_found():
    assert not list(unfit_blocks("```\na\n```\n```{.python .no-run}\nb\n```\n"))
    assert ["line 1" in wrong for wrong in unfit_blocks("```python no-run\na\n```\n")] == [True]
    wide = "    ```python\n    a\n    " + 81 * "b" + "\n    ```\n"
    assert [wrong.split(":")[0] for wrong in unfit_blocks(wide)] == ["line 3"]
