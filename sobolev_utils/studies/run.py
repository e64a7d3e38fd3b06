"""Ways to prune, extensions of the paper's table, and the R^2 table, each under many seeds.

python -m sobolev_utils.studies.run [pruning] [beyond] [seeds] [--seeds N] [-p NAME VALUE]... [--results FOLDER]
    [--scheduler ADDRESS]

A task is a seed of a study, or of one network in it. Problem and settings are those of the notebooks, read from their
parameters cells.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from distributed import Client, KilledWorker

from sobolev_utils.paper.artifacts import MADE_BY, ArtifactError, results_folder
from sobolev_utils.paper.execution import SAFE, ReproductionError, end_in_good_order
from sobolev_utils.paper.outputs import save_study
from sobolev_utils.paper.records import alone
from sobolev_utils.paper.reproduce import NOTEBOOKS, as_run, parameter_value
from sobolev_utils.studies.cases import NETWORKS, Parameters
from sobolev_utils.studies.distribute import Task, cluster, gather
from sobolev_utils.studies.tasks import beyond_rows, pruning_rows, seed_rows

__all__ = ["STUDIES", "main", "run_study"]

# By name: the table, the function that makes the rows of a task, and what it does so for under each seed.
STUDIES = {
    "pruning": ("pruning", pruning_rows, [(network,) for network in NETWORKS]),
    "beyond": ("beyond", beyond_rows, [()]),
    "seeds": ("r2_seeds", seed_rows, [()]),
}


def tasks_of(name: str, has: Parameters, seeds: Sequence[int]) -> dict[str, Task]:
    """The tasks of a study by name, given the parameters of the notebooks."""
    _, rows, sizes = STUDIES[name]
    return {"_".join(map(str, ("seed", seed, *size))): partial(rows, has, seed, *size)
            for seed in seeds for size in sizes}  # fmt: skip


def parameters_of_notebooks(given: Mapping[str, object]) -> Parameters:
    """The parameters of notebooks 01 to 06, defaults but for those `given`. Raises `ReproductionError`."""
    return as_run([NOTEBOOKS / f"{stem}.ipynb" for stem in MADE_BY.values()], given)


def run_study(
    results: Path, name: str, n_seeds: int, client: Client, given: Mapping[str, object] | None = None
) -> Path:
    """Do a study under `n_seeds` seeds, from that of notebook 01 on, by the workers of `client`; return its table.

    given: parameters of notebooks 01 to 06 that are not left at their defaults. An interrupted study goes on from
    `<results>/data/study/NAME`. Raises `ReproductionError` for parameters that are not admissible, and as `gather`.
    """
    given = dict(given or {})
    has = parameters_of_notebooks(given)
    problem = has[MADE_BY["problem"]]
    seeds = range(problem["seed"], problem["seed"] + n_seeds)
    work = results / "data" / "study" / name
    rows = gather(work, tasks_of(name, has, seeds), client, has)
    written = save_study(results, STUDIES[name][0], rows, problem, given)
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
        parameters_of_notebooks(given)  # faults end it before any work
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
    end_in_good_order(main)
