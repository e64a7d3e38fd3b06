"""The problem comes back as it was saved, its sources give what their budget says, and others are refused."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sobolev_utils.models.basket import GaussianBasket
from sobolev_utils.models.least_squares_monte_carlo import LeastSquaresMonteCarlo
from sobolev_utils.models.payoffs import digital, smooth_call
from sobolev_utils.paper.artifacts import ArtifactError
from sobolev_utils.paper.case_study import BUDGETS, load_problem, save_problem

KEY = jax.random.key(1)
PARAMETERS = {"seed": 7, "smoothing": 0.01, "points": "pseudo_random", "spread": 1.2}


@pytest.fixture
def saved(tmp_path):
    basket = GaussianBasket.random(3, n_assets=3, strike=0.9, exposure=0.5, maturity=1.25)
    reference = LeastSquaresMonteCarlo(basket, partial(smooth_call, width=0.01), points="pseudo_random", spread=1.2)
    samples = reference.sample(KEY, 64)
    save_problem(tmp_path, reference, samples, jnp.linspace(0.5, 1.5, 15).reshape(5, 3), PARAMETERS)
    return tmp_path, samples


@pytest.fixture
def problem(saved):
    return load_problem(saved[0])


def test_comes_back_as_it_was_saved(saved):
    folder, samples = saved
    problem = load_problem(folder, seed=7)
    assert problem.parameters == PARAMETERS
    assert problem.basket.strike == 0.9 and problem.basket.maturity - problem.basket.exposure == 0.75
    for kept, drawn, again in zip(problem.samples, samples, problem.reference.sample(KEY, 64), strict=True):
        np.testing.assert_array_equal(kept, drawn)
        np.testing.assert_array_equal(kept, again)
    assert problem.test.x.shape == (5, 3)
    np.testing.assert_array_equal(problem.test.delta, problem.basket.delta(problem.test.x))


@pytest.mark.parametrize("other", [{"antithetic": False}, {"payoff": digital}])
def test_only_a_smoothed_call_can_be_handed_on(problem, tmp_path, other):
    reference = replace(problem.reference, **other)
    with pytest.raises(ValueError, match=r"expected an antithetic model with payoff partial\(smooth_call"):
        save_problem(tmp_path, reference, problem.samples, problem.test.x, PARAMETERS)


def test_belongs_to_a_seed(saved):
    with pytest.raises(ArtifactError, match="holds seed = 7, expected seed = 8: run notebooks/01_data_generation"):
        load_problem(saved[0], seed=8)


def test_the_fixed_budget_reorders_the_same_samples(problem):
    draw = problem.source("paths_8192")
    first, second = draw(jax.random.key(1)), draw(jax.random.key(2))
    assert not (first.y == second.y).all()
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(np.sort(a, axis=0), np.sort(b, axis=0))


def test_the_fresh_budget_draws_as_many_new_ones(problem):
    draw = problem.source("fresh_paths")
    first, second = draw(jax.random.key(1)), draw(jax.random.key(2))
    assert first.x.shape == second.x.shape == problem.samples.x.shape
    assert not np.isin(first.y[first.y > 0.01], second.y).any()


def test_the_recipe_has_a_sample_of_its_own_at_pseudo_random_points(problem):
    """As many labels, normal but not evenly spread: of Sobol points half would lie on either side of the mean."""
    problem = replace(problem, reference=replace(problem.reference, points="sobol"))
    recipe = problem.fixed_sample("paper_recipe")
    assert (
        recipe.x.shape == problem.samples.x.shape and not np.isin(recipe.y[recipe.y > 0.01], problem.samples.y).any()
    )
    below = [int((x[:, 0] < 1).sum()) for x in (recipe.x, problem.source("fresh_paths")(KEY).x)]
    assert below[1] == 32 != below[0]
    np.testing.assert_array_equal(np.sort(problem.source("paper_recipe")(KEY).y), np.sort(recipe.y))
    assert problem.fixed_sample("fresh_paths") is problem.fixed_sample("paths_8192") is problem.samples


@pytest.mark.parametrize("budget", BUDGETS)
def test_relabelling_keeps_spots_and_targets_together(problem, budget):
    samples = problem.source(budget, lambda s: s._replace(y=s.x.sum(axis=-1)))(KEY)
    np.testing.assert_allclose(samples.y, samples.x.sum(axis=-1))


def test_refuses_an_unknown_budget(problem):
    message = r"unknown budget 'paths_4096', expected one of \('paths_8192', 'fresh_paths', 'paper_recipe'\)"
    with pytest.raises(ValueError, match=message):
        problem.source("paths_4096")
