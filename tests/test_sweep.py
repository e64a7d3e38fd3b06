"""The sweep of `make sweep`, a small one: what is admissible ends well, what is not is refused before any work."""

import runpy
import subprocess
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
SWEEP = runpy.run_path(str(ROOT / "tests" / "benchmarks" / "sweep.py"))


def test_far_from_the_defaults_a_notebook_ends_well_or_is_refused():
    small = SWEEP["SMALL"]
    chosen = [
        ("1 asset, integer strike, short", {**small, "n_assets": 1, "strike": 1, "maturity": 1.05}, "ended well"),
        ("strike far above", {**small, "strike": 1.6, "points": "pseudo_random"}, "ended well"),
        ("out of reach", {**small, "strike": 0.5, "volatility": 0.05}, "refused"),
        ("unknown", {**small, "strikes": 1}, "refused"),
    ]
    table = SWEEP["sweep"](["01_data_generation"], chosen)
    assert list(table.outcome) == [expected for _, _, expected in chosen]
    assert list(table.notebook) == ["", "", "01_data_generation", ""]
    assert table.reason[2].startswith("strike = 0.5 is not admissible, expected a strike so near to 1 that")
    assert table.reason[3].startswith("no notebook has a parameter 'strikes'; there are: basket_seed,")


@pytest.mark.parametrize("trace", ["results", "a second line", "usage"])
def test_one_that_stops_in_its_work_or_says_more_than_a_line_is_neither(monkeypatch, trace):
    def run(command, **_):
        if trace == "results":
            command[command.index("--results") + 1].mkdir()
        before = "Traceback\n" * (trace == "a second line")
        error = f"{before}reproduce: 02_oversized_model, In [9]: AssertionError\n"
        return subprocess.CompletedProcess(command, 2 if trace == "usage" else 1, "", error)

    monkeypatch.setattr(subprocess, "run", run)
    outcome, notebook, reason = SWEEP["outcome"]([], {})
    assert (outcome, notebook, reason) == ("stopped", "02_oversized_model", "In [9]: AssertionError")


def test_the_names_of_the_large_one_are_unlike():
    combinations = list(SWEEP["combinations"]())
    assert len({name for name, *_ in combinations}) == len(combinations) >= 50


def test_in_the_table_all_end_well_or_are_refused_with_a_reason():
    table = pd.read_csv(ROOT / "results" / "tables" / "sweep.csv", keep_default_na=False)
    expected = [(name, outcome) for name, _, outcome in SWEEP["combinations"]()]
    assert list(zip(table.combination, table.outcome, strict=True)) == expected
    assert list(table.reason != "") == [outcome == "refused" for _, outcome in expected]
