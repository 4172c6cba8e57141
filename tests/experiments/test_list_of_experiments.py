"""The list of experiments: a new one is a file and its line."""

import pathlib

import pytest
from support.checkout import ROOT
from support.imports import graph_of

import ndekit.experiments
from ndekit.cli import main
from ndekit.experiments import catalogue
from ndekit.experiments.harness import registry
from ndekit.experiments.harness.config import Config

FOLDER = pathlib.Path(catalogue.__file__).parent
NEW = '''
"""Blobs instead of digits."""

from ndekit.experiments.digits import PRESETS as OF_DIGITS

PRESETS = {"default": OF_DIGITS["default"]._replace(about="told in one file")}
'''


def test_the_list_is_that_of_the_files():
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "catalogue", "papers"}
    assert {*catalogue.NAMES, *catalogue.MEASURED} == files
    assert list(registry.EXPERIMENTS) == list(catalogue.NAMES)
    assert list(registry.MEASUREMENTS) == list(catalogue.MEASURED)


def test_every_file_has_presets():
    for name in catalogue.NAMES:
        presets = catalogue.presets_of(name)
        assert presets and registry.EXPERIMENTS[name] == presets
        assert all(isinstance(config, Config) and config.about for config in presets.values())


def test_a_new_experiment_is_one_file_and_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "blobs.py").write_text(NEW)
    path = [*ndekit.experiments.__path__, str(tmp_path)]
    monkeypatch.setattr(ndekit.experiments, "__path__", path)
    monkeypatch.setitem(registry.EXPERIMENTS, "blobs", catalogue.presets_of("blobs"))
    assert main(["list"]) == 0
    assert "blobs\n  --preset default      told in one file\n" in capsys.readouterr().out
    assert registry.make_job("blobs", "steps", 0).name.startswith("blobs-default-40epochs-steps")


HARNESS = "ndekit.experiments.harness"


def climbing(graph):
    """Imports of the harness from what stands above it in `experiments/`."""
    return [
        f"{path}:{line}: {target}"
        for module, path, line, target in graph
        if f"{module}.".startswith(f"{HARNESS}.")
        and f"{target}.".startswith("ndekit.experiments.")
        and not f"{target}.".startswith(f"{HARNESS}.")
    ]


def test_the_harness_imports_no_experiment():
    assert not climbing(graph_of(ROOT))


@pytest.mark.parametrize(
    "source",
    [
        "from .. import spiral",
        "from ..catalogue import NAMES",
        "import ndekit.experiments.spiral",
        "def f():\n    from ndekit.experiments import spiral",
    ],
)
def test_an_import_of_an_experiment_is_caught(tmp_path, source):
    folder = tmp_path / "ndekit" / "experiments"
    (folder / "harness").mkdir(parents=True)
    for name in ("__init__", "catalogue", "spiral", "harness/__init__", "harness/row"):
        (folder / f"{name}.py").write_text("")
    (folder / "harness" / "runs.py").write_text("from .row import Row\nfrom ...data import mnist")
    assert not climbing(graph_of(tmp_path))
    (folder / "harness" / "runs.py").write_text(source)
    assert len(climbing(graph_of(tmp_path))) == 1
