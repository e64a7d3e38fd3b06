"""The case study as one notebook hands it to the others: the reference model, the fixed sample, the test set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sobolev_utils.learning.training import Draw, shuffled
from sobolev_utils.models.basket import GaussianBasket
from sobolev_utils.models.least_squares_monte_carlo import LeastSquaresMonteCarlo
from sobolev_utils.models.payoffs import smooth_call
from sobolev_utils.models.samples import Samples
from sobolev_utils.paper.artifacts import load, save

__all__ = ["BUDGETS", "RECIPE", "Problem", "Truth", "load_problem", "save_problem"]

BUDGETS = ("paths_8192", "fresh_paths", "paper_recipe")
# How the published networks were trained, by loss: Adam at a constant rate, no decay, batches of 512.
RECIPE = {
    "plain": {"epochs": 200, "learning_rate": 1e-4, "schedule": "constant", "weight_decay": 0.0, "optimiser": "adam"},
    "sobolev": {"epochs": 100, "learning_rate": 1e-4, "schedule": "constant", "optimiser": "adam"},
}
BASKET = ("weights", "factor", "strike", "exposure", "maturity")


class Truth(NamedTuple):
    """Spots x (n, n_inputs) and the closed form there: value (n,), delta (n, n_inputs), gamma (n,)."""

    x: jax.Array
    value: jax.Array
    delta: jax.Array
    gamma: jax.Array


@dataclass(frozen=True)
class Problem:
    """A basket's least-squares Monte Carlo model, the fixed training sample, and the test set.

    parameters: those of the notebook that made it, by which later notebooks know their problem; `seed` is among them.
    """

    reference: LeastSquaresMonteCarlo
    samples: Samples
    test: Truth
    parameters: Mapping[str, object]

    @property
    def basket(self) -> GaussianBasket:
        return self.reference.basket

    def fixed_sample(self, budget: str) -> Samples:
        """The sample whose means and deviations normalise the networks of a budget.

        Of "paper_recipe", the published one, as many labels as in `samples`, at pseudo-random points. Raises
        ValueError for an unknown budget.
        """
        if budget not in BUDGETS:
            raise ValueError(f"unknown budget {budget!r}, expected one of {BUDGETS}")
        if budget != "paper_recipe":
            return self.samples
        key = jax.random.fold_in(jax.random.key(self.parameters["seed"]), 1)
        return replace(self.reference, points="pseudo_random").sample(key, self.samples.y.size)

    def source(self, budget: str, relabel: Callable[[Samples], Samples] = lambda samples: samples) -> Draw:
        """The samples of an epoch of training, with the targets that `relabel` gives them.

        "fresh_paths" draws as many new labels each epoch as there are in `samples`; of any other budget it is the
        fixed sample in a new order each epoch. Raises ValueError for an unknown budget.
        """
        samples = self.fixed_sample(budget)
        if budget != "fresh_paths":
            return shuffled(relabel(samples))
        return lambda key: relabel(self.reference.sample(key, samples.y.size))


def save_problem(
    results: Path, reference: LeastSquaresMonteCarlo, samples: Samples, x_test: jax.Array, parameters: Mapping
) -> Path:
    """Hand on a reference model, a sample of it and the spots (n_test, n_assets) of the test set.

    Raises ValueError for a model that is not an antithetic, smoothed call: only that is rebuilt from its numbers.
    """
    payoff = reference.payoff
    if getattr(payoff, "func", None) is not smooth_call or not reference.antithetic:
        raise ValueError(f"expected an antithetic model with payoff partial(smooth_call, width=...), got {reference}")
    arrays = {name: getattr(reference.basket, name) for name in BASKET} | samples._asdict() | {"x_test": x_test}
    arrays |= {"points": reference.points, "spread": reference.spread, "smoothing": payoff.keywords["width"]}
    return save(results, "problem", arrays, parameters=parameters)


def load_problem(results: Path, **expected: object) -> Problem:
    """The problem made with the `expected` parameters. Raises `ArtifactError` as `artifacts.load` does."""
    arrays, parameters = load(results, "problem", **expected)
    basket = GaussianBasket(*(arrays[name] for name in BASKET))
    payoff = partial(smooth_call, width=float(arrays["smoothing"]))
    reference = LeastSquaresMonteCarlo(basket, payoff, str(arrays["points"]), spread=float(arrays["spread"]))
    samples = Samples(*(jnp.asarray(arrays[name]) for name in Samples._fields))
    x = jnp.asarray(arrays["x_test"])
    test = Truth(x, basket.value(x), basket.delta(x), basket.gamma(x))
    return Problem(reference, samples, test, parameters)
