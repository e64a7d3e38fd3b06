"""Ways to prune compared: the same oversized network, the same total training."""

import io
import time
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
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
from sobolev_utils.pruning.nodes import Criterion, falling, magnitude, mean_nodes, prune_in_steps, random_scores
from sobolev_utils.pruning.significance import analyse
from sobolev_utils.pruning.subdivision import analyse_subdivided

__all__ = ["COLUMNS", "METHODS", "SIZES", "Settings", "compare", "criteria"]

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


def compare(problem: Problem, seed: int, depth: int, keep: int, settings: Settings) -> Iterator[pd.DataFrame]:
    """For each method its rows of the table: R^2 before and after the (last) fine-tuning.

    All methods start from one oversized network of `depth` hidden layers, keep `keep` nodes in each, and get the
    epochs of notebook 03 in total, brief fine-tunings included. The small network from scratch gets these and the
    epochs of the oversized network, in one run of the optimiser and the settings of fine-tuning.
    """
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
