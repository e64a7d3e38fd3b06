"""The extensions of the paper's table, on a tiny problem and few steps."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import random_basket, uniform_points
from scipy.stats import norm

from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.models.least_squares_monte_carlo import LeastSquaresMonteCarlo
from sobolev_utils.models.payoffs import smooth_call
from sobolev_utils.models.samples import Samples
from sobolev_utils.paper.case_study import Problem, Truth, save_problem
from sobolev_utils.studies import cases, extensions, tasks
from sobolev_utils.studies.extensions import COLUMNS, EXPERIMENTS, Laboratory, errors

BASKET = random_basket(2)
REFERENCE = LeastSquaresMonteCarlo(BASKET, partial(smooth_call, width=0.01))
SAMPLES = extensions.single(REFERENCE.sample(jax.random.key(0), 512))
X = jnp.asarray(uniform_points(64, 2), jnp.float32)
PROBLEM = Problem(REFERENCE, SAMPLES, Truth(X, BASKET.value(X), BASKET.delta(X), BASKET.gamma(X)), {})


@pytest.fixture
def short(monkeypatch):
    """Every fit a few steps."""
    fitted = []

    def fit(model, draw, loss, *, key, epochs, **settings):
        fitted.append(settings.get("optimiser", "adam"))
        if fitted[-1] != "levenberg_marquardt":
            settings["batch"] = 64
        return whole_fit(model, draw, loss, key=key, epochs=min(epochs, 2), **settings)

    whole_fit = extensions.fit
    monkeypatch.setattr(extensions, "fit", fit)
    monkeypatch.setattr(extensions, "SPOTS", 64)
    return fitted


def test_errors_are_zero_for_the_truth_and_in_the_units_of_the_quantities():
    class Off:
        value, delta, gamma = BASKET.value, BASKET.delta, BASKET.gamma

        def __init__(self, shift):
            self.shift = shift

        def __call__(self, x):
            return BASKET.value(x) + self.shift

    assert all(abs(a) < 1e-14 and b < 1e-14 for a, b in errors(Off(0.0), PROBLEM))
    (lost, distance), *_ = errors(Off(0.01), PROBLEM)
    np.testing.assert_allclose(distance, 0.01, rtol=1e-9)
    np.testing.assert_allclose(lost, 1e-4 / np.var(BASKET.value(jnp.asarray(X, float))), rtol=1e-6)


def test_an_experiment_to_the_last_digits_leaves_a_small_network(short):
    model = EXPERIMENTS["lm_40"](Laboratory(PROBLEM, 3))
    assert model.widths == (3, 3) and "levenberg_marquardt" in short


@pytest.mark.parametrize(("antithetic", "labels"), [(False, 1024), (True, 512)])
def test_a_sample_counts_paths_and_each_half_is_controlled_by_the_other(short, monkeypatch, antithetic, labels):
    lab = Laboratory(PROBLEM, 3)
    reference = dataclasses.replace(REFERENCE, antithetic=antithetic, points="pseudo_random")
    trained = []
    train = lab.train
    monkeypatch.setattr(lab, "train", lambda *given: trained.append((given, train(*given))) or trained[-1][1])
    monkeypatch.setattr(extensions, "STEPS", 16)
    controlled = lab.sample(1024, reference, control=True)
    drawn = [reference.paths(key, labels // 2) for key in jax.random.split(lab.key(70))]
    parts = np.split(np.arange(labels), 2)
    for rows, (x, p), (given, _), (_, other) in zip(parts, drawn, trained, reversed(trained), strict=True):
        np.testing.assert_allclose(controlled.x[rows], x, rtol=1e-6)
        np.testing.assert_allclose(given[1].x, x, rtol=1e-6)
        assert given[2] * extensions.UNIT == 512
        own = dataclasses.replace(reference, control=other).labelled(x, p)
        np.testing.assert_allclose(controlled.y[rows], own.y, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(controlled.dydx[rows], own.dydx, rtol=1e-4, atol=1e-5)


def test_the_halves_of_a_controlled_sample_are_nets_with_shifts_of_their_own(monkeypatch):
    """Labels are unbiased where each half is uniform given the other, which trained the network that corrects it.

    Over seeds, all 16 pairs of quarters of [0, 1) occur for their first points. In one net the second half is the
    first with one constant exclusive-or'ed.
    """
    halves = []
    monkeypatch.setattr(
        LeastSquaresMonteCarlo, "labelled", lambda self, x, p: halves.append(x) or Samples(x, x[:, 0])
    )
    monkeypatch.setattr(Laboratory, "train", lambda *given: BASKET.value)
    reference = dataclasses.replace(REFERENCE, antithetic=False)
    for seed in range(100):
        Laboratory(PROBLEM, seed).sample(4, reference, control=True)
    spread = 1.5 * BASKET.volatility  # of the basket's spot, which the first coordinate drives alone
    quarters = np.floor(4 * norm.cdf((np.array(halves) @ BASKET.weights - 1) / spread)).astype(int)
    pairs = quarters.reshape(100, 4, 2)[:, :2, 0]  # two halves to train on, then the same two with their controls
    assert len(set(map(tuple, pairs))) == 16


def test_first_and_second_order_take_equal_steps_from_equal_starts(short):
    lab = Laboratory(PROBLEM, 3)
    models = [EXPERIMENTS[name](lab) for name in ("first_order", "second_order")]
    assert short == ["adam", "muon", "muon"]  # one oversized network for both
    assert [model.widths for model in models] == [(8,) * 6] * 2


def test_no_path_experiment_sees_the_closed_form(short, monkeypatch):
    def closed_form(self, x):
        raise AssertionError("the closed form was asked for")

    lab = Laboratory(PROBLEM, 3)
    for name in ("value", "delta", "gamma"):
        monkeypatch.setattr(type(BASKET), name, closed_form)
    assert EXPERIMENTS["pathwise_2048"](lab).widths == (3, 3)
    assert short[-1] == "levenberg_marquardt"
    with pytest.raises(AssertionError, match="closed form"):
        EXPERIMENTS["lm_40"](lab)


def untrained(width):
    return lambda lab: Surrogate(2, [width], rngs=nnx.Rngs(lab.seed))


def test_a_task_has_a_row_for_each_experiment_and_quantity(monkeypatch):
    monkeypatch.setattr(extensions, "EXPERIMENTS", {"small": untrained(3), "smaller": untrained(2)})
    made = []

    def run_notebook(path, results, parameters):
        made.append(parameters)
        save_problem(results, REFERENCE, SAMPLES, X, parameters)

    monkeypatch.setattr(cases, "run_notebook", run_notebook)
    table = tasks.beyond_rows({"01_data_generation": {"seed": 42}}, 43)
    assert list(table.columns) == COLUMNS and len(table) == 2 * 3 and made == [{"seed": 43}]
    assert list(table.experiment.unique()) == ["small", "smaller"] and set(table.seed) == {43}
