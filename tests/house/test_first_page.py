"""The program that draws the picture of the first page runs, at reduced size."""

import runpy

import jax
import pytest
from support.checkout import ROOT

SCRIPT = ROOT / "docs" / "first_page.py"
PNG = b"\x89PNG"


@pytest.mark.slow
def test_picture_of_the_first_page_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("NDEKIT_QUICK", "1")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        results = runpy.run_path(str(SCRIPT))["main"](tmp_path)
    assert list(results) == ["task alone", "with StepCount"]
    for name in ("first_page.png", "first_page_dark.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)
        assert (SCRIPT.parent / name).is_file()
