"""Ways to prune compared: the same oversized network, the same total training."""

import io
import time
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from functools import lru_cache

import jax
import numpy as np
import pandas as pd
from flax import nnx

from sobolev_utils.enclosures.intervals import box
from sobolev_utils.learning.losses import plain
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.learning.training import fit
from sobolev_utils.paper.case_study import BUDGETS, Problem
from sobolev_utils.paper.stages import QUANTITIES, evaluate
from sobolev_utils.pruning.attained import inside
from sobolev_utils.pruning.baselines import magnitude, random_scores
from sobolev_utils.pruning.nodes import Criterion, falling, mean_nodes, prune_in_steps
from sobolev_utils.pruning.significance import analyse
from sobolev_utils.pruning.subdivision import analyse_subdivided

__all__ = ["COLUMNS", "METHODS", "SIZES", "compare", "criteria"]

CRITERIA = ("iasa_plain", "iasa_tight", "sampled", "magnitude", "random")
ITERATIVE = ("iasa_plain", "iasa_tight", "random")  # random too, to tell what the steps do from what the scores do
METHODS = (*CRITERIA, *(f"{name}_iterative" for name in ITERATIVE), "scratch")
SIZES = ((6, 8), (2, 3))  # hidden layers, and nodes that stay in each: 433 and 40 parameters for 7 inputs
COLUMNS = ["method", "parameters", "seed", "stage", "quantity", "r2"]
STEPS = 4  # prunings of an iterative method
BRIEF = 40  # epochs of fine-tuning after each of them but the last, taken from those of the whole
BOXES = 2**12  # sub-boxes of a tight analysis


def criteria(problem: Problem, key: jax.Array) -> dict[str, Criterion]:
    """Criteria of pruning on the box of the test set, by name.

    iasa_plain: significance by intervals, operation by operation, as in notebook 03; iasa_tight: by the union over
    BOXES sub-boxes; sampled: of the ranges that `inside` finds; magnitude and random: other scores. A removed node
    is held at the midpoint of its enclosure for iasa_tight, else at its mean over the training spots.
    """
    inputs = box(*(np.asarray(bound, np.float32) for bound in problem.basket.box))

    def tight(model):
        analysis = analyse_subdivided(model, inputs, inside(model, inputs), boxes=BOXES)
        return analysis.hidden, [value.midpoint for value in analysis.values[1:-1]]

    def with_means(score):
        return lambda model: (score(model), mean_nodes(model, problem.samples.x))

    by_name = {
        "iasa_plain": with_means(lambda model: analyse(model, inputs, method="operations").hidden),
        "iasa_tight": tight,
        "sampled": with_means(lambda model: inside(model, inputs).hidden),
        "magnitude": with_means(magnitude),
        "random": with_means(lambda model: random_scores(model, key)),
    }
    # one shot and the first of several steps are of the same model: one analysis serves both
    return {name: lru_cache(maxsize=1)(criterion) for name, criterion in by_name.items()}


def compare(
    problem: Problem, seed: int, depth: int, keep: int, big: Mapping[str, object], small: Mapping[str, object]
) -> Iterator[pd.DataFrame]:
    """For each method its rows of the table: R^2 before and after the (last) fine-tuning.

    big, small: the parameters of notebooks 02 and 03, for the oversized network and for fine-tuning. All methods
    start from one oversized network of `depth` hidden layers, keep `keep` nodes in each, and get the epochs of
    notebook 03 in total, brief fine-tunings included. The small network from scratch gets these and the epochs of the
    oversized network, in one run of the optimiser and the settings of fine-tuning.
    """
    first_key, key = (jax.random.fold_in(jax.random.key(seed), n) for n in (2, 3))

    def fresh(width):
        model = Surrogate(problem.basket.n_assets, [width] * depth, activation=big["activation"], rngs=nnx.Rngs(seed))
        return model.normalise(problem.samples.x, problem.samples.y)

    def train(model, parameters, key, epochs):
        names = {"batch", "learning_rate", "weight_decay", "optimiser"} & parameters.keys()
        chosen = {name: parameters[name] for name in names}
        return fit(model, problem.source(BUDGETS[0]), plain, key=key, epochs=epochs, **chosen)[0]

    def tune(model, step):
        return train(model, small, jax.random.fold_in(key, step), BRIEF)

    with redirect_stdout(io.StringIO()):  # no progress bars, here and below
        oversized = train(fresh(big["width"]), big, first_key, big["epochs"])
    by_name = criteria(problem, jax.random.fold_in(key, 0))
    for method in METHODS:
        start, models = time.monotonic(), {}
        with redirect_stdout(io.StringIO()):
            if method == "scratch":
                models["pruned"] = train(fresh(keep), small, key, big["epochs"] + small["epochs"])
            else:
                name, iterative, _ = method.partition("_iterative")
                counts = falling(big["width"], keep, STEPS) if iterative else [keep]
                models["before"] = prune_in_steps(oversized, by_name[name], counts, tune)
                models["pruned"] = train(models["before"], small, key, small["epochs"] - BRIEF * (len(counts) - 1))
        rows = [
            (method, model.n_parameters, seed, stage, quantity, score)
            for stage, model in models.items()
            for quantity, score in zip(QUANTITIES, evaluate(model, problem.test), strict=True)
        ]
        errors = " / ".join(f"{1 - row[-1]:.1e}" for row in rows[-len(QUANTITIES) :])
        print(f"seed {seed}, {rows[0][1]} parameters, {method:<20} 1 - R^2 = {errors}  "
              f"({time.monotonic() - start:.0f} s)", flush=True)  # fmt: skip
        yield pd.DataFrame(rows, columns=COLUMNS)
