"""Slabs of a box, cut across the direction along which a network varies most.

Let w be the leading eigenvector of E g g', with the gradients g of the network at points of the box. A network that
is nearly a function of w'x alone varies little in a thin slab a <= w'x <= b, however wide the slab is otherwise.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from sobolev_utils.enclosures.intervals import Interval, box
from sobolev_utils.learning.hessian_products import principal_directions
from sobolev_utils.learning.surrogate import Surrogate

__all__ = ["active_gradients", "slabs"]


def active_gradients(model: Surrogate, inputs: Interval) -> jax.Array:
    """Gradients of the network at 4,096 Sobol points of the box, (n_points, n_inputs)."""
    lower, upper = (np.asarray(end, float) for end in (inputs.lower, inputs.upper))
    return model.delta(lower + (upper - lower) * qmc.Sobol(len(lower), rng=0).random(2**12))


def slabs(gradients: jax.Array, inputs: Interval) -> tuple[jax.Array, Interval, Interval]:
    """Axes A, a box of s = (t, u), and a slack e: each x of the box is A s + e for some of them.

        x = w t / w'w + (I - w w' / w'w) u,    u in the box

    gradients: (n_points, n_inputs). With u = x and t = w'x, A s is x but for the rounding of A, whose entries are at
    most 1 in magnitude, each with an error of a few roundings. All in double precision.
    """
    lower, upper = (np.asarray(end, float) for end in (inputs.lower, inputs.upper))
    w = np.asarray(principal_directions(gradients, 1))[0]
    n, rounding = len(w), np.finfo(float).eps * max(abs(lower).max(), abs(upper).max())
    axes = np.column_stack([w / (w @ w), np.eye(n) - np.outer(w, w) / (w @ w)])
    ends = np.sort([w * lower, w * upper], axis=0).sum(axis=1) + 4 * n**1.5 * rounding * np.array([-1, 1])
    slack = np.full(n, 4 * n * (n + 4) * rounding)
    slab = (np.append(end, edge) for end, edge in zip(ends, (lower, upper), strict=True))
    return jnp.asarray(axes), box(*slab), box(-slack, slack)
