"""Every notebook runs from top to bottom, at reduced size, and is stored as it came out in full."""

import ast
import re

import nbclient
import nbformat
import pytest
from support.checkout import ROOT
from support.marks import slow_but

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# One of them shows in every run that notebooks run at all; the others take minutes.
FAST = [path for path in NOTEBOOKS if path.stem[:2] == "01"]
# What a page can take, and a repository that keeps every version.
MAX_BYTES = 500_000
AGAIN = "`make notebooks` runs them all and keeps what comes out"


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shows(source):
    """Whether a cell prints at its top level, or ends in a value."""
    body = ast.parse(re.sub(r"^%.*$", "", source, flags=re.MULTILINE)).body
    now = [node for node in body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    calls = [n.func for top in now for n in ast.walk(top) if isinstance(n, ast.Call)]
    prints = any(isinstance(func, ast.Name) and func.id == "print" for func in calls)
    return prints or (bool(body) and isinstance(body[-1], ast.Expr))


def lacks(notebook):
    """What is wrong with how a notebook is stored, in words."""
    cells = code_cells(notebook)
    counts = [cell.execution_count for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        yield f"not run from top to bottom in one go: execution counts {counts}"
    for number, cell in enumerate(cells, 1):
        kinds = [output.output_type for output in cell.outputs]
        if "error" in kinds:
            yield f"code cell {number} ends in an error"
        if shows(cell.source) and not kinds:
            yield f"code cell {number} shows something, and its output is not stored"
        if kinds.count("stream") > 1:
            yield f"code cell {number} prints into several boxes"
        if any(output.get("name") == "stderr" for output in cell.outputs):
            yield f"code cell {number} warns"


@pytest.mark.parametrize("path", slow_but(FAST, NOTEBOOKS), ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("NDEKIT_QUICK", "1")
    # Kernel settings and histories stay out of the user's folders.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(read(path), timeout=600, resources=resources).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_with_its_outputs(path):
    found = list(lacks(read(path)))
    assert not found, f"{'; '.join(found)} ({AGAIN})"
    assert path.stat().st_size < MAX_BYTES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_starts_with_its_title(path):
    first = read(path).cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")


# The judge is judged.


def test_notebooks_that_were_not_run_are_found():
    output = nbformat.v4.new_output("stream", text="1")
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[])
    cell = nbformat.v4.new_code_cell
    good = [cell("a = 1", execution_count=1), cell("a", execution_count=2, outputs=[output])]
    notebook = lambda cells: nbformat.v4.new_notebook(cells=cells)
    assert list(lacks(notebook(good))) == []
    assert any("in one go" in words for words in lacks(notebook(good[::-1])))
    silent = [good[0], cell("if a:\n    print(a)", execution_count=2)]
    assert any("not stored" in words for words in lacks(notebook(silent)))
    failed = [cell("a", execution_count=1, outputs=[error])]
    assert any("error" in words for words in lacks(notebook(failed)))
    assert not shows("%matplotlib inline\ndef f():\n    print(1)")
