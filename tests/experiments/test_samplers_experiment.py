"""The samplers' experiment at a small size: what its tables say is checked by other tests' laws."""

import json

import jax
import numpy as np
import pytest

from ndekit.cli import main
from ndekit.experiments import samplers
from ndekit.experiments.harness.registry import MEASUREMENTS

SMALL = samplers.Sizes(samples=4, seeds=2, evals=(24, 96), updates=2)


@pytest.fixture
def few(monkeypatch):
    """Three samplers, one solver in two variables, one tolerance."""
    kept = ("DDIM", "F-PNDM", "DPM-Solver++(2M)")
    monkeypatch.setattr(samplers, "SAMPLERS", {k: samplers.SAMPLERS[k] for k in kept})
    rk = {"Bosh3": samplers.RUNGE_KUTTA["Bosh3"]}
    monkeypatch.setattr(samplers, "RUNGE_KUTTA", rk)
    monkeypatch.setattr(samplers, "VARIABLES", ("rho",))
    monkeypatch.setattr(samplers, "TOLERANCES", (1e-4,))


@pytest.mark.slow
def test_more_evaluations_are_less_error_and_orders_come_out(few):
    with jax.enable_x64(True):
        rows = list(samplers.rows("2-D", SMALL))
    errors = {(row["sampler"], row["steps"], round(row["evals"])): row["median"] for row in rows}
    for name in ("DDIM", "F-PNDM", "DPM-Solver++(2M)"):
        few_steps, many = (errors[name, "fixed", n] for n in (24, 96))
        assert many < few_steps
    assert errors["DPM-Solver++(2M)", "fixed", 96] < 0.2 * errors["DDIM", "fixed", 96]
    adaptive = [row for row in rows if row["steps"] == "rtol 0.0001"]
    assert len(adaptive) == 1 and adaptive[0]["worst"] >= adaptive[0]["evals"]
    assert adaptive[0]["median"] < 0.01


def test_the_command_writes_its_table_once_and_draws_it(few, tmp_path, monkeypatch, capsys):
    measurement = MEASUREMENTS["samplers"]
    small = measurement._replace(sizes=SMALL._replace(evals=(48,)))
    monkeypatch.setitem(MEASUREMENTS, "samplers", small)
    command = ["measure", "samplers", "--part", "2-D", "--set", "evals=24", "--out", str(tmp_path)]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "| 2-D     | DDIM " in first and str(tmp_path / "2-D_samplers.png") in first
    lines = (tmp_path / "2-D.jsonl").read_text().splitlines()
    about, *rows = [json.loads(line) for line in lines]
    assert about == {"sizes": {"samples": 4, "seeds": 2, "evals": [24], "updates": 2}}
    assert len(rows) == 4 and np.isfinite([row["error"] for row in rows]).all()
    monkeypatch.setitem(samplers.PROBLEMS, "2-D", None)  # is not made again
    assert main(command) == 0
    assert capsys.readouterr().out == first
    # Nor is it taken for the table of other sizes.
    assert main(["measure", "samplers", "--part", "2-D", "--out", str(tmp_path)]) == 2
    assert "2-D.jsonl` is of other sizes" in capsys.readouterr().err


def test_a_part_that_there_is_not_is_refused(capsys):
    assert main(["measure", "samplers", "--part", "3-D"]) == 2
    assert "no part of `samplers` `3-D`" in capsys.readouterr().err
    assert main(["measure", "sampler"]) == 2
    assert "Did you mean `samplers`?" in capsys.readouterr().err


def test_a_size_that_there_is_not_is_refused(capsys):
    command = ["measure", "samplers", "--set"]
    assert main([*command, "points=3"]) == 2
    assert "no size `points`. There are: samples=200 seeds=5 evals=12,24" in capsys.readouterr().err
    for setting in ("evals=12;24", "evals=12,", "evals", "evals=12,12"):
        assert main([*command, setting]) == 2
        assert (
            "`evals` is whole numbers with commas, each once, from 1, got"
            in capsys.readouterr().err
        )
    assert main([*command, "samples=0"]) == 2
    assert "`samples` is a whole number, from 1, got `0`" in capsys.readouterr().err
