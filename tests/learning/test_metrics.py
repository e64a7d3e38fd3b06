"""Errors against their definitions, and the shapes that would make them lie."""

import numpy as np
import pytest

from sobolev_utils.learning.metrics import r2, rmse

RNG = np.random.default_rng(0)
TRUTH = RNG.normal(2, 3, (50, 7))
PREDICTION = TRUTH + RNG.normal(0, 0.1, TRUTH.shape)


@pytest.mark.parametrize("shape", [(350,), (50, 7), (10, 5, 7)])
def test_r2_and_rmse_are_means_over_all_entries_whatever_the_shape(shape):
    truth, prediction = TRUTH.reshape(shape), PREDICTION.reshape(shape)
    mse = ((TRUTH - PREDICTION) ** 2).mean()
    np.testing.assert_allclose(r2(truth, prediction), 1 - mse / TRUTH.var(), rtol=1e-14)
    np.testing.assert_allclose(rmse(truth, prediction), mse**0.5, rtol=1e-14)


def test_r2_of_a_least_squares_line_is_the_squared_correlation():
    x, y = TRUTH.T[:2]
    line = np.polyval(np.polyfit(x, y, 1), x)
    np.testing.assert_allclose(r2(y, line), np.corrcoef(x, y)[0, 1] ** 2, rtol=1e-10)


def test_perfect_mean_and_worse_predictions():
    assert (r2(TRUTH, TRUTH), rmse(TRUTH, TRUTH)) == (1, 0)
    mean = np.full_like(TRUTH, TRUTH.mean())
    assert abs(r2(TRUTH, mean)) < 1e-14
    np.testing.assert_allclose(rmse(TRUTH, mean), TRUTH.std(), rtol=1e-14)
    np.testing.assert_allclose(r2(TRUTH, 2 * mean - TRUTH), -3, rtol=1e-12)


def test_r2_has_no_unit_and_rmse_has_that_of_the_truth():
    scaled = 100 * TRUTH - 5, 100 * PREDICTION - 5
    np.testing.assert_allclose(r2(*scaled), r2(TRUTH, PREDICTION), rtol=1e-12)
    np.testing.assert_allclose(rmse(*scaled), 100 * rmse(TRUTH, PREDICTION), rtol=1e-12)


def test_float32_is_summed_in_float64():
    # in float32, the mean of 2^20 numbers near 1,000 is only good to 1e-4
    truth = (1000 + RNG.normal(0, 0.01, 2**20)).astype(np.float32)
    prediction = truth + np.float32(2**-10)
    np.testing.assert_allclose(rmse(truth, prediction), 2**-10, rtol=1e-12)
    np.testing.assert_allclose(r2(truth, prediction), 1 - 2**-20 / truth.astype(float).var(), rtol=1e-9)


@pytest.mark.parametrize("metric", [r2, rmse])
class TestRefusals:
    @pytest.mark.parametrize("shape", [(50, 1), (1, 50), (1,), (49,)])
    def test_shapes_that_would_broadcast_or_differ(self, metric, shape):
        with pytest.raises(ValueError, match=r"shapes must be equal, got truth \(50,\) and prediction"):
            metric(TRUTH[:, 0], np.zeros(shape))

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_entries_that_are_not_finite(self, metric, bad):
        spoilt = TRUTH.copy()
        spoilt[3, 2] = bad
        with pytest.raises(ValueError, match="truth must be finite"):
            metric(spoilt, TRUTH)
        with pytest.raises(ValueError, match="prediction must be finite"):
            metric(TRUTH, spoilt)

    def test_empty_arrays(self, metric):
        with pytest.raises(ValueError, match="truth must be finite and not empty, got 0 entries"):
            metric([], [])


@pytest.mark.parametrize("truth", [[0.0] * 3, [0.1] * 3, [3.0] * 3, [0.1 + 0.2, 0.3, 0.3]])
def test_r2_of_a_truth_that_is_constant_up_to_rounding_is_refused(truth):
    with pytest.raises(ValueError, match="a truth that varies, got a constant one"):
        r2(truth, np.arange(3.0))
