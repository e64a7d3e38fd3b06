"""Ways to prune compared: the same oversized networks, the same total training, one seed after the other.

python -m sobolev_utils.study [--seeds N] [--results FOLDER] [--resume]

Problem and settings are those of notebooks 01 to 03, read from their parameters cells, on the fixed sample of paths.
"""

import argparse
import io
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from flax import nnx

from sobolev_utils.artifacts import CHECKOUT, MADE_BY, ArtifactError, results_folder, save_table
from sobolev_utils.execution import ReproductionError, read_parameters, run_notebook
from sobolev_utils.intervals import box
from sobolev_utils.losses import plain
from sobolev_utils.network import Surrogate
from sobolev_utils.problem import BUDGETS, Problem, load_problem
from sobolev_utils.pruning import Criterion, falling, magnitude, mean_nodes, prune_in_steps, random_scores
from sobolev_utils.significance import analyse, inside
from sobolev_utils.stages import QUANTITIES, evaluate
from sobolev_utils.subdivision import analyse_subdivided
from sobolev_utils.training import fit

__all__ = ["METHODS", "Settings", "compare", "criteria", "main", "run_study"]

CRITERIA = ("iasa_plain", "iasa_tight", "sampled", "magnitude", "random")
ITERATIVE = ("iasa_plain", "iasa_tight", "random")  # random too, to tell what the steps do from what the scores do
METHODS = (*CRITERIA, *(f"{name}_iterative" for name in ITERATIVE), "scratch")
SIZES = ((6, 8), (2, 3))  # hidden layers, and nodes that stay in each: 433 and 40 parameters for 7 inputs
COLUMNS = ["method", "parameters", "seed", "stage", "quantity", "r2"]


@dataclass(frozen=True)
class Settings:
    """Of the oversized network and of fine-tuning the parameters of notebooks 02 and 03; of the scheme its own.

    steps: prunings of an iterative method; brief: epochs of fine-tuning after each of them but the last, taken from
    those of the whole; boxes: sub-boxes of a tight analysis.
    """

    oversized: Mapping[str, object]
    tuning: Mapping[str, object]
    steps: int = 4
    brief: int = 40
    boxes: int = 2**12


def criteria(problem: Problem, key: jax.Array, boxes: int) -> dict[str, Criterion]:
    """The ways to judge nodes, by name, for pruning on the box of the test set.

    iasa_plain: significance S by intervals, operation by operation, as in notebook 03; iasa_tight: by the union over
    `boxes` sub-boxes; sampled: from within, by samples and local search; magnitude and random: no S. A removed node
    is held at the midpoint of its enclosure where that is tight, else at its mean over the training spots.
    """
    inputs = box(*(np.asarray(bound, np.float32) for bound in problem.basket.box))

    def tight(model):
        analysis = analyse_subdivided(model, inputs, inside(model, inputs), boxes=boxes)
        return analysis.hidden, [value.midpoint for value in analysis.values[1:-1]]

    def with_means(score):
        return lambda model: (score(model), mean_nodes(model, problem.samples.x))

    judged = {
        "iasa_plain": with_means(lambda model: analyse(model, inputs, method="operations").hidden),
        "iasa_tight": tight,
        "sampled": with_means(lambda model: inside(model, inputs).hidden),
        "magnitude": with_means(magnitude),
        "random": with_means(lambda model: random_scores(model, key)),
    }
    # The first step of an iterative method is the analysis of the one shot: the same model, judged once.
    return {name: lru_cache(maxsize=1)(judge) for name, judge in judged.items()}


def compare(
    problem: Problem, seed: int, depth: int, keep: int, settings: Settings, skip: Sequence[str] = ()
) -> Iterator[pd.DataFrame]:
    """For each method but those to `skip`, its rows of the table: R^2 before and after the (last) fine-tuning.

    All methods start from one oversized network of `depth` hidden layers, keep `keep` nodes in each, and get the
    epochs of notebook 03 in total, brief fine-tunings included. The small network from scratch gets these and the
    epochs of the oversized network, in one run of the optimiser and the settings of fine-tuning.
    """
    if set(METHODS) <= set(skip):
        return
    big, small = settings.oversized, settings.tuning
    key, brief = jax.random.fold_in(jax.random.key(seed), 3), settings.brief

    def fresh(width):
        model = Surrogate(problem.basket.n_assets, [width] * depth, activation=big["activation"], rngs=nnx.Rngs(seed))
        return model.normalise(problem.samples.x, problem.samples.y)

    def train(model, parameters, key, epochs):
        names = {"batch", "learning_rate", "weight_decay", "optimiser"} & parameters.keys()
        chosen = {name: parameters[name] for name in names}
        return fit(model, problem.source(BUDGETS[0]), plain, key=key, epochs=epochs, **chosen)[0]

    def tune(model, step):
        return train(model, small, jax.random.fold_in(key, step), brief)

    with redirect_stdout(io.StringIO()):  # no progress bars, here and below
        oversized = train(fresh(big["width"]), big, jax.random.fold_in(jax.random.key(seed), 2), big["epochs"])
    judged = criteria(problem, jax.random.fold_in(key, 0), settings.boxes)
    for method in METHODS:
        if method in skip:
            continue
        start, models = time.monotonic(), {}
        with redirect_stdout(io.StringIO()):
            if method == "scratch":
                models["pruned"] = train(fresh(keep), small, key, big["epochs"] + small["epochs"])
            else:
                name, iterative, _ = method.partition("_iterative")
                counts = falling(big["width"], keep, settings.steps) if iterative else [keep]
                models["before"] = prune_in_steps(oversized, judged[name], counts, tune)
                models["pruned"] = train(models["before"], small, key, small["epochs"] - brief * (len(counts) - 1))
        rows = [
            (method, model.n_parameters, seed, stage, quantity, score)
            for stage, model in models.items()
            for quantity, score in zip(QUANTITIES, evaluate(model, problem.test), strict=True)
        ]
        errors = " / ".join(f"{1 - row[-1]:.1e}" for row in rows[-len(QUANTITIES) :])
        print(f"seed {seed}, {rows[0][1]} parameters, {method:<20} 1 - R^2 = {errors}  "
              f"({time.monotonic() - start:.0f} s)", flush=True)  # fmt: skip
        yield pd.DataFrame(rows, columns=COLUMNS)


def run_study(
    results: Path,
    seeds: int,
    *,
    resume: bool = False,
    parameters: Mapping[str, object] | None = None,
    sizes: Sequence[tuple[int, int]] = SIZES,
    **scheme: int,
) -> Path:
    """Compare the methods under `seeds` seeds, from that of notebook 01 on, then write `tables/pruning.csv`.

    Rows are kept as they come in `<results>/data/study`, which is removed in the end; with `resume` those found there
    are not made again. parameters: for each notebook that has them; scheme: further `Settings`. Raises
    `ArtifactError` for rows of an interrupted run that are not to be resumed, `ReproductionError` for a parameter
    that no notebook has and as `run_notebook` does.
    """
    work, given = results / "data" / "study", dict(parameters or {})
    kept = work / "tables" / "pruning.csv"
    if kept.exists() and not resume:
        raise ArtifactError(f"{kept} holds rows of an interrupted run: add --resume, or remove it")
    paths = [CHECKOUT / "notebooks" / f"{MADE_BY[name]}.ipynb" for name in ("problem", "oversized", "pruned")]
    defaults = [read_parameters(path) for path in paths]
    if unknown := set(given).difference(*defaults):
        raise ReproductionError(f"none of notebooks 01 to 03 has a parameter {', '.join(sorted(unknown))}")
    first, *stages = ({name: given.get(name, default) for name, default in has.items()} for has in defaults)
    settings = Settings(*stages, **scheme)
    table = pd.read_csv(kept) if kept.exists() else pd.DataFrame(columns=COLUMNS)
    for seed in range(first["seed"], first["seed"] + seeds):
        run_notebook(paths[0], work, {**first, "seed": seed, "results": ""})
        problem = load_problem(work, seed=seed)
        for depth, keep in sizes:
            size = Surrogate(problem.basket.n_assets, [keep] * depth, rngs=nnx.Rngs(0)).n_parameters
            done = table[(table.seed == seed) & (table.parameters == size)].method.unique()
            for rows in compare(problem, seed, depth, keep, settings, skip=done):
                table = pd.concat([table, rows]) if len(table) else rows
                save_table(work, "pruning", table, formats=("csv",))
    written = save_table(results, "pruning", table, formats=("csv",))[0]
    shutil.rmtree(work)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return 0, or 1 (130 if interrupted) after one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m sobolev_utils.study", description="Compare ways to prune.")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="how many (default: 10)")
    parser.add_argument("--results", default="", metavar="FOLDER", help="where to write (default: results/)")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds must be positive, got {options.seeds}")
    try:
        written = run_study(results_folder(options.results), options.seeds, resume=options.resume)
    except (ReproductionError, ArtifactError, OSError) as error:
        print(f"study: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("study: interrupted; --resume goes on", file=sys.stderr)
        return 130
    print(f"the table is {written}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
