"""A model that is no basket goes through the pipeline: it is Heston's model, and its surrogate keeps the bars."""

import re
from pathlib import Path

import jax
import nbformat
import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad

ROOT = Path(__file__).resolve().parents[2]
CODE = [
    cell.source
    for cell in nbformat.read(ROOT / "notebooks" / "15_your_own_model.ipynb", as_version=4).cells
    if cell.cell_type == "code"
]
STAGES = ["oversized", "pruned", "reconstructed", "Sobolev, NN targets", "Sobolev, pathwise"]
QUANTITIES = {"price", "delta", "d / d volatility", "d / d vol of vol", "d / d correlation", "gamma"}


def cell_with(text):
    (source,) = [source for source in CODE if text in source]
    return source


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(ROOT / "results" / "tables" / "own_model.csv").set_index(["stage", "quantity"])


def test_every_stage_has_every_quantity(table):
    assert list(table.index.get_level_values("stage").unique()) == STAGES
    assert all(set(table.loc[stage].index) == QUANTITIES for stage in STAGES)


def test_the_truth_resolves_the_errors(table):
    """So that no standard error makes a surrogate look better or worse than it is."""
    deviation = table.rmse / (1 - table.r2) ** 0.5
    assert (3 * table.standard_error < table.rmse).all() and (table.standard_error < 0.1 * deviation).all()


def test_the_small_surrogate_keeps_the_bars(table):
    last, first = table.loc["Sobolev, pathwise"], table.loc["oversized"]
    assert (last.parameters < 500).all() and (first.parameters > 30 * last.parameters).all()
    assert last.rmse["price"] < 2e-3 and last.rmse["delta"] < 0.015
    assert first.r2["price"] > 0.99 and first.r2["delta"] > 0.98
    assert last.r2["price"] > 0.999 and last.r2["delta"] > 0.995 and last.r2["gamma"] > 0.9


def test_derivatives_are_what_the_pruned_network_lacked(table):
    pruned, _, taught, last = (table.loc[stage].rmse for stage in STAGES[1:])
    assert (last < pruned).all()
    assert (taught < pruned)[["price", "d / d volatility"]].all() and (last < taught)[["delta", "gamma"]].all()


def test_the_reconstruction_keeps_every_quantity_with_half_the_parameters(table):
    first, pruned, kept = (table.loc[stage] for stage in STAGES[:3])
    assert (kept.rmse < 1.5 * first.rmse).all() and (kept.parameters <= pruned.parameters / 2).all()


def test_the_model_is_short_and_the_pipeline_knows_no_basket():
    model = cell_with("def terminal_spot") + "\n" + cell_with("class Heston")
    assert len([line for line in model.splitlines() if line.strip()]) < 40
    named = set(re.findall(r"\w+", "\n".join(CODE)))
    assert {"Surrogate", "Samples", "fit"} <= named
    assert not {"GaussianBasket", "LeastSquaresMonteCarlo", "load_problem", "load_stage", "basket"} & named


def fourier(spot, strike, maturity, reversion, mean, variance, vol_of_vol, correlation):
    """The call in Heston's model itself, no Euler steps, by inversion of its characteristic function.

    Formula of Lewis (2000), with the characteristic function as Albrecher et al. (2007) write it.
    """

    def characteristic(u):
        b = reversion - 1j * correlation * vol_of_vol * u
        d = np.sqrt(b**2 + vol_of_vol**2 * (1j * u + u**2))
        g, decay = (b - d) / (b + d), np.exp(-d * maturity)
        level = (b - d) * maturity - 2 * np.log((1 - g * decay) / (1 - g))
        slope = (b - d) * (1 - decay) / (1 - g * decay)
        return np.exp((reversion * mean * level + slope * variance) / vol_of_vol**2)

    def integrand(u):
        shift = np.exp(1j * u * np.log(spot / strike))
        return (shift * characteristic(u - 0.5j)).real / (u**2 + 0.25)

    return spot - np.sqrt(spot * strike) / np.pi * quad(integrand, 0, 200, limit=500)[0]


@pytest.mark.parametrize("n_steps, floor, bar", [(256, 1e-8, 1e-4), (32, 1e-4, 1e-3)])
def test_the_simulated_truth_is_hestons_price(n_steps, floor, bar):
    """To the accuracy of 2^13 pairs of paths with many steps; with those of the notebook, to their bias."""
    names = {}
    for text in ("import dataclass", "seed: int", "def conditional_price"):
        exec(cell_with(text), names)
    contract = [names[name] for name in ("strike", "maturity", "reversion", "mean_variance")]
    names |= {"n_steps": n_steps, "floor": floor}
    z = names["normal_points"](jax.random.key(0), 2**13, n_steps).T
    for spot, volatility, vol_of_vol, correlation in [(1.0, 0.2, 0.3, -0.7), (0.9, 0.35, 0.6, -0.2)]:
        others = np.array([volatility, vol_of_vol, correlation])
        found = np.mean([names["conditional_price"](spot, others, path).mean() for path in (z, -z)])
        assert abs(found - fourier(spot, *contract, volatility**2, vol_of_vol, correlation)) < bar
