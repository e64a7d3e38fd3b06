"""Significance on sub-boxes: enclosures over small boxes are tight, and their union encloses the whole.

Splitting a box in two shrinks the overestimation in proportion to the width (interval arithmetic) or its square
(affine arithmetic), so effort goes where it counts: to the sub-boxes that are widest of what is reached from inside,
split along the input of largest significance there.
"""

import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from sobolev_utils.intervals import Interval
from sobolev_utils.network import Surrogate
from sobolev_utils.significance import METHODS, Significance, checked, expect, nodes_along, unflatten

__all__ = ["analyse_subdivided", "enclose_subdivided"]


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
    value and |adjoint| go beyond (1 + tolerance) times what is `reached` (`significance.inside`). It ends when no
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


def enclose_subdivided(
    examine: Callable, box: Interval, size: int, *, boxes: int, seconds: float = float("inf"), batch: int
) -> Interval:
    """The union over sub-boxes of enclosures, rows (size,).

    `examine(x, parent)` returns an enclosure over x within that of the parent, its excess, and the axis along which x
    is to be split. A step splits the batch / 2 sub-boxes of largest excess; none is split without.
    """
    if boxes < 1 or batch < 2:
        raise ValueError(f"need at least 1 sub-box and a batch of 2, got {boxes} and {batch}")
    search = Search(examine, box, size, boxes, batch)
    end = time.monotonic() + seconds
    with tqdm(total=boxes, desc="sub-boxes", unit="box", file=sys.stdout, mininterval=0.5, ncols=80) as bar:
        bar.update(1)
        while search.n < boxes and time.monotonic() < end and (new := search.split()):
            bar.update(new)
    return Interval(jnp.asarray(search.low[: search.n].min(axis=0)), jnp.asarray(search.high[: search.n].max(axis=0)))


class Search:
    """Sub-boxes, their enclosures, excess and axis; the first n rows of each array are in use."""

    def __init__(self, examine, box, size, boxes, batch):
        self.examine = jax.jit(jax.vmap(jax.vmap(examine), (0, None)))
        self.half, self.n = batch // 2, 1
        self.lower, self.upper = (np.tile(np.asarray(end), (boxes, 1)) for end in (box.lower, box.upper))
        self.low, self.high = (np.empty((boxes, size), box.dtype) for _ in range(2))
        self.low[0], self.high[0] = -np.inf, np.inf
        self.excess, self.axis = np.zeros(boxes), np.zeros(boxes, int)
        whole = np.zeros((2, self.half), int)
        self._examine(whole, self.lower[whole], self.upper[whole])

    def split(self):
        """Split the worst sub-boxes; return how many more there are, 0 where none is in excess."""
        count = min(self.half, self.n, len(self.excess) - self.n)
        worst = np.argpartition(-self.excess[: self.n], count - 1)[:count]
        worst = worst[self.excess[worst] > 0]
        if not len(worst):
            return 0
        # filled up with copies, for one compiled shape
        rows = np.minimum(np.arange(self.half), len(worst) - 1)
        places = np.stack([worst[rows], self.n + rows])
        lower, upper = (np.stack([end[places[0]]] * 2) for end in (self.lower, self.upper))
        axis, row = self.axis[places[0]], np.arange(self.half)
        upper[0, row, axis] = lower[1, row, axis] = 0.5 * lower[0, row, axis] + 0.5 * upper[0, row, axis]
        self._examine(places, lower, upper)
        self.n += len(worst)
        return len(worst)

    def _examine(self, places, lower, upper):
        """Examine sub-boxes, each within the enclosure of the sub-box at its first place, and keep what comes out."""
        parents = Interval(*(jnp.asarray(end[places[0]]) for end in (self.low, self.high)))
        y, excess, axis = self.examine(Interval(jnp.asarray(lower), jnp.asarray(upper)), parents)
        self.lower[places], self.upper[places] = lower, upper
        self.low[places], self.high[places] = y.lower, y.upper
        self.excess[places], self.axis[places] = excess, axis


def _rows(values, adjoints):
    """All values, then all adjoints, one after the other."""
    ends = zip(*((x.lower.ravel(), x.upper.ravel()) for x in (*values, *adjoints)), strict=True)
    return Interval(*map(jnp.concatenate, ends))
