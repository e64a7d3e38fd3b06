"""Extensions of the paper's table: second derivatives, a second-order optimiser and better samples, by seed.

An experiment trains one network from a problem of notebook 01 and a seed; its rows are the errors on the test set.
Oversized networks are trained on payoffs and pathwise deltas; the closed form is used by `reference_targets` alone.
"""

import dataclasses
import io
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import redirect_stdout
from functools import lru_cache, partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx

from sobolev_utils.enclosures.intervals import box
from sobolev_utils.learning.hessian_products import random_directions, with_hvp
from sobolev_utils.learning.losses import SumOfSquares, second_order, sobolev
from sobolev_utils.learning.metrics import r2, rmse
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.learning.training import fit, shuffled
from sobolev_utils.models.least_squares_monte_carlo import LeastSquaresMonteCarlo
from sobolev_utils.models.samples import Samples
from sobolev_utils.paper.case_study import Problem
from sobolev_utils.paper.stages import QUANTITIES
from sobolev_utils.pruning.nodes import mean_nodes, most_significant, prune
from sobolev_utils.pruning.significance import analyse

__all__ = ["COLUMNS", "EXPERIMENTS", "Laboratory", "errors", "run", "single"]

COLUMNS = ["experiment", "quantity", "seed", "one_minus_r2", "rmse", "parameters"]
PATHS = (2048, 8192, 32768, 65536)
UNIT = 8192  # paths of a sample of size 1
STEPS = 1600  # of 512 labels, for an oversized network on a sample of size 1
DECAY = 3.0  # of its weights, on a sample of size 1
SPOTS = 1024  # at which Levenberg-Marquardt fits


class Laboratory:
    """A problem and a seed, with the networks that several experiments start from."""

    def __init__(self, problem: Problem, seed: int):
        self.problem, self.seed = problem, seed
        self.oversized = lru_cache(self.oversized)

    def key(self, n: int) -> jax.Array:
        return jax.random.fold_in(jax.random.key(self.seed), n)

    def sample(self, n_paths: int, reference: LeastSquaresMonteCarlo, control: bool = False) -> Samples:
        """As many labels as `n_paths` paths give, half as many antithetic ones, in single precision.

        A `control` is cross-fitted: the labels are two halves, drawn independently of each other (of Sobol points as
        two nets with shifts of their own), and the control of each is a 2 x 128 trained on the other. A control is
        thus independent of the increments that it corrects, and the labels stay unbiased.
        """
        n_labels = n_paths // 2 if reference.antithetic else n_paths
        if not control:
            return single(reference.labelled(*reference.paths(self.key(70), n_labels)))
        halves = [reference.paths(key, n_labels // 2) for key in jax.random.split(self.key(70))]
        fits = [self.train(2, single(reference.labelled(*half)), n_paths / UNIT / 2) for half in halves]
        parts = [
            single(dataclasses.replace(reference, control=other).labelled(*half))
            for half, other in zip(halves, reversed(fits), strict=True)
        ]
        return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)

    def train(self, depth: int, samples: Samples, size: float) -> Surrogate:
        """depth x 128, on values and pathwise deltas, in size x STEPS with a decay of DECAY / sqrt(size)."""
        model = Surrogate(samples.x.shape[1], [128] * depth, rngs=nnx.Rngs(self.seed)).normalise(samples.x, samples.y)
        epochs = max(round(STEPS * size * 512 / len(samples.x)), 1)
        settings = {"epochs": epochs, "learning_rate": 3e-3, "weight_decay": DECAY / size**0.5}
        return fit(model, shuffled(samples), sobolev(), key=self.key(71), **settings)[0]

    def oversized(self, depth: int) -> Surrogate:
        """depth x 128 on the sample of notebook 01."""
        return self.train(depth, self.problem.samples, self.problem.samples.y.size / UNIT)

    def prune(self, model: Surrogate, x: jax.Array, keep: int) -> Surrogate:
        """The most significant `keep` nodes of each layer; the others are held at their means over x."""
        inputs = box(*(np.asarray(bound, np.float32) for bound in self.problem.basket.box))
        return prune(model, most_significant(analyse(model, inputs).hidden, keep), mean_nodes(model, x))

    def last_digits(self, model: Surrogate, targets: Callable[[jax.Array], Samples], warm_up: int, iterations: int):
        """Sobolev fine-tuning on exact targets: some epochs of Muon, then Levenberg-Marquardt."""
        draw = shuffled(single(targets(self.problem.samples.x)))
        model = fit(model, draw, sobolev(), key=self.key(73), epochs=warm_up, learning_rate=1e-2, optimiser="muon")[0]
        exact = targets(self.problem.reference.paths(self.key(72), SPOTS)[0])
        settings = {"epochs": iterations, "optimiser": "levenberg_marquardt"}
        return fit(model, lambda key: exact, sobolev(), key=self.key(74), **settings)[0]

    def reference_targets(self, x: jax.Array) -> Samples:
        basket = self.problem.basket
        return Samples(x, basket.value(x), basket.delta(x))


def single(samples: Samples) -> Samples:
    """The samples in single precision."""
    return jax.tree.map(lambda a: a.astype(jnp.float32), samples)


def errors(model: Surrogate, problem: Problem) -> list[tuple[float, float]]:
    """1 - R^2 and RMSE of values, deltas and gammas on the test spots, all in the precision that JAX is set to."""
    x, basket = jnp.asarray(problem.test.x, float), problem.basket
    pairs = [(basket.value(x), model(x)), (basket.delta(x), model.delta(x)), (basket.gamma(x), model.gamma(x))]
    return [(1 - r2(*pair), rmse(*pair)) for pair in pairs]


def lm(lab: Laboratory, depth: int, keep: int, warm_up: int, iterations: int) -> Surrogate:
    """Pruned, then fine-tuned on the reference to the last digits."""
    start = lab.prune(lab.oversized(depth), lab.problem.samples.x, keep)
    return lab.last_digits(start, lab.reference_targets, warm_up, iterations)


def pathwise(lab: Laboratory, n_paths: int) -> Surrogate:
    """2 x 128 on controlled labels, pruned to 40 parameters, fine-tuned on the values and deltas of the 2 x 128.

    A label for each path, not antithetic: Sobol points gain more from twice as many spots.
    """
    samples = lab.sample(n_paths, dataclasses.replace(lab.problem.reference, antithetic=False), control=True)
    teacher = lab.train(2, samples, n_paths / UNIT)

    def targets(x):
        return Samples(x, *teacher.value_and_delta(x))

    return lab.last_digits(lab.prune(teacher, samples.x, 3), targets, warm_up=100, iterations=400)


def by_order(lab: Laboratory, loss: SumOfSquares) -> Surrogate:
    """Pruned to 6 x 8, then 3,200 steps on the reference, with fresh random directions in each epoch."""
    samples, basket = single(lab.reference_targets(lab.problem.samples.x)), lab.problem.basket
    order = shuffled(samples)

    def draw(key: jax.Array) -> Samples:
        one, two = jax.random.split(key)
        drawn = order(one)
        return with_hvp(drawn, basket.value, random_directions(two, *drawn.x[:, None].shape))

    settings = {"epochs": 200, "learning_rate": 1e-2, "optimiser": "muon"}
    start = lab.prune(lab.oversized(6), samples.x, 8)
    return fit(start, draw, loss, key=lab.key(75), **settings)[0]


def on_labels(lab: Laboratory, ways: Collection[str]) -> Surrogate:
    """2 x 128 on labels drawn in some `ways`, from as many paths as notebook 01 has labels and in equally many steps,
    not counting those of a control.
    """
    points = "sobol" if "sobol" in ways else "pseudo_random"
    reference = dataclasses.replace(lab.problem.reference, points=points, antithetic="antithetic" in ways)
    n_paths = lab.problem.samples.y.size
    return lab.train(2, lab.sample(n_paths, reference, "control" in ways), n_paths / UNIT)


EXPERIMENTS: dict[str, Callable[[Laboratory], Surrogate]] = {
    "lm_40": partial(lm, depth=2, keep=3, warm_up=100, iterations=1500),
    "lm_433": partial(lm, depth=6, keep=8, warm_up=200, iterations=160),
    **{f"pathwise_{n}": partial(pathwise, n_paths=n) for n in PATHS},
    "first_order": partial(by_order, loss=sobolev()),
    "second_order": partial(by_order, loss=second_order()),
    **{
        "_".join(["labels", *(ways or ["plain"])]): partial(on_labels, ways=ways)
        for n in range(4)
        for ways in combinations(("sobol", "antithetic", "control"), n)
    },
}


def run(problem: Problem, seed: int) -> Iterator[pd.DataFrame]:
    """For each experiment its rows of the table."""
    lab = Laboratory(problem, seed)
    for name, experiment in EXPERIMENTS.items():
        start = time.monotonic()
        with redirect_stdout(io.StringIO()):  # no progress bars
            model = experiment(lab)
        rows = [
            (name, quantity, seed, *both, model.n_parameters)
            for quantity, both in zip(QUANTITIES, errors(model, problem), strict=True)
        ]
        shown = " / ".join(f"{row[3]:.1e}" for row in rows)
        print(f"seed {seed}, {name:<18} 1 - R^2 = {shown}  ({time.monotonic() - start:.0f} s)", flush=True)
        yield pd.DataFrame(rows, columns=COLUMNS)
