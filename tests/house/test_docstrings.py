"""The examples in docstrings run, each by itself, as a reader would run it."""

import pytest
from support.checkout import ROOT
from support.marks import slow_but
from support.pages import name_of, python_blocks, run_page

WITH_EXAMPLES = [
    path for path in sorted((ROOT / "ndekit").rglob("*.py")) if any(python_blocks(path.read_text()))
]
# Quick, and what a reader looks up first.
FIRST = [path for path in WITH_EXAMPLES if path.stem in ("door", "choices", "paths", "counts")]


def test_docstrings_have_examples():
    assert len(WITH_EXAMPLES) > 90


@pytest.mark.parametrize("path", slow_but(FIRST, WITH_EXAMPLES), ids=name_of)
def test_examples_of_docstrings_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line, source in python_blocks(path.read_text()):
        run_page(f"```python\n{source}\n```", f"{path}:{line}")
