"""Interval adjoint significance analysis: which nodes of a surrogate matter over a whole set of inputs.

The set is a box, or a box in other axes, x = A t with t in the box (the data's principal axes, for one). Analyses
enclose values and adjoints from outside; `inside` finds what is reached, from within.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc, spearmanr

from sobolev_utils import intervals, zonotopes
from sobolev_utils.arrays import as_floats
from sobolev_utils.intervals import Interval
from sobolev_utils.network import Surrogate

__all__ = [
    "METHODS",
    "Significance",
    "analyse",
    "expect",
    "extremes",
    "inside",
    "nodes_along",
    "tightness",
    "values_and_adjoints",
]

METHODS = {
    "operations": partial(intervals.enclose, exact_ranges=False),
    "intervals": intervals.enclose,
    "zonotopes": zonotopes.enclose,
}


@dataclass(frozen=True)
class Significance:
    """Enclosures of the values [n] and the adjoints of all nodes over a box, layer by layer.

    Both lists run from the inputs over the hidden layers to the output; each entry has shape (width,), that of the
    output (). `method` says what was found, and so what it proves: enclosures of one box by one of METHODS, their
    union over sub-boxes ("subdivided"), or what is reached from inside ("inside"); None, not known, proves nothing.
    """

    values: list[Interval]
    adjoints: list[Interval]
    method: str | None = None

    @property
    def by_layer(self) -> list[jax.Array]:
        """S_[y]([n]_{l,i}) = width([n]_{l,i}) * max |adjoint of [n]_{l,i}|, for each layer l an array (width,).

        To first order it bounds how far the output moves when the node is held at a constant within its range, in
        units of the output (Afghan & Naumann, ICCS 2020; Kichler et al. 2024).
        """
        pairs = [(value.width, adjoint.magnitude) for value, adjoint in zip(self.values, self.adjoints, strict=True)]
        # a node that never moves, or is never heard, has none, however little is known of its other side
        return [jnp.where((width == 0) | (slope == 0), 0, width * slope) for width, slope in pairs]

    @property
    def hidden(self) -> list[jax.Array]:
        """The significances of the hidden layers alone."""
        return self.by_layer[1:-1]


def values_and_adjoints(model: Surrogate, x: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
    """Values of all nodes at x (n_inputs,) and the derivatives of the output in them, by one `jax.vjp`."""
    x = as_floats(x, name="inputs")

    def output(x, offsets):
        nodes = model.nodes(x, lambda layer, values: values + offsets[layer - 1])
        return nodes[-1], nodes

    offsets = [jnp.zeros(width, x.dtype) for width in model.widths]
    y, pullback, nodes = jax.vjp(output, x, offsets, has_aux=True)
    x_bar, offsets_bar = pullback(jnp.ones_like(y))
    return nodes, [x_bar, *offsets_bar, jnp.ones_like(y)]


def nodes_along(model: Surrogate, axes: jax.Array | None = None) -> Callable:
    """`values_and_adjoints` as a function of t, x = A t for axes A (n_inputs, n_t); of x itself for None."""
    if axes is None:
        return lambda x: values_and_adjoints(model, x)
    axes = as_floats(axes, name="axes")
    if axes.ndim != 2 or axes.shape[0] != model.n_inputs:
        raise ValueError(f"axes must have shape ({model.n_inputs}, n), a column for each axis, got {axes.shape}")
    return lambda t: values_and_adjoints(model, axes.astype(t.dtype) @ t)


def analyse(
    model: Surrogate, box: Interval, *, method: str = "intervals", axes: jax.Array | None = None
) -> Significance:
    """Enclosures of the values and adjoints of every node over the box of inputs, (n_inputs,).

    AD as usual, then in interval arithmetic every operation of the adjoint program ("operations", as in the paper) or
    every function of one variable at once ("intervals"), or the same in affine arithmetic ("zonotopes"): enclosures
    of `values_and_adjoints`, as rigorous as those of `intervals.enclose`. With `axes`,
    (n_inputs, n), the set is {A t: t in box}. Raises ValueError for a box of another shape or an unknown method.
    """
    box = checked(model, box, method, axes)
    return Significance(*jax.jit(METHODS[method](nodes_along(model, axes)))(box), method)


def expect(significance: Significance, methods: Sequence[str], what: str) -> None:
    """Raise ValueError unless a significance was found by one of these methods."""
    if significance.method not in methods:
        raise ValueError(f"{what} must be found by {' or '.join(methods)}, got one found by {significance.method}")


def checked(model: Surrogate, box: Interval, method: str, axes: jax.Array | None) -> Interval:
    """The box in JAX's types. Raises ValueError unless an analysis can be made of this: a finite box with an interval
    for each input, and a surrogate of finite numbers.
    """
    if not isinstance(box, Interval):
        raise ValueError(f"expected an Interval of inputs, made by box(lower, upper), got {type(box).__name__}")
    for name, array in model.arrays().items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            place = tuple(map(int, np.argwhere(~np.isfinite(array))[0]))
            raise ValueError(f"expected a surrogate of finite numbers, got {name}{list(place)} = {array[place]}")
    n = model.n_inputs if axes is None else np.shape(axes)[-1]
    if box.shape != (n,):
        raise ValueError(f"the box must have shape {(n,)}, one interval per input, got {box.shape}")
    box = intervals.box(box.lower, box.upper)
    if model.n_outputs != 1:
        raise ValueError(f"a significance is for one output, got a surrogate with {model.n_outputs}")
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}, expected one of {sorted(METHODS)}")
    return box


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


def unflatten(flat: Interval, shapes):
    """Arrays of these shapes, one after the other along the last axis of an interval."""
    leaves, tree = jax.tree.flatten(shapes)
    places = np.cumsum([0, *(leaf.size for leaf in leaves)])
    parts = [
        Interval(
            *(end[..., i : i + leaf.size].reshape(*end.shape[:-1], *leaf.shape) for end in (flat.lower, flat.upper))
        )
        for i, leaf in zip(places, leaves, strict=False)
    ]
    return jax.tree.unflatten(tree, parts)


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
