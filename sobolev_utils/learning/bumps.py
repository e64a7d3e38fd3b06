"""A network that is wrong on purpose, and almost nowhere: to see what finds it."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import block_diag

from sobolev_utils.learning.surrogate import Surrogate

__all__ = ["with_bump"]

STEEP = 20.0  # how sharp the bump is; its top is within 1e-4 of its height


def with_bump(model: Surrogate, direction: ArrayLike, level: float, width: float, height: float) -> Surrogate:
    """The same silu network and nodes beside its own that add a bump where |w'x - level| < width, w the direction.

    A hat is the second difference of a ramp, silu(k t) / k; pairs of nodes carry it through the other layers, since
    silu(z) - silu(-z) = z. Its slope is height / width, its second derivative up to 5 height / width^2. Raises
    ValueError for another activation, or several outputs.
    """
    if model.activation != "silu" or model.n_outputs != 1:
        raise ValueError(f"need a silu network of one output, got {model.activation} and {model.n_outputs}")
    arrays, w, n = model.arrays(), np.asarray(direction, float), len(model.widths)
    arrays = {name: a.astype(float) if a.dtype.kind == "f" else a for name, a in arrays.items()}
    middle = w @ np.broadcast_to(arrays["x_mean"], w.shape) - level
    hat, pair = np.array([[1.0], [-2.0], [1.0]]) / STEEP, np.array([[1.0], [-1.0]])
    ways = [hat @ pair.T, *[pair @ pair.T] * (n - 2)][: n - 1]
    slopes = STEEP / width * np.outer(w * arrays["x_std"], np.ones(3))
    arrays["kernel_0"] = np.hstack([arrays["kernel_0"], slopes])
    arrays["bias_0"] = np.append(arrays["bias_0"], STEEP * (middle / width + np.array([1.0, 0.0, -1.0])))
    for i, way in enumerate(ways, start=1):
        arrays[f"kernel_{i}"] = block_diag(arrays[f"kernel_{i}"], way)
        arrays[f"bias_{i}"] = np.append(arrays[f"bias_{i}"], [0.0, 0.0])
    last = height / arrays["y_std"] * (pair if n > 1 else hat)
    arrays[f"kernel_{n}"] = np.vstack([arrays[f"kernel_{n}"], last])
    return Surrogate.from_arrays(arrays)
