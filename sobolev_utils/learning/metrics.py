"""Errors of a surrogate, with shape checks that make broadcasting mistakes impossible."""

import numpy as np

from sobolev_utils.arrays import as_numbers, varies

__all__ = ["r2", "rmse"]


def _checked(truth, prediction) -> tuple[np.ndarray, np.ndarray]:
    truth = np.asarray(as_numbers(truth, name="truth"), float)
    prediction = np.asarray(as_numbers(prediction, name="prediction"), float)
    if truth.shape != prediction.shape:
        raise ValueError(f"shapes must be equal, got truth {truth.shape} and prediction {prediction.shape}")
    for name, array in (("truth", truth), ("prediction", prediction)):
        if bad := np.sum(~np.isfinite(array)) or array.size == 0:
            raise ValueError(f"{name} must be finite and not empty, got {array.size} entries, {bad:d} not finite")
    return truth, prediction


def r2(truth, prediction) -> float:
    """Coefficient of determination over all entries, R^2 = 1 - sum (t - p)^2 / sum (t - mean t)^2.

    Arrays of equal shape; deltas (n_samples, n_inputs) are flattened over both axes. Computed in float64. Raises
    ValueError where shapes differ, an entry is not finite, or the truth varies by no more than its rounding.
    """
    given = np.asarray(truth)
    truth, prediction = _checked(truth, prediction)
    if not varies(given if given.dtype in (np.float16, np.float32) else truth):
        raise ValueError("R^2 needs a truth that varies, got a constant one")
    total = np.sum(np.square(truth - truth.mean()))
    return float(1 - np.sum(np.square(truth - prediction)) / total)


def rmse(truth, prediction) -> float:
    """Root mean squared error over all entries, in the units of the truth. Raises ValueError as `r2` does."""
    truth, prediction = _checked(truth, prediction)
    return float(np.sqrt(np.mean(np.square(truth - prediction))))
