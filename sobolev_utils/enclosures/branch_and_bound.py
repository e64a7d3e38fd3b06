"""Enclosures over a box by the union of enclosures over sub-boxes, split where their excess is largest."""

import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from sobolev_utils.enclosures.intervals import Interval

__all__ = ["Search", "enclose_subdivided"]


def enclose_subdivided(
    examine: Callable, box: Interval, size: int, *, boxes: int, seconds: float = float("inf"), batch: int
) -> Interval:
    """The union over sub-boxes of enclosures, rows (size,).

    `examine(x, parent)` returns an enclosure over x within that of the parent, its excess (a measure of how much too
    wide it is), and the axis along which x is to be split. A step splits the batch / 2 sub-boxes of largest positive
    excess.
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
        """Examine sub-boxes, each within the enclosure of the one at its first place, and keep the results."""
        parents = Interval(*(jnp.asarray(end[places[0]]) for end in (self.low, self.high)))
        y, excess, axis = self.examine(Interval(jnp.asarray(lower), jnp.asarray(upper)), parents)
        self.lower[places], self.upper[places] = lower, upper
        self.low[places], self.high[places] = y.lower, y.upper
        self.excess[places], self.axis[places] = excess, axis
