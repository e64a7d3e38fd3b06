"""Standard normal points, pseudo-random or quasi-random, that a compiled program can draw afresh."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from sobolev_utils.arrays import as_count

__all__ = ["POINTS", "normal_points"]

POINTS = ("sobol", "pseudo_random")


def normal_points(key: jax.Array, n: int, dimension: int, points: str = "sobol") -> jax.Array:
    """n standard normal points of shape (n, dimension), pseudo-random or from a digitally shifted Sobol sequence.

    The Sobol points (Joe & Kuo's direction numbers) get a random digital shift, an exclusive-or of all of them with
    the same random bits drawn from `key`, which makes each point uniform and keeps the net's balance (L'Ecuyer &
    Lemieux 2002); so they can be drawn afresh within a compiled program. The points of one key depend on each other,
    those of two keys do not. Raises ValueError for an unknown kind or a count below 1.
    """
    if points not in POINTS:
        raise ValueError(f"unknown kind of points {points!r}, expected one of {POINTS}")
    n, dimension = as_count(n, name="the number of points"), as_count(dimension, name="the dimension")
    if points == "pseudo_random":
        return jax.random.normal(key, (n, dimension))
    sobol = qmc.Sobol(dimension, scramble=False, bits=32).random_base2((n - 1).bit_length())[:n]
    net = jnp.asarray((sobol * 2.0**32).astype(np.uint32)) ^ jax.random.bits(key, (dimension,), jnp.uint32)
    dtype = jnp.zeros(()).dtype
    # 23 bits and a half: the largest uniform is 1 - 2^-24, so that the normal quantile is finite in float32
    uniform = ((net >> 9).astype(dtype) + 0.5) * 2**-23
    return jax.scipy.special.ndtri(uniform)
