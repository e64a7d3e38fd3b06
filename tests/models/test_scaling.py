"""A price carried to another strike and volatility is that of the other call: the closed form says so itself."""

import jax
import numpy as np
import pytest
from oracles import finite_difference, random_basket, random_surrogate, second_difference, uniform_points

from sobolev_utils.models.scaling import equivalent, moved, sensitivities, transported

BASKET = random_basket(3)
X = uniform_points(20, 3)


@pytest.mark.parametrize("strike", [BASKET.strike, 0.7, 1.4])
@pytest.mark.parametrize("volatility", [BASKET.volatility, 0.05, 0.6])
def test_the_closed_form_carried_over_is_the_closed_form_there(strike, volatility):
    there = moved(BASKET, strike, volatility)
    assert there.strike == strike and there.maturity == BASKET.maturity
    np.testing.assert_allclose(there.volatility, volatility, rtol=1e-14)
    carried = sensitivities(transported(BASKET.value, BASKET, strike, volatility), X)
    for found, exact in zip(carried, (there.value(X), there.delta(X), there.gamma(X)), strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-13)


def test_equivalent_spots_have_the_same_moneyness():
    there = moved(BASKET, 0.9, 0.35)
    own = equivalent(BASKET, 0.9, 0.35, X)
    np.testing.assert_allclose(BASKET.delta(own), there.delta(X), rtol=1e-12)
    np.testing.assert_allclose(equivalent(there, BASKET.strike, BASKET.volatility, own), X, rtol=1e-13)


def test_where_the_contract_is_the_baskets_own_nothing_changes():
    model = random_surrogate()
    carried = transported(model, BASKET, BASKET.strike, BASKET.volatility)
    for found, own in zip(sensitivities(carried, X), (model(X), model.delta(X), model.gamma(X)), strict=True):
        np.testing.assert_allclose(found, own, rtol=1e-10)


def test_sensitivities_are_derivatives():
    price = jax.jit(transported(random_surrogate(), BASKET, 0.9, 0.35))
    value, delta, gamma = sensitivities(price, X)
    np.testing.assert_array_equal(value, price(X))
    np.testing.assert_allclose(delta, finite_difference(price, X), atol=1e-9)
    np.testing.assert_allclose(gamma, second_difference(price, X, np.ones(3)), rtol=1e-5, atol=1e-6)


def test_a_volatility_or_strike_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="the strike must be finite"):
        moved(BASKET, np.inf, 0.2)
    for volatility in (0.0, -0.2, np.inf):
        with pytest.raises(ValueError, match=f"volatility must be positive and finite, got {volatility}"):
            moved(BASKET, 1.0, volatility)
        with pytest.raises(ValueError, match=f"volatility must be positive and finite, got {volatility}"):
            transported(BASKET.value, BASKET, 1.0, volatility)
