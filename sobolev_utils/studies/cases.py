"""Networks to prune, with all that a comparison needs of them: their box, their samples, and how good they are.

A case is made from nothing, for a seed: the notebooks' problem and settings, with another basket, another number of
layers or the published recipe; and Heston's model, by the cells of the notebook that defines it.
"""

import io
import runpy
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from sobolev_utils.enclosures.intervals import Interval, box
from sobolev_utils.learning.losses import plain
from sobolev_utils.learning.metrics import r2
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.learning.training import Draw, fit
from sobolev_utils.models.samples import Samples
from sobolev_utils.paper.artifacts import MADE_BY
from sobolev_utils.paper.case_study import RECIPE, Problem, load_problem
from sobolev_utils.paper.execution import run_notebook
from sobolev_utils.paper.fingerprints import cells
from sobolev_utils.paper.reproduce import NOTEBOOKS
from sobolev_utils.paper.stages import evaluate

__all__ = ["NETWORKS", "Case", "Parameters", "problem_of", "results_of"]

HELD_OUT = 2**13  # new labels, by which a rate of training is chosen
N_NETS = 16  # independent estimates of Heston's truth, a quarter of the notebook's

# Of notebooks 01 to 06, by stem.
Parameters = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, eq=False)
class Case:
    """A network to prune: its box, the samples of an epoch, others held out, and R^2 of what it is to know.

    epochs: how many it was trained for, in samples as `draw` gives them; training: its rate and decay; score: R^2
    (3,) of values, derivatives and second derivatives of a network.
    """

    network: Surrogate
    inputs: Interval
    draw: Draw
    held_out: Samples
    epochs: int
    training: tuple[float, float]
    score: Callable[[Surrogate], np.ndarray]
    key: jax.Array

    @cached_property
    def samples(self) -> Samples:
        return self.draw(jax.random.fold_in(self.key, 0))

    def fresh(self, width: int) -> Surrogate:
        """An untrained network of as many layers and the same normalisation."""
        sizes, by_input = [width] * len(self.network.widths), self.network.x_std[...].size > 1
        model = Surrogate(self.network.n_inputs, sizes, activation=self.network.activation, rngs=nnx.Rngs(self.key))
        return model.normalise(self.samples.x, self.samples.y, by_input=by_input)


def basket(has: Parameters, seed: int, budget: str = "paths_8192", depth: int | None = None, **given: object) -> Case:
    """A network of notebook 02, for a basket with the parameters of notebook 01 or those `given`."""
    problem, own = problem_of(has, seed, **given), has[MADE_BY["oversized"]]
    names = ("epochs", "batch", "learning_rate", "weight_decay")
    settings = {name: own[name] for name in names}
    if budget == "paper_recipe":
        settings = {**RECIPE["plain"], "batch": own["batch"]}
    sample, sizes = problem.fixed_sample(budget), [own["width"]] * (depth or own["depth"])
    model = Surrogate(problem.basket.n_assets, sizes, activation=own["activation"], rngs=nnx.Rngs(seed))
    key, draw = jax.random.fold_in(jax.random.key(seed), 2), problem.source(budget)
    network, _ = fit(model.normalise(sample.x, sample.y), draw, plain, key=key, **settings)
    points = {"points": "pseudo_random"} if budget == "paper_recipe" else {}
    held_out = replace(problem.reference, **points).sample(jax.random.fold_in(key, 1), HELD_OUT)
    inputs = box(*(np.asarray(bound, np.float32) for bound in problem.basket.box))
    score = partial(evaluate, test=problem.test)
    training = settings["learning_rate"], settings["weight_decay"]
    return Case(network, inputs, draw, held_out, settings["epochs"], training, score, key)


def heston(has: Parameters, seed: int) -> Case:
    """The oversized network of the notebook of one's own model, by its cells up to the definition of its scores.

    Derivatives are counted together, each input in units of its deviation.
    """
    program = []
    for kind, source, tags in cells(NOTEBOOKS / "15_your_own_model.ipynb"):
        if kind == "code":
            program.append(source)
        if "parameters" in tags:
            program.append(f"seed, n_nets = {seed}, {N_NETS}")
        if "def scores(" in source:
            break
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "heston.py")
        script.write_text("\n\n".join(program), encoding="utf-8")
        names = runpy.run_path(str(script), run_name="heston")
    network, exact, x = (names[name] for name in ("oversized", "exact", "x_test"))
    scale = np.asarray(network.x_std[...], float)

    def score(model: Surrogate) -> np.ndarray:
        found = names["predicted"](model, x)
        deltas = (each[:, 1:-1] * scale for each in (exact, found))
        return np.array([r2(exact[:, 0], found[:, 0]), r2(*deltas), r2(exact[:, -1], found[:, -1])])

    key = jax.random.fold_in(jax.random.key(seed), 9)
    held_out = names["heston"].sample(jax.random.fold_in(key, 1), HELD_OUT)
    training = names["learning_rate"], names["weight_decay"]
    return Case(network, names["inputs"], names["draw"], held_out, names["epochs"], training, score, key)


# By the name that the table has for it.
NETWORKS: dict[str, Callable[[Parameters, int], Case]] = {
    "decayed": basket,
    "two_layers": partial(basket, depth=2),
    "paper_recipe": partial(basket, budget="paper_recipe"),
    "12_assets": partial(basket, n_assets=12, basket_seed=5),
    "heston": heston,
}


def problem_of(has: Parameters, seed: int, **given: object) -> Problem:
    """The problem of notebook 01 for a seed, with its parameters or those `given`."""
    stem = MADE_BY["problem"]
    with results_of({**has, stem: {**has[stem], **given}}, seed, [stem]) as folder:
        return load_problem(folder, seed=seed)


@contextmanager
def results_of(has: Parameters, seed: int, stems: Collection[str]) -> Iterator[Path]:
    """A temporary folder with what these notebooks write."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        for stem in stems:
            run_notebook(NOTEBOOKS / f"{stem}.ipynb", Path(folder), {**has[stem], "seed": seed})
        yield Path(folder)
