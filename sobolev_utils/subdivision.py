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
from sobolev_utils.significance import METHODS, Significance, checked, nodes_along, unflatten

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
    depend on the machine. Raises ValueError as `analyse` does.
    """
    checked(model, box, method, axes)
    program = nodes_along(model, axes)
    shapes = jax.eval_shape(program, box.lower)
    n_values, size = (sum(v.size for v in jax.tree.leaves(part)) for part in (shapes[0], shapes))
    inner = _rows(reached.values, reached.adjoints)

    def examine(x, parent):
        y = _within(_rows(*METHODS[method](program)(x)), parent)
        values = jnp.maximum(inner.lower - y.lower, 0) + jnp.maximum(y.upper - inner.upper, 0)
        adjoints = jnp.maximum(y.magnitude - inner.magnitude, 0)
        is_value = jnp.arange(size) < n_values
        excess, scale = jnp.where(is_value, values, adjoints), jnp.where(is_value, inner.width, inner.magnitude)
        excess = jnp.where(scale > 0, excess / scale, 0)
        adjoint = y.magnitude[n_values:][: model.n_inputs]
        adjoint = adjoint if axes is None else adjoint @ jnp.abs(jnp.asarray(axes))
        return y, jnp.maximum(excess - tolerance, 0).mean(), jnp.argmax(x.width * adjoint)

    union = enclose_subdivided(examine, box, size, boxes=boxes, seconds=seconds, batch=batch)
    return Significance(*unflatten(union, shapes))


def enclose_subdivided(
    examine: Callable, box: Interval, size: int, *, boxes: int, seconds: float = float("inf"), batch: int
) -> Interval:
    """The union over sub-boxes of enclosures, rows (size,).

    `examine(x, parent)` returns an enclosure over x within that of the parent, its excess, and the axis along which x
    is to be split. A step splits the batch / 2 sub-boxes of largest excess; none is split without.
    """
    if boxes < 1 or batch < 2:
        raise ValueError(f"need at least 1 sub-box and a batch of 2, got {boxes} and {batch}")
    search = _Search(examine, box, size, boxes, batch)
    end = time.monotonic() + seconds
    with tqdm(total=boxes, desc="sub-boxes", unit="box", file=sys.stdout, mininterval=0.5, ncols=80) as bar:
        bar.update(1)
        while search.n < boxes and time.monotonic() < end and (new := search.split()):
            bar.update(new)
    return Interval(jnp.asarray(search.low[: search.n].min(axis=0)), jnp.asarray(search.high[: search.n].max(axis=0)))


class _Search:
    """Sub-boxes, their enclosures, excess and axis; the first n rows of each array are in use."""

    def __init__(self, examine, box, size, boxes, batch):
        self.examine = jax.jit(jax.vmap(examine))
        self.batch, self.n = batch, 1
        self.lower, self.upper = (np.empty((boxes, *box.shape), box.dtype) for _ in range(2))
        self.low, self.high = (np.empty((boxes, size), box.dtype) for _ in range(2))
        self.excess, self.axis = np.zeros(boxes), np.zeros(boxes, int)
        whole = np.asarray(box.lower)[None], np.asarray(box.upper)[None]
        self._put([0], *whole, *(np.full((1, size), end, box.dtype) for end in (-np.inf, np.inf)))

    def split(self):
        """Split the worst sub-boxes; return how many more there are, 0 where none is in excess."""
        count = min(self.batch // 2, self.n, len(self.excess) - self.n)
        worst = np.argpartition(-self.excess[: self.n], count - 1)[:count]
        worst = worst[self.excess[worst] > 0]
        axis, rows = self.axis[worst], np.arange(len(worst))
        middle = 0.5 * self.lower[worst, axis] + 0.5 * self.upper[worst, axis]
        ends = [np.tile(end[worst], (2, 1)) for end in (self.lower, self.upper)]
        ends[1][rows, axis] = ends[0][rows + len(rows), axis] = middle
        new = self.n + rows
        self._put(
            np.concatenate([worst, new]), *ends, *(np.tile(end[worst], (2, 1)) for end in (self.low, self.high))
        )
        self.n += len(rows)
        return len(rows)

    def _put(self, places, lower, upper, low, high):
        """Examine sub-boxes and keep what comes out; the batch is filled up with copies, for one compiled shape."""
        if len(places):
            filling = ((0, self.batch - len(places)), (0, 0))
            ends = (jnp.asarray(np.pad(end, filling, mode="edge")) for end in (lower, upper, low, high))
            y, excess, axis = self.examine(Interval(next(ends), next(ends)), Interval(next(ends), next(ends)))
            self.lower[places], self.upper[places] = lower, upper
            for kept, new in zip(
                (self.low, self.high, self.excess, self.axis), (y.lower, y.upper, excess, axis), strict=True
            ):
                kept[places] = np.asarray(new)[: len(places)]


def _within(y, parent):
    """What encloses the whole encloses its parts."""
    return Interval(jnp.maximum(y.lower, parent.lower), jnp.minimum(y.upper, parent.upper))


def _rows(values, adjoints):
    """All values, then all adjoints, one after the other."""
    ends = zip(*((x.lower.ravel(), x.upper.ravel()) for x in (*values, *adjoints)), strict=True)
    return Interval(*map(jnp.concatenate, ends))
