"""What takes too long for a notebook: ways to prune, what lies past the paper, and the R^2 table, under many seeds.

python -m sobolev_utils.studies.run [pruning] [beyond] [seeds] [--seeds N] [-p NAME VALUE]... [--results FOLDER]
    [--scheduler ADDRESS]

A task is a seed of a study, or of one size in it. Problem and settings are those of the notebooks, read from their
parameters cells.
"""

import argparse
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from distributed import Client, KilledWorker

from sobolev_utils.paper.artifacts import MADE_BY, ArtifactError, results_folder
from sobolev_utils.paper.execution import SAFE, ReproductionError, end_in_good_order
from sobolev_utils.paper.outputs import save_study
from sobolev_utils.paper.records import alone
from sobolev_utils.paper.reproduce import as_run, parameter_value
from sobolev_utils.studies.distribute import Task, cluster, gather
from sobolev_utils.studies.pruning_methods import SIZES
from sobolev_utils.studies.tasks import Parameters, beyond_rows, notebook, pruning_rows, seed_rows

__all__ = ["STUDIES", "main", "run_study"]


def _by_size(has: Parameters, seeds: Sequence[int]) -> dict[str, Task]:
    return {f"seed_{seed}_{depth}x{keep}": partial(pruning_rows, has, seed, depth, keep)
            for seed in seeds for depth, keep in SIZES}  # fmt: skip


def _by_seed(rows: Callable, has: Parameters, seeds: Sequence[int]) -> dict[str, Task]:
    return {f"seed_{seed}": partial(rows, has, seed) for seed in seeds}


# By name: the table that it makes, and its tasks, by name, given the parameters of the notebooks and the seeds.
STUDIES = {
    "pruning": ("pruning", _by_size),
    "beyond": ("beyond", partial(_by_seed, beyond_rows)),
    "seeds": ("r2_seeds", partial(_by_seed, seed_rows)),
}


def run_study(
    results: Path, name: str, n_seeds: int, client: Client, given: Mapping[str, object] | None = None
) -> Path:
    """Do a study under `n_seeds` seeds, from that of notebook 01 on, by the workers of `client`; return its table.

    given: parameters of notebooks 01 to 05 that are not left at their defaults. An interrupted study goes on from
    `<results>/data/study/NAME`. Raises `ReproductionError` for parameters that are not admissible, and as `gather`.
    """
    table, tasks = STUDIES[name]
    given = dict(given or {})
    has = as_run([notebook(stem) for stem in MADE_BY.values()], given)
    problem = has[MADE_BY["problem"]]
    work = results / "data" / "study" / name
    seeds = range(problem["seed"], problem["seed"] + n_seeds)
    rows = gather(work, tasks(has, seeds), client, has)
    written = save_study(results, table, rows, problem, given)
    shutil.rmtree(work)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return 0, or 1 (130 if interrupted) after one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m sobolev_utils.studies.run", description="The studies under many seeds."
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"which: {', '.join(STUDIES)} (default: all)")
    add("--seeds", type=int, default=10, metavar="N", help="how many (default: 10)")
    add("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="a parameter, for every notebook that has it")  # fmt: skip
    add("--results", default="", metavar="FOLDER", help="where to write (default: results/)")
    add("--scheduler", default="", metavar="ADDRESS", help="of a Dask cluster (default: this machine's cores)")
    options = parser.parse_intermixed_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds must be positive, got {options.seeds}")
    if unknown := set(options.names) - set(STUDIES):
        parser.error(f"no study {', '.join(sorted(unknown))}; there are: {', '.join(STUDIES)}")
    try:
        results, given = results_folder(options.results), {n: parameter_value(v) for n, v in options.parameters}
        as_run([notebook(stem) for stem in MADE_BY.values()], given)
        with alone(results), cluster(options.scheduler) as client:
            for name in options.names or STUDIES:
                print(f"the table is {run_study(results, name, options.seeds, client, given)}", flush=True)
    except (ReproductionError, ArtifactError, KilledWorker, RuntimeError, OSError) as error:
        print(f"study: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"study: interrupted; {SAFE}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    end_in_good_order()
    sys.exit(main())
