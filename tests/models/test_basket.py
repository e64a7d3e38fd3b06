"""The closed form against quadrature, finite differences and the identities of the model."""

import jax
import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss
from oracles import DTYPES, TOLERANCE, finite_difference, random_basket, second_difference, uniform_points
from scipy.integrate import quad
from scipy.stats import norm

from sobolev_utils.models.basket import GaussianBasket

BASKET = random_basket(3)
X = uniform_points(20, 3)
CORRELATION = np.array([[1, 0.5, -0.2], [0.5, 1, 0.3], [-0.2, 0.3, 1]])
VOLATILITIES = np.array([0.1, 0.2, 0.4])


@pytest.mark.parametrize("n_assets, contract", [(1, {}), (7, {}), (3, {"strike": 0.8, "maturity": 1.25})])
def test_the_price_is_the_expected_payoff(n_assets, contract):
    basket = random_basket(n_assets, **contract)
    assert basket.n_assets == n_assets
    tau = basket.maturity - basket.exposure
    for x in uniform_points(4, n_assets, low=0.7, high=1.5):
        center, deviation = x @ basket.weights, np.linalg.norm(basket.factor.T @ basket.weights) * tau**0.5
        # E max(b + s z - K, 0) = E s max(z - kink, 0)
        kink = (basket.strike - center) / deviation
        price, _ = quad(lambda z, s, d: d * (z - s) * norm.pdf(z), kink, 12, args=(kink, deviation), epsabs=1e-13)
        np.testing.assert_allclose(basket.value(x), price, rtol=1e-9, atol=1e-12)


def test_delta_and_gamma_are_derivatives_of_the_price():
    np.testing.assert_allclose(BASKET.delta(X), finite_difference(BASKET.value, X), atol=1e-9)
    np.testing.assert_allclose(BASKET.delta(X), jax.jit(jax.vmap(jax.grad(BASKET.value)))(X), rtol=1e-10)
    along = second_difference(BASKET.value, X, np.ones(3))  # B moves by the step, for the weights sum to 1
    np.testing.assert_allclose(BASKET.gamma(X), along, rtol=1e-5, atol=1e-6)
    hessians = jax.jit(jax.vmap(jax.hessian(BASKET.value)))(X)
    np.testing.assert_allclose(BASKET.gamma(X), hessians.sum(axis=(1, 2)), rtol=1e-9)
    # H = Gamma w w'
    np.testing.assert_allclose(hessians[0], BASKET.gamma(X[0]) * np.outer(BASKET.weights, BASKET.weights), rtol=1e-9)


def test_a_call_less_the_mirrored_call_is_the_forward():
    mirrored = 2 * BASKET.strike - X  # B becomes 2 K - B, and the call a put
    np.testing.assert_allclose(
        BASKET.value(X) - BASKET.value(mirrored), X @ BASKET.weights - BASKET.strike, atol=1e-14
    )
    np.testing.assert_allclose(BASKET.delta(X) + BASKET.delta(mirrored), np.tile(BASKET.weights, (20, 1)), atol=1e-14)
    np.testing.assert_allclose(BASKET.gamma(X), BASKET.gamma(mirrored), rtol=1e-12)


def test_deep_in_the_money_it_is_the_forward_and_deep_out_nothing():
    inside, outside = np.full(3, 5.0), np.full(3, -3.0)
    np.testing.assert_allclose(BASKET.value(inside), 5 - BASKET.strike, rtol=1e-14)
    np.testing.assert_allclose(BASKET.delta(inside), BASKET.weights, rtol=1e-14)
    for derivative in (BASKET.value, BASKET.delta):
        assert abs(np.max(derivative(outside))) < 1e-80
    assert max(BASKET.gamma(inside), BASKET.gamma(outside)) < 1e-80


def test_the_price_is_homogeneous_in_spots_strike_and_volatility():
    scaled = GaussianBasket(BASKET.weights, 3 * BASKET.factor, 3 * BASKET.strike)
    np.testing.assert_allclose(scaled.value(3 * X), 3 * BASKET.value(X), rtol=1e-13)
    np.testing.assert_allclose(scaled.delta(3 * X), BASKET.delta(X), rtol=1e-13)
    np.testing.assert_allclose(scaled.gamma(3 * X), BASKET.gamma(X) / 3, rtol=1e-13)


def test_the_price_today_is_the_expected_price_at_exposure():
    today = random_basket(3, exposure=0.0)
    z, probability = hermegauss(120)
    # the first Brownian motion alone drives the basket; the others cancel
    noise = np.stack([z, np.sin(3 * z), z**2 - 1])
    later = BASKET.value(X[:, None] + (BASKET.factor @ noise).T)
    np.testing.assert_allclose(today.value(X), later @ probability / probability.sum(), rtol=1e-8)


def test_the_order_of_the_assets_does_not_matter():
    order = [2, 0, 1]
    weights = np.array([1.0, 2.0, 5.0])
    one = GaussianBasket.from_correlation(weights, CORRELATION, VOLATILITIES)
    other = GaussianBasket.from_correlation(weights[order], CORRELATION[np.ix_(order, order)], VOLATILITIES[order])
    np.testing.assert_allclose(other.value(X[:, order]), one.value(X), rtol=1e-12)
    np.testing.assert_allclose(other.delta(X[:, order]), one.delta(X)[:, order], rtol=1e-12)


@pytest.mark.parametrize("weights", [[1, 2, 5], [-1, 2, 5], [-1, -2, -5], [1, 0, 0]])
def test_the_factor_is_a_root_of_the_covariance_whose_first_axis_is_the_basket(weights):
    basket = GaussianBasket.from_correlation(weights, CORRELATION, VOLATILITIES)
    np.testing.assert_allclose(basket.weights, np.array(weights) / np.sum(weights), rtol=1e-15)
    covariance = CORRELATION * np.outer(VOLATILITIES, VOLATILITIES)
    np.testing.assert_allclose(basket.factor @ basket.factor.T, covariance, atol=1e-16)
    variance = basket.weights @ covariance @ basket.weights
    np.testing.assert_allclose(basket.factor.T @ basket.weights, [variance**0.5, 0, 0], atol=1e-16)
    np.testing.assert_allclose(basket.deviation, (variance * 1.0) ** 0.5, rtol=1e-14)


@pytest.mark.parametrize("n_assets, volatility", [(1, 0.2), (2, 0.3), (7, 0.2), (20, 0.05)])
def test_a_random_basket_has_the_volatility_asked_for(n_assets, volatility):
    basket = GaussianBasket.random(5, n_assets, volatility, strike=1.3)
    covariance = basket.factor @ basket.factor.T
    np.testing.assert_allclose(basket.weights @ covariance @ basket.weights, volatility**2, rtol=1e-12)
    np.testing.assert_allclose([basket.volatility, basket.weights.sum()], [volatility, 1], rtol=1e-12)
    deviations = np.sqrt(np.diag(covariance))
    assert basket.weights.min() > 0 and deviations.max() / deviations.min() < 10
    assert basket.weights.max() / basket.weights.min() < 10
    u = np.random.default_rng(5).uniform(-1, 1, (2 * n_assets, n_assets))
    expected = (u.T @ u) / np.outer(*[np.linalg.norm(u, axis=0)] * 2)
    np.testing.assert_allclose(covariance / np.outer(deviations, deviations), expected, rtol=0, atol=1e-12)
    assert basket.strike == 1.3


def test_a_seed_gives_one_basket():
    weights = [GaussianBasket.random(seed).weights for seed in (0, 0, 1)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).all()
    assert GaussianBasket.random(0) != GaussianBasket.random(1)  # equality is identity, not a comparison of arrays


def test_the_box_is_the_published_test_set():
    lower, upper = random_basket(7).box
    a = 1 + 0.5 * (6 / 12) ** 0.5
    np.testing.assert_allclose([lower, upper], [[1 - a / 2] * 7, [1 + a / 2] * 7], rtol=1e-15)
    np.testing.assert_allclose([lower[0], upper[0]], [0.323, 1.677], atol=5e-4)
    np.testing.assert_allclose(random_basket(1).box, [[0.5], [1.5]], rtol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_shapes_and_the_dtype_follow_the_spots(dtype):
    for f, shape in [(BASKET.value, ()), (BASKET.delta, (3,)), (BASKET.gamma, ())]:
        for batch in ((), (4,), (2, 5)):
            image = jax.eval_shape(f, jax.ShapeDtypeStruct((*batch, 3), dtype))
            assert (image.shape, image.dtype) == (batch + shape, dtype)
        np.testing.assert_allclose(f(X.astype(dtype)), f(X), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


class TestRefusals:
    @pytest.mark.parametrize("shape", [(), (2,), (3, 1), (3, 4)])
    def test_another_number_of_spots(self, shape):
        for f in (BASKET.value, BASKET.delta, BASKET.gamma):
            with pytest.raises(ValueError, match=r"spots must have shape \(\.\.\., 3\), got"):
                f(np.ones(shape))

    @pytest.mark.parametrize(
        "weights, correlation, volatilities, message",
        [
            ([], np.zeros((0, 0)), [], "at least one asset"),
            ([[1, 2, 3]], CORRELATION, VOLATILITIES, "vector of weights"),
            ([1, 2], CORRELATION, VOLATILITIES, r"2 weights need volatilities of shape \(2,\)"),
            ([1, 2, 3], CORRELATION[:2, :2], VOLATILITIES, r"got \(3,\) and \(2, 2\)"),
            ([1, 2, 3], CORRELATION, VOLATILITIES[:1], r"got \(1,\) and \(3, 3\)"),
            ([1, 2, 3], CORRELATION, -VOLATILITIES, "volatilities must be positive"),
            ([1, 2, 3], CORRELATION, [0.1, 0.2, 0], "volatilities must be positive"),
            ([1, 2, 3], CORRELATION, [0.1, 0.2, np.nan], "volatilities must be positive"),
            ([1, 2, np.nan], CORRELATION, VOLATILITIES, "weights must be finite"),
            ([1, 2, -3], CORRELATION, VOLATILITIES, "must not sum to zero"),
            ([0.1, 0.2, -0.3], CORRELATION, VOLATILITIES, "must not sum to zero"),
            ([0, 0, 0], CORRELATION, VOLATILITIES, "must not sum to zero"),
            ([1, 2, 3], 2 * CORRELATION, VOLATILITIES, "unit diagonal"),
            ([1, 2, 3], CORRELATION + np.eye(3, k=1), VOLATILITIES, "symmetric"),
            ([1, 2, 3], np.full((3, 3), np.nan), VOLATILITIES, "symmetric"),
            ([1, 1], [[1, 1.5], [1.5, 1]], [0.1, 0.1], "positive definite, got a smallest eigenvalue of -0.5"),
        ],
    )
    def test_parameters_that_make_no_sense(self, weights, correlation, volatilities, message):
        with pytest.raises(ValueError, match=message):
            GaussianBasket.from_correlation(weights, correlation, volatilities)

    @pytest.mark.parametrize(
        "changed, message",
        [
            ({"weights": np.ones((1, 2))}, "finite vector"),
            ({"weights": np.ones(0)}, "finite vector"),
            ({"weights": np.array([np.nan, 1])}, "finite vector"),
            ({"weights": np.array([0.5, 0.6])}, "must sum to 1, got a sum of 1.1"),
            ({"factor": np.eye(3)}, r"shape \(2, 2\), got shape \(3, 3\)"),
            ({"factor": np.full((2, 2), np.inf)}, "finite matrix"),
            ({"factor": np.array([[1.0, 0.0], [-1.0, 0.0]])}, "no volatility"),
            ({"strike": np.nan}, "strike must be finite, got nan"),
            ({"exposure": 2.0}, "0 <= exposure < maturity, got 2.0 and 2.0 years"),
            ({"exposure": -1.0}, "0 <= exposure < maturity"),
            ({"maturity": np.inf}, "0 <= exposure < maturity"),
            ({"maturity": np.nan}, "0 <= exposure < maturity"),
        ],
    )
    def test_contracts_that_make_no_sense(self, changed, message):
        good = {"weights": np.array([0.5, 0.5]), "factor": np.eye(2)}
        assert GaussianBasket(**good).volatility > 0
        with pytest.raises(ValueError, match=message):
            GaussianBasket(**good | changed)

    @pytest.mark.parametrize(
        "n_assets, volatility, message",
        [
            *((n, 0.2, f"n_assets must be at least 1, got {n}") for n in (0, -1)),
            *((7, bad, f"volatility must be positive, got {bad}") for bad in (0, -0.2, np.inf, np.nan)),
        ],
    )
    def test_random_baskets_without_assets_or_volatility(self, n_assets, volatility, message):
        with pytest.raises(ValueError, match=message):
            GaussianBasket.random(0, n_assets, volatility)
