"""Payoffs against their symmetries, and smoothing against its exact distance from the kink."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import DTYPES, TOLERANCE, finite_difference
from scipy.special import lambertw

from sobolev_utils.models.payoffs import call, digital, smooth_call, smooth_digital, smooth_transition

STRIKE = 1.1
SPOTS = np.linspace(0.1, 2.1, 41) + 0.003  # none at the strike
PAYOFFS = {
    "call": call,
    "digital": digital,
    "smooth_call": lambda s, strike: smooth_call(s, strike, 0.05),
    "smooth_digital": lambda s, strike: smooth_digital(s, strike, 0.05),
}


def test_a_call_less_a_put_is_the_forward():
    put = call(-SPOTS, -STRIKE)
    np.testing.assert_allclose(call(SPOTS, STRIKE) - put, SPOTS - STRIKE, atol=1e-15)
    assert (np.minimum(call(SPOTS, STRIKE), put) == 0).all()


def test_the_slope_of_a_call_is_the_digital_and_that_of_the_digital_nothing():
    np.testing.assert_array_equal(jax.vmap(jax.grad(call), (0, None))(SPOTS, STRIKE), digital(SPOTS, STRIKE))
    np.testing.assert_array_equal(jax.vmap(jax.grad(digital), (0, None))(SPOTS, STRIKE), 0)
    assert set(np.asarray(digital(SPOTS, STRIKE))) == {0, 1}
    assert (call(STRIKE, STRIKE), digital(STRIKE, STRIKE)) == (0, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("payoff", PAYOFFS.values(), ids=PAYOFFS)
def test_payoffs_are_elementwise_and_keep_the_dtype(payoff, dtype):
    s = jnp.asarray(SPOTS[:40].reshape(2, 5, 4), dtype)
    image = payoff(s, STRIKE)
    assert (image.shape, image.dtype) == (s.shape, dtype)
    one_by_one = [float(payoff(jnp.asarray(x), STRIKE)) for x in np.ravel(s)[::7]]
    np.testing.assert_allclose(np.ravel(image)[::7], one_by_one, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("position, width", [(0.0, 1.0), (1.2, 0.05)])
def test_the_transition_is_the_published_formula(position, width):
    smooth = smooth_transition(jnp.sin, jnp.cos, position, width)
    s = 1 / (1 + np.exp(-(SPOTS - position) / width))
    np.testing.assert_allclose(smooth(SPOTS), (1 - s) * np.sin(SPOTS) + s * np.cos(SPOTS), rtol=1e-12, atol=1e-15)
    middle = (np.sin(position) + np.cos(position)) / 2
    np.testing.assert_allclose(smooth(jnp.asarray(position)), middle, rtol=1e-12)


def test_a_smooth_call_is_silu_at_width_one():
    x = jnp.linspace(-5, 5, 21)
    np.testing.assert_allclose(smooth_call(x, 0.0, 1.0), jax.nn.silu(x), rtol=1e-14)


@pytest.mark.parametrize("width", [0.3, 0.005])
def test_smoothing_keeps_the_symmetry_around_the_strike(width):
    x = SPOTS - STRIKE
    calls = smooth_call(STRIKE + x, STRIKE, width) - smooth_call(STRIKE - x, STRIKE, width)
    np.testing.assert_allclose(calls, x, rtol=1e-12)
    digitals = smooth_digital(STRIKE + x, STRIKE, width) + smooth_digital(STRIKE - x, STRIKE, width)
    np.testing.assert_allclose(digitals, 1, rtol=1e-12)


@pytest.mark.parametrize("width", [0.5, 0.05, 0.005])
def test_the_smooth_call_is_nowhere_further_from_the_call_than_lambert_says(width):
    # max_u u / (1 + e^u) = W(1/e), at u = 1 + W(1/e)
    omega = lambertw(np.exp(-1)).real
    s = np.append(SPOTS, STRIKE + width * (1 + omega))
    error = call(s, STRIKE) - smooth_call(s, STRIKE, width)
    np.testing.assert_allclose(error.max(), omega * width, rtol=1e-10)
    assert error.min() >= 0


def test_the_smooth_digital_has_a_slope_that_is_its_finite_difference():
    s = jnp.asarray(SPOTS[:, None])

    def payoff(s):
        return smooth_digital(s[..., 0], STRIKE, 0.1)

    slope = jax.vmap(jax.grad(payoff))(s)
    np.testing.assert_allclose(slope, finite_difference(payoff, s), rtol=1e-6, atol=1e-9)
    assert slope.max() > 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("payoff, below, above", [(smooth_call, 0, 1e3), (smooth_digital, 0, 1)])
def test_far_from_the_strike_smoothing_neither_overflows_nor_matters(payoff, below, above, dtype):
    s = jnp.asarray([-1e3, 1e3], dtype)
    value, slope = jax.vmap(jax.value_and_grad(payoff), (0, None, None))(s, 0.0, 1e-3)
    np.testing.assert_array_equal(value, [below, above])
    np.testing.assert_array_equal(slope, [0, above / 1e3 if payoff is smooth_call else 0])


@pytest.mark.parametrize("width", [0, -0.1, np.nan])
def test_a_width_that_is_not_positive_is_refused(width):
    with pytest.raises(ValueError, match=f"smoothing width must be positive, got {width}"):
        smooth_call(SPOTS, STRIKE, width)
