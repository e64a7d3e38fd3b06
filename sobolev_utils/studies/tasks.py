"""The tasks of the studies: each makes the rows of one seed, or of one size under one seed, from nothing."""

import io
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import jax
import pandas as pd

from sobolev_utils.paper.artifacts import MADE_BY
from sobolev_utils.paper.case_study import Problem, load_problem
from sobolev_utils.paper.execution import run_notebook
from sobolev_utils.paper.reproduce import NOTEBOOKS
from sobolev_utils.paper.stages import collect_r2
from sobolev_utils.studies import extensions, pruning_methods

__all__ = ["Parameters", "beyond_rows", "pruning_rows", "seed_rows"]

# Of notebooks 01 to 06, by stem.
Parameters = Mapping[str, Mapping[str, object]]


def pruning_rows(has: Parameters, seed: int, depth: int, keep: int) -> pd.DataFrame:
    """The ways to prune compared, for one seed and one size."""
    oversized, tuning = has[MADE_BY["oversized"]], has[MADE_BY["pruned"]]
    return pd.concat(pruning_methods.compare(_problem(has, seed), seed, depth, keep, oversized, tuning))


def beyond_rows(has: Parameters, seed: int) -> pd.DataFrame:
    """The `extensions` of the paper's table for one seed, in double precision."""
    with jax.enable_x64(True):
        return pd.concat(extensions.run(_problem(has, seed), seed))


def seed_rows(has: Parameters, seed: int) -> pd.DataFrame:
    """The R^2 table for one seed, by notebooks 01 to 06."""
    with _results(has, seed, dict.fromkeys(MADE_BY.values())) as folder:
        return collect_r2(folder, seed)[["budget", "stage", "quantity", "seed", "r2"]]


def _problem(has: Parameters, seed: int) -> Problem:
    with _results(has, seed, [MADE_BY["problem"]]) as folder:
        return load_problem(folder, seed=seed)


@contextmanager
def _results(has: Parameters, seed: int, stems: Collection[str]) -> Iterator[Path]:
    """A temporary folder with what these notebooks write."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        for stem in stems:
            run_notebook(NOTEBOOKS / f"{stem}.ipynb", Path(folder), {**has[stem], "seed": seed})
        yield Path(folder)
