"""The tasks of the studies: each makes the rows of one seed, or of one network under one seed, from nothing."""

import io
from contextlib import redirect_stdout

import jax
import pandas as pd

from sobolev_utils.paper.artifacts import MADE_BY
from sobolev_utils.paper.stages import collect_r2
from sobolev_utils.studies import extensions, pruning_methods
from sobolev_utils.studies.cases import NETWORKS, Parameters, problem_of, results_of

__all__ = ["beyond_rows", "pruning_rows", "seed_rows"]


def pruning_rows(has: Parameters, seed: int, network: str) -> pd.DataFrame:
    """The ways to prune compared, for one network and one seed."""
    with redirect_stdout(io.StringIO()):  # no progress bars
        case = NETWORKS[network](has, seed)
    rows = pruning_methods.compare(case)
    rows.insert(0, "network", network)
    rows.insert(4, "seed", seed)
    return rows


def beyond_rows(has: Parameters, seed: int) -> pd.DataFrame:
    """The `extensions` of the paper's table for one seed, in double precision."""
    with jax.enable_x64(True):
        return pd.concat(extensions.run(problem_of(has, seed), seed))


def seed_rows(has: Parameters, seed: int) -> pd.DataFrame:
    """The R^2 table for one seed, by notebooks 01 to 06."""
    with results_of(has, seed, dict.fromkeys(MADE_BY.values())) as folder:
        return collect_r2(folder, seed)[["budget", "stage", "quantity", "seed", "r2"]]
