"""Significance on sub-boxes: enclosures over small boxes overestimate less, and their union encloses the whole.

Splitting a box in two shrinks the overestimation in proportion to the width (interval arithmetic) or its square
(affine arithmetic). Split are the sub-boxes whose enclosures go furthest beyond the reached ranges, along the input
of largest significance there.
"""

import jax
import jax.numpy as jnp

from sobolev_utils.enclosures.branch_and_bound import enclose_subdivided
from sobolev_utils.enclosures.intervals import Interval
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.pruning.significance import METHODS, Significance, checked, expect, from_rows, nodes_along

__all__ = ["analyse_subdivided"]


def analyse_subdivided(
    model: Surrogate,
    box: Interval,
    reached: Significance,
    *,
    method: str = "intervals",
    axes: jax.Array | None = None,
    tolerance: float = 0.05,
    boxes: int = 2**15,
    seconds: float = float("inf"),
    batch: int = 1024,
) -> Significance:
    """The union of the analyses of sub-boxes, chosen step by step; as rigorous as `analyse` of one box.

    A step splits the batch / 2 sub-boxes of largest excess: the mean over all nodes of how far the enclosures of
    value and |adjoint| go beyond (1 + tolerance) times what is `reached` (`attained.inside`). It ends when no
    sub-box has any, at `boxes` sub-boxes, or after `seconds`, with compilation left out; a time makes the result
    depend on the machine. Raises ValueError as `analyse` does, and for what is not `reached` from inside.
    """
    box = checked(model, box, method, axes)
    expect(reached, ("inside",), "what is reached")
    program = nodes_along(model, axes)
    inner = _rows(reached.values, reached.adjoints)
    size, n_values = inner.lower.size, sum(value.lower.size for value in reached.values)

    def examine(x, parent):
        y = _rows(*METHODS[method](program)(x)).intersection(parent)  # what encloses the whole encloses its parts
        values = jnp.maximum(inner.lower - y.lower, 0) + jnp.maximum(y.upper - inner.upper, 0)
        adjoints = jnp.maximum(y.magnitude - inner.magnitude, 0)
        is_value = jnp.arange(size) < n_values
        excess, scale = jnp.where(is_value, values, adjoints), jnp.where(is_value, inner.width, inner.magnitude)
        excess = jnp.where(scale > 0, excess / scale, 0)
        adjoint = y.magnitude[n_values:][: model.n_inputs]
        adjoint = adjoint if axes is None else adjoint @ jnp.abs(jnp.asarray(axes))
        return y, jnp.maximum(excess - tolerance, 0).mean(), jnp.argmax(x.width * adjoint)

    union = enclose_subdivided(examine, box, size, boxes=boxes, seconds=seconds, batch=batch)
    return from_rows(union, program, box.lower, "subdivided")


def _rows(values, adjoints):
    """All values, then all adjoints, one after the other."""
    return jax.tree.map(lambda *ends: jnp.concatenate([end.ravel() for end in ends]), *values, *adjoints)
