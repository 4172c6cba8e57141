"""Every notebook runs from top to bottom, at reduced size."""

import pathlib

import nbclient
import nbformat
import pytest
from marks import slow_but

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# One of them shows in every run that notebooks run at all; the others take minutes.
FAST = [path for path in NOTEBOOKS if path.stem[:2] == "01"]


@pytest.mark.parametrize("path", slow_but(FAST, NOTEBOOKS), ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("NDEKIT_QUICK", "1")
    # Kernel settings and histories stay out of the user's folders.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_starts_with_its_title(path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
