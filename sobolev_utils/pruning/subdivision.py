"""Significance on sub-boxes: enclosures over small boxes are tight, and their union encloses the whole.

Splitting a box in two shrinks the overestimation in proportion to the width (interval arithmetic) or its square
(affine arithmetic), so effort goes where it counts: to the sub-boxes that are widest of what is reached from inside,
split along the input of largest significance there.
"""

import jax
import jax.numpy as jnp

from sobolev_utils.enclosures.branch_and_bound import enclose_subdivided
from sobolev_utils.enclosures.intervals import Interval
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.pruning.significance import METHODS, Significance, checked, expect, nodes_along, unflatten

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
    shapes = jax.eval_shape(program, box.lower)
    n_values, size = (sum(v.size for v in jax.tree.leaves(part)) for part in (shapes[0], shapes))
    inner = _rows(reached.values, reached.adjoints)

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
    return Significance(*unflatten(union, shapes), "subdivided")


def _rows(values, adjoints):
    """All values, then all adjoints, one after the other."""
    ends = zip(*((x.lower.ravel(), x.upper.ravel()) for x in (*values, *adjoints)), strict=True)
    return Interval(*map(jnp.concatenate, ends))
