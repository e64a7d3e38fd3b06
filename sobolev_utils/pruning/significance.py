"""Interval adjoint significance analysis: which nodes of a surrogate matter over a whole set of inputs.

The set is a box, or a box in other axes, x = A t with t in the box (the data's principal axes, for one). Analyses
enclose values and adjoints from outside; `attained` finds from inside how far they really go.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from sobolev_utils.arrays import as_floats
from sobolev_utils.enclosures import intervals, zonotopes
from sobolev_utils.enclosures.intervals import Interval
from sobolev_utils.learning.surrogate import Surrogate

__all__ = ["METHODS", "Significance", "analyse", "checked", "expect", "nodes_along", "values_and_adjoints"]

METHODS = {
    "operations": partial(intervals.enclose, exact_ranges=False),
    "intervals": intervals.enclose,
    "zonotopes": zonotopes.enclose,
}


@dataclass(frozen=True)
class Significance:
    """Enclosures of the values [n] and the adjoints of all nodes over a box, layer by layer.

    Both lists run from the inputs over the hidden layers to the output; each entry has shape (width,), that of the
    output (). method: enclosures of one box by one of METHODS, their union over sub-boxes ("subdivided"), ranges
    that points attain ("inside"), or unknown (None), which proves nothing.
    """

    values: list[Interval]
    adjoints: list[Interval]
    method: str | None = None

    @property
    def by_layer(self) -> list[jax.Array]:
        """S_[y]([n]_{l,i}) = width([n]_{l,i}) * max |adjoint of [n]_{l,i}|, for each layer l an array (width,).

        In units of the output (Afghan & Naumann, ICCS 2020; Kichler et al. 2024). For one box, by "operations" or
        "intervals", it bounds how far the output moves when this node alone is held at a constant within its
        interval (see `removal_bounds`); on sub-boxes or by zonotopes it estimates that.
        """
        pairs = [(value.width, adjoint.magnitude) for value, adjoint in zip(self.values, self.adjoints, strict=True)]
        # 0 for a constant node, or one without influence, even where the other factor is infinite
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

    The program `values_and_adjoints`, in interval arithmetic operation by operation ("operations", as in the paper),
    with each function of one variable enclosed as a whole ("intervals"), or in affine arithmetic ("zonotopes"); as
    rigorous as `intervals.enclose`. With `axes`, (n_inputs, n), the set is {A t: t in box}. Raises ValueError as
    `checked` does.
    """
    box = checked(model, box, method, axes)
    return Significance(*METHODS[method](nodes_along(model, axes))(box), method)


def expect(significance: Significance, methods: Sequence[str], what: str) -> None:
    """Raise ValueError unless a significance was found by one of these methods."""
    if significance.method not in methods:
        raise ValueError(f"{what} must be found by {' or '.join(methods)}, got one found by {significance.method}")


def checked(model: Surrogate, box: Interval, method: str, axes: jax.Array | None) -> Interval:
    """The box in JAX's types. Raises ValueError unless it is finite and has an interval for each input, the surrogate
    is of finite numbers with one output, and the method is known.
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


def from_rows(rows: Interval, program: Callable, x: jax.Array, method: str) -> Significance:
    """The significance of values and adjoints that are laid out in `rows` as `ravel_pytree` lays out program(x)."""
    _, unravel = ravel_pytree(jax.tree.map(jnp.zeros_like, jax.eval_shape(program, x)))
    return Significance(*jax.tree.map(Interval, unravel(rows.lower), unravel(rows.upper)), method)
