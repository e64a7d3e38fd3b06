"""The case study as one notebook hands it to the others: the reference model, the fixed sample, the test set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sobolev_utils.artifacts import load, save
from sobolev_utils.basket import GaussianBasket
from sobolev_utils.payoffs import smooth_call
from sobolev_utils.simulation import LeastSquaresMonteCarlo, Samples
from sobolev_utils.training import Draw, shuffled

__all__ = ["BUDGETS", "Problem", "Truth", "load_problem", "save_problem"]

BUDGETS = ("paths_8192", "fresh_paths")


class Truth(NamedTuple):
    """Spots x (n, n_inputs) and the closed form there: value (n,), delta (n, n_inputs), gamma (n,)."""

    x: jax.Array
    value: jax.Array
    delta: jax.Array
    gamma: jax.Array


@dataclass(frozen=True)
class Problem:
    """A basket, its least-squares Monte Carlo model, the fixed training sample, and where errors are measured.

    parameters: those of the notebook that made it, by which its heirs know that they belong to it.
    """

    reference: LeastSquaresMonteCarlo
    samples: Samples
    test: Truth
    parameters: Mapping[str, object]

    @property
    def basket(self) -> GaussianBasket:
        return self.reference.basket

    def source(self, budget: str, relabel: Callable[[Samples], Samples] = lambda samples: samples) -> Draw:
        """Where an epoch of training gets its samples, and, through `relabel`, their targets.

        budget "paths_8192" is the fixed sample of 8,192 paths (or as many as there are) in a new order each epoch;
        "fresh_paths" draws as many new paths each epoch. Raises ValueError for any other budget.
        """
        if budget not in BUDGETS:
            raise ValueError(f"unknown budget {budget!r}, expected one of {BUDGETS}")
        if budget == "paths_8192":
            return shuffled(relabel(self.samples))
        n_paths = self.samples.y.size
        return lambda key: relabel(self.reference.sample(key, n_paths))


def closed_form(basket: GaussianBasket, x: jax.Array) -> Truth:
    """The test set of spots x (n, n_assets)."""
    return Truth(x, basket.value(x), basket.delta(x), basket.gamma(x))


def save_problem(
    results: Path, reference: LeastSquaresMonteCarlo, samples: Samples, x_test: jax.Array, parameters: Mapping
) -> Path:
    """Hand on the basket, the samples and the test spots; `parameters` hold the `smoothing` of the call."""
    basket = reference.basket
    contract = {"strike": basket.strike, "exposure": basket.exposure, "maturity": basket.maturity}
    arrays = {"weights": basket.weights, "factor": basket.factor, **contract, **samples._asdict(), "x_test": x_test}
    return save(results, "problem", jax.tree.map(np.asarray, arrays), parameters=parameters)


def load_problem(results: Path, **expected: object) -> Problem:
    """The problem made with the `expected` parameters. Raises `ArtifactError` as `artifacts.load` does."""
    arrays, parameters = load(results, "problem", **expected)
    contract = {name: float(arrays[name]) for name in ("strike", "exposure", "maturity")}
    basket = GaussianBasket(arrays["weights"], arrays["factor"], **contract)
    reference = LeastSquaresMonteCarlo(
        basket,
        partial(smooth_call, width=parameters["smoothing"]),
        points=parameters["points"],
        spread=parameters["spread"],
    )
    samples = Samples(*(jnp.asarray(arrays[name]) for name in Samples._fields))
    return Problem(reference, samples, closed_form(basket, jnp.asarray(arrays["x_test"])), parameters)
