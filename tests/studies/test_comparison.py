"""Fine-tuning together against one by one; sparse training keeps its count; the comparison leaves no way out."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import random_basket, random_surrogate, uniform_points

from sobolev_utils.enclosures.intervals import box
from sobolev_utils.learning.losses import plain, sobolev
from sobolev_utils.learning.training import fit, shuffled
from sobolev_utils.models.least_squares_monte_carlo import LeastSquaresMonteCarlo
from sobolev_utils.models.payoffs import smooth_call
from sobolev_utils.models.samples import Samples
from sobolev_utils.paper.case_study import Truth
from sobolev_utils.paper.stages import QUANTITIES, evaluate
from sobolev_utils.studies import comparison
from sobolev_utils.studies.comparison import WAYS, Case, compare
from sobolev_utils.studies.sparse_training import trained_sparsely
from sobolev_utils.studies.together import fit_together

BASKET = random_basket(2)
REFERENCE = LeastSquaresMonteCarlo(BASKET, partial(smooth_call, width=0.005), "sobol", spread=1.5)
SAMPLES, HELD_OUT = (REFERENCE.sample(jax.random.key(n), 64) for n in (0, 1))
X = jnp.asarray(uniform_points(32, 2, low=0.7, high=1.3), jnp.float32)
TEST = Truth(X, BASKET.value(X), BASKET.delta(X), BASKET.gamma(X))
OPTIONS = {"key": jax.random.key(3), "epochs": 3, "batch": 32}


def network(*widths, seed=0):
    return random_surrogate(2, widths, dtype=np.float32, seed=seed).normalise(SAMPLES.x, SAMPLES.y)


class TestTogether:
    def test_each_is_trained_as_alone(self):
        models = [network(4, 3, seed=seed) for seed in range(3)]
        draw = shuffled(SAMPLES)
        tuned = fit_together(models, draw, sobolev(), HELD_OUT, learning_rates=[1e-3], **OPTIONS)
        for model, found in zip(models, tuned, strict=True):
            alone, _ = fit(model, draw, sobolev(), learning_rate=1e-3, **OPTIONS)
            np.testing.assert_allclose(found(X), alone(X), rtol=1e-4, atol=1e-6)

    def test_of_several_rates_the_best_on_samples_held_out(self):
        model, draw = network(4, 3), shuffled(SAMPLES)
        rates = [1e-6, 1e-2, 1e10]
        (found,) = fit_together([model], draw, plain, HELD_OUT, learning_rates=rates, **OPTIONS)
        each = [fit_together([model], draw, plain, HELD_OUT, learning_rates=[rate], **OPTIONS)[0] for rate in rates]
        losses = np.nan_to_num([float(plain(one, HELD_OUT)) for one in each], nan=np.inf)
        np.testing.assert_allclose(plain(found, HELD_OUT), losses.min(), rtol=1e-5)
        assert losses.argmin() == 1


@pytest.mark.parametrize("by_gradient", [False, True])
def test_sparse_training_keeps_the_number_of_weights_exchanges_them_and_learns(by_gradient):
    model, samples = network(16, 16), Samples(SAMPLES.x, SAMPLES.x @ jnp.array([0.1, 0.2], SAMPLES.x.dtype))
    model = model.normalise(samples.x, samples.y)

    def trained(epochs):
        options = OPTIONS | {"epochs": epochs, "learning_rate": 1e-2, "by_gradient": by_gradient}
        return trained_sparsely(model, shuffled(samples), plain, 60, **options)

    first, last = trained(1), trained(200)
    free = [[np.asarray(layer.kernel[...]) != 0 for layer in sparse.layers] for sparse in (first, last)]
    assert all(0.8 * 60 <= sum(mask.sum() for mask in masks) <= 61 for masks in free)
    assert any((a != b).any() for a, b in zip(*free, strict=True))
    assert plain(last, samples) < 0.2 * plain(first, samples)


CHEAP = ("pursuit", "pivoted_qr_values", "random_refitted", "magnitude", "saliency", "brain_surgeon", "random")


def test_the_rows_hold_every_way_before_and_after(monkeypatch):
    """Of the ways that enclose nothing, which take a minute to compile."""
    small = {"TUNED": (2,), "SPARSE": 2, "EPOCHS": 1, "BATCH": 32, "SURGERY": 16}
    for name, value in {**small, "WAYS": {name: WAYS[name] for name in CHEAP}}.items():
        monkeypatch.setattr(comparison, name, value)
    inputs = box(*(np.asarray(bound, np.float32) for bound in BASKET.box))
    case = Case(network(5, 4), inputs, shuffled(SAMPLES), HELD_OUT, 1, lambda m: evaluate(m, TEST), jax.random.key(0))
    rows = compare(case, (2, 3))
    assert list(rows.columns) == comparison.COLUMNS
    before = rows[(rows.stage == "before") & (rows.method != "oversized")]
    assert set(before.groupby("method").size()) == {2 * len(QUANTITIES)} and set(before.method) == set(CHEAP)
    for stage in ("after, plain", "after, sobolev"):
        after = rows[rows.stage == stage]
        assert set(after.method) == {*CHEAP, "scratch", "set", "rigl"} and set(after.nodes) == {2}
    np.testing.assert_allclose(rows.r2[:3], evaluate(case.network, TEST))
