"""Significance from inside: the ranges of values and adjoints as far as points and a local search attain them.

The truth lies between these and the enclosures of `significance`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc, spearmanr

from sobolev_utils.enclosures.intervals import Interval
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.pruning.significance import METHODS, Significance, checked, expect, nodes_along, unflatten

__all__ = ["extremes", "inside", "tightness"]


def inside(
    model: Surrogate,
    box: Interval,
    *,
    axes: jax.Array | None = None,
    samples: int = 2**14,
    rounds: int = 10,
    seed: int = 0,
) -> Significance:
    """The same from inside: ranges found by Sobol points, corners (to 12 inputs), and a local search.

    The search looks for the minimum and maximum of every value and adjoint, each from its best point so far: `rounds`
    of Gaussian steps, from a tenth of the box down to a ten-thousandth. Every point counts for all nodes.
    """
    box = checked(model, box, "intervals", axes)
    program = nodes_along(model, axes)

    def flat(x):
        return jnp.concatenate([v.ravel() for v in jax.tree.leaves(program(x))])

    shapes = jax.eval_shape(program, box.lower)
    return Significance(*unflatten(extremes(flat, box, samples=samples, rounds=rounds, seed=seed), shapes), "inside")


def extremes(f: Callable, box: Interval, *, samples: int = 2**14, rounds: int = 10, seed: int = 0) -> Interval:
    """The ranges of f, (n,) -> (m,), over a box as far as they are found from inside; see `inside`."""
    n = box.shape[0]
    unit = qmc.Sobol(n, rng=seed).random(samples)
    if n <= 12:
        unit = np.concatenate([unit, (np.arange(2**n)[:, None] >> np.arange(n)) & 1])
    x = jnp.clip(box.lower + jnp.asarray(unit, box.dtype) * (box.upper - box.lower), box.lower, box.upper)

    def both(x):
        y = jax.vmap(f)(x)
        return jnp.concatenate([y, -y], axis=1)

    @jax.jit
    def search(x, key):
        reached = both(x)
        best = reached.max(axis=0), x[reached.argmax(axis=0)]

        def step(best, step):
            values, points = best
            size, key = step
            moved = points + size * (box.upper - box.lower) * jax.random.normal(key, points.shape, points.dtype)
            moved = jnp.clip(moved, box.lower, box.upper)
            reached = both(moved)
            better = reached.max(axis=0) > values
            values = jnp.maximum(values, reached.max(axis=0))
            return (values, jnp.where(better[:, None], moved[reached.argmax(axis=0)], points)), None

        sizes = jnp.geomspace(0.1, 1e-4, rounds, dtype=x.dtype)
        return jax.lax.scan(step, best, (sizes, jax.random.split(key, rounds)))[0][0]

    upper, lower = jnp.split(search(x, jax.random.key(seed)), 2)
    return Interval(-lower, upper)


def tightness(analysis: Significance, reached: Significance) -> list[dict]:
    """How far an analysis is from what is `reached` from inside: a row for each hidden layer and for the output.

    value_ratio is the width of a node's enclosure over that of its reached range, with median and maximum over the
    layer; adjoint_ratio the enclosed over the reached max |adjoint|; rank_correlation Spearman's, of the two
    significances. The truth lies between, so the ratios bound the overestimation from above. Raises ValueError where
    the two are exchanged.
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
    """Elementwise quotient; 1 for a node that never moves or is never heard."""
    enclosed, reached = np.ravel(enclosed), np.ravel(reached)
    return np.divide(enclosed, reached, out=np.ones_like(reached), where=reached > 0)
