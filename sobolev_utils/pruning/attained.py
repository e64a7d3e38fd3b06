"""Ranges of values and adjoints that points attain: true ranges lie between these and the enclosures."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.stats import qmc, spearmanr

from sobolev_utils.enclosures.intervals import Interval
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.pruning.significance import METHODS, Significance, checked, expect, from_rows, nodes_along

__all__ = ["extremes", "inside", "largest", "tightness"]


def inside(
    model: Surrogate, box: Interval, *, axes: jax.Array | None = None, samples: int = 2**14, rounds: int = 10
) -> Significance:
    """Ranges of all values and adjoints that points of the box attain, by Sobol points, corners (to 12 inputs) and a
    local search.

    The search looks for the minimum and maximum of every value and adjoint, each from its best point so far: `rounds`
    of Gaussian steps, from a tenth of the box down to a ten-thousandth. Every point counts for all nodes. Raises
    ValueError as `analyse` does.
    """
    box = checked(model, box, "intervals", axes)
    program = nodes_along(model, axes)
    rows = extremes(lambda x: ravel_pytree(program(x))[0], box, samples=samples, rounds=rounds)
    return from_rows(rows, program, box.lower, "inside")


def extremes(f: Callable, box: Interval, *, samples: int = 2**14, rounds: int = 10) -> Interval:
    """The ranges of f, (n,) -> (m,), that points of the box attain; see `inside`."""

    def both(x):
        y = f(x)
        return jnp.concatenate([y, -y])

    upper, lower = jnp.split(largest(both, box, samples=samples, rounds=rounds)[0], 2)
    return Interval(-lower, upper)


def largest(f: Callable, box: Interval, *, samples: int = 2**14, rounds: int = 10) -> tuple[jax.Array, jax.Array]:
    """The largest values (m,) of f, (n,) -> (m,), that are found in the box, and where, (m, n); see `inside`.

    Where a value is not a number at a point of the search, it is what is returned.
    """
    n, width = box.shape[0], box.upper - box.lower
    unit = qmc.Sobol(n, rng=0).random(samples)
    if n <= 12:
        unit = np.concatenate([unit, (np.arange(2**n)[:, None] >> np.arange(n)) & 1])

    def best_of(x):
        y = jax.vmap(f)(x)
        return y.max(axis=0), x[y.argmax(axis=0)]

    def step(best, size_and_key):
        (values, points), (size, key) = best, size_and_key
        moved = points + size * width * jax.random.normal(key, points.shape, points.dtype)
        new, where = best_of(jnp.clip(moved, box.lower, box.upper))
        return (jnp.maximum(values, new), jnp.where((new <= values)[:, None], points, where)), None

    @jax.jit
    def search(x, key):
        sizes = jnp.geomspace(0.1, 1e-4, rounds, dtype=x.dtype)
        return jax.lax.scan(step, best_of(x), (sizes, jax.random.split(key, rounds)))[0]

    x = jnp.clip(box.lower + jnp.asarray(unit, box.dtype) * width, box.lower, box.upper)
    return search(x, jax.random.key(0))


def tightness(analysis: Significance, reached: Significance) -> list[dict]:
    """How much wider an analysis is than the ranges of `inside`, `reached`: a row by hidden layer and of the output.

    value_ratio: width of a node's enclosure over that of its reached range; adjoint_ratio: enclosed over reached
    max |adjoint|; rank_correlation: Spearman's, of the two significances. The ratios bound the overestimation from
    above. Raises ValueError where the two are exchanged.
    """
    expect(analysis, (*METHODS, "subdivided"), "the analysis")
    expect(reached, ("inside",), "what is reached")
    rows = []
    for layer in range(1, len(analysis.values)):
        values = _ratio(analysis.values[layer].width, reached.values[layer].width)
        adjoints = _ratio(analysis.adjoints[layer].magnitude, reached.adjoints[layer].magnitude)
        outer, inner = (np.ravel(each.by_layer[layer]) for each in (analysis, reached))
        rows.append(
            {
                "layer": str(layer) if layer < len(analysis.values) - 1 else "output",
                "value_ratio_median": np.median(values),
                "value_ratio_max": values.max(),
                "adjoint_ratio_median": np.median(adjoints),
                "rank_correlation": spearmanr(outer, inner).statistic if outer.size > 1 else np.nan,
            }
        )
    return rows


def _ratio(enclosed: jax.Array, reached: jax.Array) -> np.ndarray:
    """Elementwise quotient; 1 where nothing but 0 is reached, as for a constant node."""
    enclosed, reached = np.ravel(enclosed), np.ravel(reached)
    return np.divide(enclosed, reached, out=np.ones_like(reached), where=reached > 0)
