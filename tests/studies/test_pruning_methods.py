"""The comparison of ways to prune is complete and fair; training together is training one by one."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import nnx
from oracles import random_basket, random_surrogate, uniform_points

from sobolev_utils.enclosures.intervals import box
from sobolev_utils.learning.losses import plain, sobolev
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.learning.training import fit, shuffled
from sobolev_utils.models.least_squares_monte_carlo import LeastSquaresMonteCarlo
from sobolev_utils.models.payoffs import smooth_call
from sobolev_utils.models.samples import Samples
from sobolev_utils.paper.case_study import Problem, Truth, save_problem
from sobolev_utils.paper.figures import METHODS
from sobolev_utils.paper.stages import QUANTITIES, evaluate
from sobolev_utils.studies import cases, pruning_methods, tasks, ways_to_prune
from sobolev_utils.studies.cases import NETWORKS, Case
from sobolev_utils.studies.pruning_methods import COLUMNS, compare
from sobolev_utils.studies.run import parameters_of_notebooks
from sobolev_utils.studies.sparse_training import _exchanged, train_sparsely
from sobolev_utils.studies.together import fit_together
from sobolev_utils.studies.ways_to_prune import WAYS, Analysed

BASKET = random_basket(2)
REFERENCE = LeastSquaresMonteCarlo(BASKET, partial(smooth_call, width=0.005), "sobol", spread=1.5)
SAMPLES, HELD_OUT = (REFERENCE.sample(jax.random.key(n), 64) for n in (0, 1))
X = jnp.asarray(uniform_points(32, 2, low=0.7, high=1.3), jnp.float32)
TEST = Truth(X, BASKET.value(X), BASKET.delta(X), BASKET.gamma(X))
PROBLEM = Problem(REFERENCE, SAMPLES, TEST, {"seed": 3})
OPTIONS = {"key": jax.random.key(3), "epochs": 3, "batch": 32}
CHEAP = ("pursuit", "pivoted_qr_values", "random_refitted", "magnitude", "saliency", "brain_surgeon", "random")


def network(*widths, seed=0):
    return random_surrogate(2, widths, dtype=np.float32, seed=seed).normalise(SAMPLES.x, SAMPLES.y)


def case(model, epochs=1):
    inputs = box(*(np.asarray(bound, np.float32) for bound in BASKET.box))
    score = partial(evaluate, test=TEST)
    return Case(model, inputs, shuffled(SAMPLES), HELD_OUT, epochs, (3e-3, 0.5), score, jax.random.key(0))


class TestTogether:
    def test_each_is_trained_as_alone(self):
        models = [network(4, 3, seed=seed) for seed in range(3)]
        draw = shuffled(SAMPLES)
        tuned = fit_together(models, draw, sobolev(), HELD_OUT, settings=[(1e-3, 0.7)], **OPTIONS)
        for model, found in zip(models, tuned, strict=True):
            alone, _ = fit(model, draw, sobolev(), learning_rate=1e-3, weight_decay=0.7, **OPTIONS)
            np.testing.assert_allclose(found(X), alone(X), rtol=1e-4, atol=1e-6)

    def test_of_several_settings_the_best_on_samples_held_out(self):
        model, draw = network(4, 3), shuffled(SAMPLES)

        def trained(*settings):
            (found,) = fit_together([model], draw, plain, HELD_OUT, settings=settings, **OPTIONS)
            return float(plain(found, HELD_OUT))

        settings = (1e-6, 0.0), (1e-2, 0.0), (1e10, 0.0)
        losses = [trained(one) for one in settings]
        assert losses[1] < losses[0] < float(plain(model, HELD_OUT)) * (1 + 1e-6)
        np.testing.assert_allclose(trained(*settings), losses[1], rtol=1e-5)

    def test_weights_that_are_zero_stay_so_where_training_is_sparse(self):
        arrays = network(4, 3).arrays()
        arrays["kernel_1"] = np.where(np.arange(12).reshape(4, 3) % 2, arrays["kernel_1"], 0)
        options = OPTIONS | {"settings": [(1e-2, 0.0)]}
        for sparse in (False, True):
            models = [Surrogate.from_arrays(arrays)]
            (found,) = fit_together(models, shuffled(SAMPLES), plain, HELD_OUT, sparse=sparse, **options)
            kept = np.asarray(found.layers[1].kernel[...])
            assert found is not models[0] and ((kept == 0) == (sparse & (arrays["kernel_1"] == 0))).all()

    def test_a_model_that_training_makes_worse_stays_as_it_is(self):
        model = network(4, 3)
        (same,) = fit_together([model], shuffled(SAMPLES), plain, HELD_OUT, settings=[(1e10, 0.0)], **OPTIONS)
        assert same is model


@pytest.mark.parametrize("by_gradient", [False, True])
def test_sparse_training_keeps_the_number_of_weights_exchanges_them_and_learns(by_gradient):
    model, samples = network(16, 16), Samples(SAMPLES.x, SAMPLES.x @ jnp.array([0.1, 0.2], SAMPLES.x.dtype))
    model = model.normalise(samples.x, samples.y)

    def trained(epochs):
        options = OPTIONS | {"epochs": epochs, "learning_rate": 1e-2, "by_gradient": by_gradient}
        return train_sparsely(model, shuffled(samples), plain, 60, **options)

    first, last = trained(1), trained(200)
    free = [[np.asarray(layer.kernel[...]) != 0 for layer in sparse.layers] for sparse in (first, last)]
    assert all(0.8 * 60 <= sum(mask.sum() for mask in masks) <= 61 for masks in free)
    assert any((a != b).any() for a, b in zip(*free, strict=True))
    assert plain(last, samples) < 0.2 * plain(first, samples)


@pytest.fixture(scope="module")
def seen():
    """Analysed on few sub-boxes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ways_to_prune, "BOXES", 4)
        patch.setattr(ways_to_prune, "BATCH", 4)
        seen = Analysed(case(network(6, 5)))
        assert seen.tight.method == "subdivided"
        yield seen


def test_exchanged_are_the_smallest_for_those_of_largest_score():
    weights, mask = jnp.array([[5.0, -0.1, 2.0], [0.2, 0, 0]]), jnp.array([[1.0, 1, 1], [1, 0, 0]])
    score = jnp.array([[9.0, 9, 9], [0, 1, 2]])
    np.testing.assert_array_equal(_exchanged(weights, mask, score, 4, 0.25), [[1, 1, 1], [1, 0, 0]])  # it may return
    score = score.at[0, 1].set(0)
    np.testing.assert_array_equal(_exchanged(weights, mask, score, 4, 0.25), [[1, 0, 1], [1, 0, 1]])
    np.testing.assert_array_equal(_exchanged(weights, mask, score, 4, 0.5), [[1, 0, 1], [0, 1, 1]])
    np.testing.assert_array_equal(_exchanged(weights, mask, score, 4, 0), mask)


class TestWays:
    @pytest.mark.parametrize("method", WAYS)
    def test_every_way_leaves_as_many_nodes_as_it_says(self, seen, method):
        found = dict(WAYS[method](seen, (2, 3, 5)))
        assert set(found) == ({3} if method.startswith("conditional") else {2, 3, 5})
        for count, model in found.items():
            assert model.widths == (count, count) and np.isfinite(model(X)).all()

    def test_nothing_changes_where_all_nodes_stay_and_little_where_weights_are_refitted(self, seen):
        model = Analysed(case(network(5, 5)))
        for method in ("pursuit", "magnitude", "brain_surgeon", "random"):
            (same,) = dict(WAYS[method](model, (5,))).values()
            np.testing.assert_allclose(same(X), model.network(X), rtol=1e-3, atol=1e-4)
        errors = {}
        for method in ("random", "random_refitted", "iasa_plain", "iasa_refitted", "brain_surgeon"):
            (small,) = dict(WAYS[method](seen, (4,))).values()
            errors[method] = float(jnp.square(small(X) - seen.network(X)).mean())
        assert errors["random_refitted"] < errors["random"] and errors["iasa_refitted"] < errors["iasa_plain"]
        assert errors["brain_surgeon"] < errors["iasa_plain"]

    def test_every_way_has_a_line_in_the_figures(self):
        assert {*WAYS, "scratch", "set", "rigl"} == METHODS.keys()


class TestCompare:
    def test_the_rows_hold_every_way_before_and_after(self, monkeypatch):
        """Of the ways that enclose nothing, which take a minute to compile."""
        small = {"TUNED": (2,), "SPARSE": 2, "EPOCHS": 1, "BATCH": 32, "WAYS": {name: WAYS[name] for name in CHEAP}}
        for name, value in small.items():
            monkeypatch.setattr(pruning_methods, name, value)
        given = case(network(5, 4))
        rows = compare(given, (2, 3))
        assert list(rows.columns) == COLUMNS
        before = rows[rows.stage == "before"]
        assert set(before.method) == {"oversized", *CHEAP, "scratch", "set", "rigl"}
        assert set(before[before.method.isin(CHEAP)].groupby("method").size()) == {2 * len(QUANTITIES)}
        assert set(before.loss) == {"-"}
        for loss in ("plain", "sobolev"):
            after = rows[rows.loss == loss]
            assert set(after.method) == {*CHEAP, "scratch", "set", "rigl"} and set(after.nodes) == {2}
            assert set(after.stage) == {"after"} and len(after) == (len(CHEAP) + 3) * len(QUANTITIES)
        np.testing.assert_allclose(rows.r2[:3], evaluate(given.network, TEST), atol=1e-8)
        dense = rows[~rows.method.isin(["oversized", "set", "rigl"]) & (rows.nodes == 2)]
        assert set(dense.parameters) == {2 * 2 + 2 + 2 * 2 + 2 + 2 + 1}

    def test_what_diverged_is_infinitely_wrong(self):
        arrays = network(3).arrays() | {"bias_0": np.full(3, np.nan, np.float32)}
        assert (pruning_methods._scores(case(network(3)), Surrogate.from_arrays(arrays)) == -np.inf).all()

        def broken(model):
            raise ValueError("another fault")

        with pytest.raises(ValueError, match="another fault"):
            pruning_methods._scores(replace(case(network(3)), score=broken), network(3))

    def test_the_same_training_for_all_and_as_much_as_all_of_it_from_scratch(self, monkeypatch):
        calls = []

        def trained(models, draw, loss, held_out, *, key, epochs, **options):
            calls.append((len(models), epochs, options, key))
            return models

        def sparsely(model, draw, loss, n_weights, *, key, epochs, **options):
            calls.append((n_weights, epochs, options, key))
            return model

        monkeypatch.setattr(pruning_methods, "fit_together", trained)
        monkeypatch.setattr(pruning_methods, "train_sparsely", sparsely)
        monkeypatch.setattr(pruning_methods, "WAYS", {name: WAYS[name] for name in ("magnitude", "random")})
        compare(case(network(9, 9), epochs=7), (8, 16))  # 16 are more than there are
        tried, tuned = [(1e-3, 0.0), (1e-2, 0.0)], pruning_methods.EPOCHS
        scratch, sparse = (1, 7, [*tried, (3e-3, 0.5)]), [(88, 7, rate) for rate, _ in tried]
        expected = [scratch, *sparse, *sparse, *2 * [(3, tuned, tried), (2, tuned, tried)]]
        found = [
            (n, epochs, options.get("settings", options.get("learning_rate"))) for n, epochs, options, _ in calls
        ]
        assert found == expected
        assert len({str(jax.random.key_data(key)) for *_, key in calls}) == 1


class TestCases:
    HAS = parameters_of_notebooks({"n_samples": 64, "n_test": 32, "width": 4, "keep": 3, "batch": 32})

    @pytest.fixture(autouse=True)
    def made_at_once(self, monkeypatch):
        """No notebook runs and nothing is trained; the settings of each training are noted."""
        self.trained = []

        def run(path, folder, parameters):
            save_problem(folder, REFERENCE, SAMPLES, X, parameters)
            self.trained.append(parameters)

        def train(model, draw, loss, *, key, **settings):
            self.trained.append(settings)
            return model, np.ones(1)

        monkeypatch.setattr(cases, "run_notebook", run)
        monkeypatch.setattr(cases, "fit", train)

    def test_a_basket_is_of_the_seed_and_of_what_is_given(self):
        case = NETWORKS["12_assets"](self.HAS, 5)
        problem, settings = self.trained
        assert (problem["seed"], problem["n_assets"], problem["basket_seed"]) == (5, 12, 5)
        own = self.HAS["02_oversized_model"]
        assert settings == {name: own[name] for name in ("epochs", "batch", "learning_rate", "weight_decay")}
        assert case.training == (own["learning_rate"], own["weight_decay"])
        assert case.epochs == own["epochs"] and case.network.widths == (4,) * own["depth"]
        assert case.fresh(3).widths == (3,) * own["depth"]

    def test_the_published_recipe_has_no_decay_and_points_of_its_own(self):
        case = NETWORKS["paper_recipe"](self.HAS, 5)
        assert self.trained[1]["weight_decay"] == 0 and case.epochs == 200
        assert not np.isin(case.samples.x, SAMPLES.x).all()
        assert NETWORKS["two_layers"](self.HAS, 5).network.widths == (4, 4)

    def test_labels_held_out_are_new(self):
        case = NETWORKS["decayed"](self.HAS, 5)
        assert np.isin(case.samples.x, SAMPLES.x).all() and not np.isin(case.held_out.x[:64], SAMPLES.x).any()
        assert len(case.held_out.x) == cases.HELD_OUT

    def test_heston_is_what_the_notebook_defines(self, monkeypatch):
        source = [
            ("code", "seed = 1\nn_nets = 64\nepochs = 3\nlearning_rate, weight_decay = 0.1, 0.2", ["parameters"]),
            ("code", "import numpy as np\nfrom flax import nnx\nfrom sobolev_utils.learning import Surrogate", []),
            ("code", "oversized = Surrogate(2, [3], rngs=nnx.Rngs(seed))\nx_test = np.ones((4, 2))", []),
            (
                "code",
                "class Model:\n    def sample(self, key, n):\n        return n\nheston = Model()\ninputs = None",
                [],
            ),
            ("code", "exact = np.random.default_rng(seed).normal(size=(4, 4))\ndef draw(key): ...", []),
            ("code", "def predicted(model, x):\n    return exact + 0.1\ndef scores(model): ...", []),
            ("code", "1 / 0", []),
        ]
        monkeypatch.setattr(cases, "cells", lambda path: source)
        case = NETWORKS["heston"]({}, 7)
        assert case.epochs == 3 and case.held_out == cases.HELD_OUT
        exact = np.random.default_rng(7).normal(size=(4, 4))
        spread = [exact[:, 0].var(), exact[:, 1:-1].var(), exact[:, -1].var()]
        np.testing.assert_allclose(case.score(case.network), 1 - 0.01 / np.array(spread))


def test_a_task_names_network_and_seed(monkeypatch):
    monkeypatch.setattr(tasks, "NETWORKS", {"one": lambda has, seed: (has, seed)})
    frame = pd.DataFrame([("pursuit", 3, 40, "before", "-", "values", 0.5)], columns=COLUMNS)
    monkeypatch.setattr(tasks.pruning_methods, "compare", lambda case: frame.assign(r2=case[1] / 10))
    rows = tasks.pruning_rows({}, 4, "one")
    expected = ["network", "method", "nodes", "parameters", "seed", "stage", "loss", "quantity", "r2"]
    assert list(rows.columns) == expected
    assert rows.iloc[0].tolist() == ["one", "pursuit", 3, 40, 4, "before", "-", "values", 0.4]


def test_fresh_networks_differ_by_key_and_share_the_normalisation():
    given = case(network(4, 4))
    fresh = given.fresh(3)
    assert fresh.widths == (3, 3) and not (fresh(X) == given.network(X)).any()
    np.testing.assert_allclose(fresh.x_std[...], given.network.x_std[...], rtol=1e-5)
    assert isinstance(fresh, nnx.Module)
