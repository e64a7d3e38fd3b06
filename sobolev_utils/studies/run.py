"""What takes too long for a notebook, one seed after the other: ways to prune compared, and what lies past the paper.

python -m sobolev_utils.studies.run [pruning] [beyond] [--seeds N] [--results FOLDER]

Problem and settings are those of notebooks 01 to 03, read from their parameters cells, on the fixed sample.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import jax
import pandas as pd
from flax import nnx

from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.paper.artifacts import CHECKOUT, MADE_BY, ArtifactError, results_folder
from sobolev_utils.paper.case_study import Problem, load_problem
from sobolev_utils.paper.execution import SAFE, ReproductionError, end_in_good_order, read_parameters, run_notebook
from sobolev_utils.paper.files import write_bytes
from sobolev_utils.paper.fingerprints import CODE, code_in_use, versions
from sobolev_utils.paper.outputs import save_study, save_table
from sobolev_utils.paper.records import alone
from sobolev_utils.studies import past_the_table, pruning_methods
from sobolev_utils.studies.pruning_methods import SIZES, Settings

__all__ = ["STUDIES", "main", "run_beyond", "run_pruning"]

# Makes the problem of a seed, which takes a while, so only where it is needed.
MakeProblem = Callable[[], Problem]


def run_pruning(
    results: Path,
    seeds: int,
    *,
    parameters: Mapping[str, object] | None = None,
    sizes: Sequence[tuple[int, int]] = SIZES,
    **scheme: int,
) -> Path:
    """Compare the ways to prune under `seeds` seeds, from that of notebook 01 on, into `tables/pruning.csv`.

    parameters: for each notebook that has them; scheme: further `Settings`. Raises as `_collect` does.
    """
    first, *stages = _settings(parameters)
    settings = Settings(*stages, **scheme)

    def rows(problem: MakeProblem, seed: int, done: pd.DataFrame) -> Iterator[pd.DataFrame]:
        for depth, keep in sizes:
            size = Surrogate(first["n_assets"], [keep] * depth, rngs=nnx.Rngs(0)).n_parameters
            skip = done[done.parameters == size].method.unique()
            if not set(pruning_methods.METHODS) <= set(skip):
                yield from pruning_methods.compare(problem(), seed, depth, keep, settings, skip=skip)

    return _collect(results, "pruning", pruning_methods.COLUMNS, first, parameters, seeds, rows)


def run_beyond(results: Path, seeds: int, *, parameters: Mapping[str, object] | None = None) -> Path:
    """The experiments of `past_the_table` under `seeds` seeds, in double precision, into `tables/beyond.csv`."""

    def rows(problem: MakeProblem, seed: int, done: pd.DataFrame) -> Iterator[pd.DataFrame]:
        skip = set(done.experiment)
        if not set(past_the_table.EXPERIMENTS) <= skip:
            yield from past_the_table.run(problem(), seed, skip)

    first, *_ = _settings(parameters)
    with jax.enable_x64(True):
        return _collect(results, "beyond", past_the_table.COLUMNS, first, parameters, seeds, rows)


STUDIES = {"pruning": run_pruning, "beyond": run_beyond}


def _settings(parameters: Mapping[str, object] | None) -> list[dict[str, object]]:
    """The parameters of notebooks 01 to 03. Raises `ReproductionError` for one that none of them has."""
    given = dict(parameters or {})
    defaults = [read_parameters(_path(name)) for name in ("problem", "oversized", "pruned")]
    if unknown := set(given).difference(*defaults):
        raise ReproductionError(f"none of notebooks 01 to 03 has a parameter {', '.join(sorted(unknown))}")
    return [{name: given.get(name, default) for name, default in has.items()} for has in defaults]


def _path(name: str) -> Path:
    return CHECKOUT / "notebooks" / f"{MADE_BY[name]}.ipynb"


def _collect(
    results: Path,
    name: str,
    columns: Sequence[str],
    parameters: Mapping[str, object],
    given: Mapping[str, object] | None,
    seeds: int,
    rows: Callable[[MakeProblem, int, pd.DataFrame], Iterator[pd.DataFrame]],
) -> Path:
    """The rows of all seeds as `tables/NAME.csv`; `rows` makes those of a seed that are not `done`.

    They are kept as they come in `<results>/data/study/NAME`, which is removed in the end; those of an
    interrupted run, found there, are not made again. Raises `ArtifactError` where they cannot be read or were made by
    other code, versions or parameters, and as `run_notebook` does.
    """
    work = results / "data" / "study" / name
    kept = work / "tables" / f"{name}.csv"
    made_by, anew = work / "made_by.json", "remove it, and begin anew"
    if kept.exists():
        try:
            table, was = pd.read_csv(kept), json.loads(made_by.read_text())
        except (OSError, ValueError) as error:
            raise ArtifactError(f"rows of an interrupted run in {work} cannot be read ({error}): {anew}") from error
        now = CODE | versions() | parameters
        if others := [what for what in was if now.get(what) != was[what]]:
            raise ArtifactError(f"rows of an interrupted run in {work} were made with another {others[0]}: {anew}")
    else:
        table = pd.DataFrame(columns=columns)
        write_bytes(made_by, json.dumps(code_in_use() | versions() | parameters).encode())
    for seed in range(parameters["seed"], parameters["seed"] + seeds):

        @lru_cache
        def problem(seed: int = seed) -> Problem:
            run_notebook(_path("problem"), work, {**parameters, "seed": seed, "results": ""})
            return load_problem(work, seed=seed)

        for more in rows(problem, seed, table[table.seed == seed]):
            table = pd.concat([table, more]) if len(table) else more
            save_table(work, name, table, formats=("csv",))
    written = save_study(results, name, table, parameters, given or {})
    shutil.rmtree(work)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return 0, or 1 (130 if interrupted) after one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m sobolev_utils.studies.run", description="The studies under many seeds."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(STUDIES)} (default: all)")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="how many (default: 10)")
    parser.add_argument("--results", default="", metavar="FOLDER", help="where to write (default: results/)")
    options = parser.parse_intermixed_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds must be positive, got {options.seeds}")
    if unknown := set(options.names) - set(STUDIES):
        parser.error(f"no study {', '.join(sorted(unknown))}; there are: {', '.join(STUDIES)}")
    try:
        results = results_folder(options.results)
        with alone(results):
            for name in options.names or STUDIES:
                written = STUDIES[name](results, options.seeds)
                print(f"the table is {written}")
    except (ReproductionError, ArtifactError, OSError) as error:
        print(f"study: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"study: interrupted; {SAFE}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    end_in_good_order()
    sys.exit(main())
