"""The comparison is fair and complete: one oversized network, equal training, no row lost, on tiny problems."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import nnx
from oracles import random_basket, random_surrogate, uniform_points

from sobolev_utils.enclosures.intervals import box
from sobolev_utils.learning.losses import plain
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.learning.training import fit
from sobolev_utils.models.least_squares_monte_carlo import LeastSquaresMonteCarlo
from sobolev_utils.models.payoffs import smooth_call
from sobolev_utils.paper.case_study import Problem, Truth, save_problem
from sobolev_utils.paper.stages import QUANTITIES, evaluate
from sobolev_utils.pruning.attained import inside
from sobolev_utils.pruning.baselines import magnitude
from sobolev_utils.pruning.nodes import mean_nodes, most_significant, prune
from sobolev_utils.pruning.significance import analyse
from sobolev_utils.studies import pruning_methods, tasks
from sobolev_utils.studies.pruning_methods import METHODS, compare, criteria

BASKET = random_basket(2)
REFERENCE = LeastSquaresMonteCarlo(BASKET, partial(smooth_call, width=0.005), "sobol", spread=1.5)
X_TEST = jnp.asarray(uniform_points(32, 2, low=0.7, high=1.3), jnp.float32)
SAMPLES = REFERENCE.sample(jax.random.key(0), 64)
PROBLEM = Problem(
    REFERENCE, SAMPLES, Truth(X_TEST, BASKET.value(X_TEST), BASKET.delta(X_TEST), BASKET.gamma(X_TEST)), {}
)
TUNING = {"epochs": 9, "batch": 32, "learning_rate": 1e-2, "weight_decay": 0.1, "optimiser": "muon"}
OVERSIZED = {"width": 8, "activation": "silu", "epochs": 5, "batch": 16, "learning_rate": 1e-3, "weight_decay": 1.0}
KEY = jax.random.fold_in(jax.random.key(7), 3)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    for name, value in {"STEPS": 3, "BRIEF": 2, "BOXES": 2}.items():
        monkeypatch.setattr(pruning_methods, name, value)


def by_magnitude(problem, key):
    """Every criterion the cheap one."""
    return {
        name: lambda model: (magnitude(model), mean_nodes(model, problem.samples.x))
        for name in pruning_methods.CRITERIA
    }


@pytest.fixture
def cheap(monkeypatch):
    """Nothing is analysed or trained; the calls of `fit`, (widths, epochs, other settings)."""
    calls = []

    def fit(model, draw, loss, *, key, epochs, **settings):
        calls.append((model.widths, epochs, settings))
        return model, np.ones(epochs)

    monkeypatch.setattr(pruning_methods, "criteria", by_magnitude)
    monkeypatch.setattr(pruning_methods, "fit", fit)
    return calls


MODEL = random_surrogate(2, (5, 4), dtype=np.float32)
INPUTS = box(*(np.asarray(bound, np.float32) for bound in BASKET.box))


@pytest.fixture(scope="module")
def reached():
    return inside(MODEL, INPUTS, samples=2**10)


@pytest.fixture(scope="module")
def judged(reached):
    """Scores and constants by each criterion, where `inside` finds `reached`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning_methods, "inside", lambda model, inputs: reached)
        patch.setattr(pruning_methods, "BOXES", 64)
        return {name: judge(MODEL) for name, judge in criteria(PROBLEM, KEY).items()}


class TestCriteria:
    def test_each_score_is_what_its_name_says(self, judged, reached):
        expected = {
            "iasa_plain": analyse(MODEL, INPUTS, method="operations").hidden,
            "sampled": reached.hidden,
            "magnitude": magnitude(MODEL),
        }
        assert set(judged) == {*expected, "iasa_tight", "random"} == set(pruning_methods.CRITERIA)
        for name, layers in expected.items():
            for found, scores in zip(judged[name][0], layers, strict=True):
                np.testing.assert_allclose(found, scores, rtol=1e-5)

    def test_tight_significance_is_between_the_sampled_and_the_plain(self, judged):
        for low, tight, high in zip(
            *(judged[name][0] for name in ("sampled", "iasa_tight", "iasa_plain")), strict=True
        ):
            assert (low <= tight).all() and (tight <= high).all() and (tight < 0.9 * high).any()

    def test_constants_are_means_but_midpoints_where_enclosures_are_tight(self, judged, reached):
        means = mean_nodes(MODEL, SAMPLES.x)
        for name, (_, constants) in judged.items():
            for found, mean, values in zip(constants, means, reached.values[1:-1], strict=True):
                if name == "iasa_tight":
                    assert (abs(found - values.midpoint) < 0.1 * values.width).all()
                    assert (abs(found - mean) > 0.01 * values.width).any()
                else:
                    np.testing.assert_array_equal(found, mean)

    def test_random_nodes_differ_by_key_and_the_same_model_is_judged_once(self):
        judge = criteria(PROBLEM, KEY)["random"]
        assert judge(MODEL) is judge(MODEL)
        other = criteria(PROBLEM, jax.random.key(1))["random"](MODEL)
        assert not (judge(MODEL)[0][0] == other[0][0]).any()


class TestCompare:
    def test_every_method_gets_the_same_total_training(self, cheap):
        spent = {}
        cheap_before = 0
        for rows in compare(PROBLEM, 7, 2, 2, OVERSIZED, TUNING):
            spent[rows.method.iloc[0]] = cheap[cheap_before:]
            cheap_before = len(cheap)
        oversized = spent["iasa_plain"].pop(0)
        assert oversized == ((8, 8), 5, {"batch": 16, "learning_rate": 1e-3, "weight_decay": 1.0})
        assert list(spent) == list(METHODS)
        tuning = {name: value for name, value in TUNING.items() if name != "epochs"}
        for method, fits in spent.items():
            assert all(settings == tuning for *_, settings in fits)
            assert sum(epochs for _, epochs, _ in fits) == (5 + 9 if method == "scratch" else 9)
            widths = [width for (width, _), *_ in fits]
            assert widths == ([5, 3, 2] if "iterative" in method else [2])

    def test_rows_are_complete(self, cheap):
        table = pd.concat(compare(PROBLEM, 7, 2, 2, OVERSIZED, TUNING))
        assert list(table.columns) == ["method", "parameters", "seed", "stage", "quantity", "r2"]
        expected = {
            (method, stage, quantity)
            for method in METHODS
            for stage in ("before", "pruned")
            for quantity in QUANTITIES
            if (method, stage) != ("scratch", "before")
        }
        assert set(zip(table.method, table.stage, table.quantity, strict=True)) == expected
        assert len(table) == len(expected) and set(table.seed) == {7}
        assert set(table.parameters) == {2 * 2 + 2 + 2 * 2 + 2 + 2 + 1}

    def test_one_shot_by_hand(self, monkeypatch):
        """By the keys of notebooks 02 and 03."""
        monkeypatch.setattr(pruning_methods, "METHODS", ("magnitude",))
        (rows,) = compare(PROBLEM, 7, 2, 2, OVERSIZED, TUNING)

        def trained(model, parameters, key):
            settings = {name: value for name, value in parameters.items() if name not in ("width", "activation")}
            return fit(model, PROBLEM.source("paths_8192"), plain, key=key, **settings)[0]

        model = Surrogate(2, [8, 8], rngs=nnx.Rngs(7)).normalise(SAMPLES.x, SAMPLES.y)
        model = trained(model, OVERSIZED, jax.random.fold_in(jax.random.key(7), 2))
        before = prune(model, most_significant(magnitude(model), 2), mean_nodes(model, SAMPLES.x))
        after = trained(before, TUNING, KEY)
        expected = [*evaluate(before, PROBLEM.test), *evaluate(after, PROBLEM.test)]
        np.testing.assert_allclose(rows.r2, expected, rtol=1e-6)
        assert list(rows.stage) == ["before"] * 3 + ["pruned"] * 3 and rows.r2.nunique() == 6


def test_a_task_is_a_size_of_a_seed_by_the_parameters_of_the_notebooks(cheap, monkeypatch):
    """Notebook 01 is replaced by the tiny problem."""
    made = []

    def run_notebook(path, results, parameters):
        made.append((path.stem, parameters))
        save_problem(results, REFERENCE, SAMPLES, X_TEST, parameters)

    monkeypatch.setattr(tasks, "run_notebook", run_notebook)
    has = {
        "01_data_generation": {"n_assets": 2, "seed": 42},
        "02_oversized_model": OVERSIZED,
        "03_iasa_pruning": TUNING,
    }
    table = tasks.pruning_rows(has, 43, 1, 3)
    assert made == [("01_data_generation", {"n_assets": 2, "seed": 43})]
    assert len(table) == len(METHODS) * 6 - 3 and set(table.seed) == {43} and set(table.parameters) == {13}
    assert not table.duplicated(["method", "parameters", "seed", "stage", "quantity"]).any()
    assert cheap[0] == ((8,), 5, {"batch": 16, "learning_rate": 1e-3, "weight_decay": 1.0})
    assert cheap[1][2] == {"batch": 32, "learning_rate": 1e-2, "weight_decay": 0.1, "optimiser": "muon"}
