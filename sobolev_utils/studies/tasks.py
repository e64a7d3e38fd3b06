"""The tasks of the studies: each makes the rows of one seed, or of one size under one seed, from nothing."""

import io
import tempfile
from collections.abc import Collection, Mapping
from contextlib import redirect_stdout
from pathlib import Path

import jax
import pandas as pd

from sobolev_utils.paper.artifacts import CHECKOUT, MADE_BY
from sobolev_utils.paper.case_study import Problem, load_problem
from sobolev_utils.paper.execution import run_notebook
from sobolev_utils.paper.stages import collect_r2
from sobolev_utils.studies import past_the_table, pruning_methods
from sobolev_utils.studies.pruning_methods import Settings

__all__ = ["Parameters", "beyond_rows", "notebook", "pruning_rows", "seed_rows"]

# By stem, of the notebooks that make artefacts, 01 to 05.
Parameters = Mapping[str, Mapping[str, object]]


def pruning_rows(has: Parameters, seed: int, depth: int, keep: int) -> pd.DataFrame:
    """The ways to prune compared, for one seed and one size."""
    settings = Settings(has[MADE_BY["oversized"]], has[MADE_BY["pruned"]])
    return pd.concat(pruning_methods.compare(_problem(has, seed), seed, depth, keep, settings))


def beyond_rows(has: Parameters, seed: int) -> pd.DataFrame:
    """The experiments of `past_the_table` for one seed, in double precision."""
    with jax.enable_x64(True):
        return pd.concat(past_the_table.run(_problem(has, seed), seed))


def seed_rows(has: Parameters, seed: int) -> pd.DataFrame:
    """The R^2 table for one seed: notebooks 01 to 05, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        _run_notebooks(has, seed, Path(folder), MADE_BY.values())
        return collect_r2(Path(folder), seed)[["budget", "stage", "quantity", "seed", "r2"]]


def _problem(has: Parameters, seed: int) -> Problem:
    with tempfile.TemporaryDirectory() as folder:
        _run_notebooks(has, seed, Path(folder), [MADE_BY["problem"]])
        return load_problem(Path(folder), seed=seed)


def _run_notebooks(has: Parameters, seed: int, results: Path, stems: Collection[str]) -> None:
    with redirect_stdout(io.StringIO()):
        for stem in stems:
            run_notebook(notebook(stem), results, {**has[stem], "seed": seed})


def notebook(stem: str) -> Path:
    """Where the notebook of this stem is."""
    return CHECKOUT / "notebooks" / f"{stem}.ipynb"
