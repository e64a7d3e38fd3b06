"""Past the paper's table: what second derivatives, a second-order optimiser and better samples give, seed by seed.

Each experiment starts from a problem of notebook 01 and a seed, and leaves the errors of one small network on the
test set. The oversized networks are trained on payoffs and pathwise deltas; no experiment but those on `reference`
targets uses the closed form.
"""

import dataclasses
import io
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import redirect_stdout
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx

from sobolev_utils.directions import random_directions, with_hvp
from sobolev_utils.intervals import box
from sobolev_utils.losses import SumOfSquares, second_order, sobolev
from sobolev_utils.metrics import r2, rmse
from sobolev_utils.network import Surrogate
from sobolev_utils.problem import Problem
from sobolev_utils.pruning import mean_nodes, most_significant, prune
from sobolev_utils.significance import analyse
from sobolev_utils.simulation import LeastSquaresMonteCarlo, Samples
from sobolev_utils.stages import QUANTITIES
from sobolev_utils.training import fit, shuffled

__all__ = ["COLUMNS", "EXPERIMENTS", "Laboratory", "errors", "run"]

COLUMNS = ["experiment", "quantity", "seed", "one_minus_r2", "rmse", "parameters"]
PATHS = (2048, 8192, 32768, 65536)
STEPS = 1600  # of 512 samples, for an oversized network and 8,192 paths; with more paths as their square root
SPOTS = 1024  # at which Levenberg-Marquardt fits


class Laboratory:
    """A problem and a seed, with the networks that several experiments start from."""

    def __init__(self, problem: Problem, seed: int):
        self.problem, self.seed = problem, seed
        self.oversized = lru_cache(self.oversized)
        self.pruned = lru_cache(self.pruned)

    def key(self, n: int) -> jax.Array:
        return jax.random.fold_in(jax.random.key(self.seed), n)

    def sample(self, n_paths: int, reference: LeastSquaresMonteCarlo | None = None) -> Samples:
        """That of notebook 01, or another number of paths, in single precision."""
        if reference is None and n_paths == self.problem.samples.y.size:
            return self.problem.samples
        return single((reference or self.problem.reference).sample(self.key(70), n_paths))

    def train(self, depth: int, samples: Samples) -> Surrogate:
        """depth x 128, on values and pathwise deltas."""
        model = Surrogate(samples.x.shape[1], [128] * depth, rngs=nnx.Rngs(self.seed)).normalise(samples.x, samples.y)
        epochs = max(round(STEPS * 512 / (8192 * len(samples.x)) ** 0.5), 1)
        settings = {"epochs": epochs, "learning_rate": 3e-3, "weight_decay": 3.0}
        return fit(model, shuffled(samples), sobolev(), key=self.key(71), **settings)[0]

    def oversized(self, depth: int, n_paths: int) -> Surrogate:
        return self.train(depth, self.sample(n_paths))

    def pruned(self, depth: int, keep: int, n_paths: int) -> Surrogate:
        """The most significant `keep` nodes of each layer; the others are held at their means."""
        big, samples = self.oversized(depth, n_paths), self.sample(n_paths)
        inputs = box(*(np.asarray(bound, np.float32) for bound in self.problem.basket.box))
        kept = most_significant(analyse(big, inputs).hidden, keep)
        return prune(big, kept, mean_nodes(big, samples.x))

    def spots(self, n: int) -> jax.Array:
        """Training spots, (n, n_inputs), in the precision that JAX is set to."""
        return self.problem.reference.paths(self.key(72), n)[0]

    def last_digits(self, model: Surrogate, targets: Callable[[jax.Array], Samples], warm_up: int, iterations: int):
        """Sobolev fine-tuning on exact targets: some epochs of Muon, then Levenberg-Marquardt."""
        draw = shuffled(single(targets(self.problem.samples.x)))
        model = fit(model, draw, sobolev(), key=self.key(73), epochs=warm_up, learning_rate=1e-2, optimiser="muon")[0]
        exact = targets(self.spots(SPOTS))
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
    start = lab.pruned(depth, keep, lab.problem.samples.y.size)
    return lab.last_digits(start, lab.reference_targets, warm_up, iterations)


def pathwise(lab: Laboratory, n_paths: int) -> Surrogate:
    """No closed form: 2 x 128 on paths, pruned to 40 parameters, fine-tuned on values and deltas of the 2 x 128."""
    teacher = lab.oversized(2, n_paths)

    def targets(x):
        return Samples(x, *teacher.value_and_delta(x))

    return lab.last_digits(lab.pruned(2, 3, n_paths), targets, warm_up=100, iterations=400)


def by_order(lab: Laboratory, loss: SumOfSquares) -> Surrogate:
    """6 x 8, pruned, then 3,200 equal steps on the reference, with fresh random directions in each epoch."""
    samples, basket = single(lab.reference_targets(lab.problem.samples.x)), lab.problem.basket
    order = shuffled(samples)

    def draw(key: jax.Array) -> Samples:
        one, two = jax.random.split(key)
        drawn = order(one)
        return with_hvp(drawn, basket.value, random_directions(two, *drawn.x[:, None].shape))

    settings = {"epochs": 200, "learning_rate": 1e-2, "optimiser": "muon"}
    return fit(lab.pruned(6, 8, samples.y.size), draw, loss, key=lab.key(75), **settings)[0]


def on_labels(lab: Laboratory, points: str, antithetic: bool, control: bool) -> Surrogate:
    """2 x 128 on as many labels, drawn in another way.

    An antithetic label takes two paths. A control comes from a first fit on the same paths, so it is not quite
    unbiased.
    """
    reference = dataclasses.replace(lab.problem.reference, points=points, antithetic=antithetic)
    n_paths = lab.problem.samples.y.size
    model = lab.train(2, lab.sample(n_paths, reference))
    if control:
        model = lab.train(2, lab.sample(n_paths, dataclasses.replace(reference, control=model)))
    return model


EXPERIMENTS: dict[str, Callable[[Laboratory], Surrogate]] = {
    "lm_40": partial(lm, depth=2, keep=3, warm_up=100, iterations=3000),
    "lm_433": partial(lm, depth=6, keep=8, warm_up=200, iterations=160),
    **{f"pathwise_{n}": partial(pathwise, n_paths=n) for n in PATHS},
    "first_order": partial(by_order, loss=sobolev()),
    "second_order": partial(by_order, loss=second_order()),
    "labels_plain": partial(on_labels, points="pseudo_random", antithetic=False, control=False),
    "labels_sobol": partial(on_labels, points="sobol", antithetic=False, control=False),
    "labels_antithetic": partial(on_labels, points="pseudo_random", antithetic=True, control=False),
    "labels_control": partial(on_labels, points="pseudo_random", antithetic=False, control=True),
    "labels_all": partial(on_labels, points="sobol", antithetic=True, control=True),
}


def run(problem: Problem, seed: int, skip: Collection[str] = ()) -> Iterator[pd.DataFrame]:
    """For each experiment but those to `skip`, its rows of the table."""
    lab = Laboratory(problem, seed)
    for name, experiment in EXPERIMENTS.items():
        if name in skip:
            continue
        start = time.monotonic()
        with redirect_stdout(io.StringIO()):  # no progress bars
            model = experiment(lab)
        rows = [
            (name, quantity, seed, *both, model.n_parameters)
            for quantity, both in zip(QUANTITIES, errors(model, problem), strict=True)
        ]
        told = " / ".join(f"{row[3]:.1e}" for row in rows)
        print(f"seed {seed}, {name:<18} 1 - R^2 = {told}  ({time.monotonic() - start:.0f} s)", flush=True)
        yield pd.DataFrame(rows, columns=COLUMNS)
