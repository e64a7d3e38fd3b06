"""Every rule against ball arithmetic: no point of a box may have its exact image outside, whatever XLA rounds."""

from typing import NamedTuple

import jax
import numpy as np
from flint import ctx
from oracles import exact, numbers, random_box

from sobolev_utils.enclosures.intervals import Interval

__all__ = ["Tally", "leaves", "verify"]

SINGLY = 64  # boxes, by NumPy


class Tally(NamedTuple):
    """How many images of points were compared with the enclosures of their boxes, and how many lie outside.

    noticed: how many would, if the enclosures were a little too narrow. first: the first that lies outside.
    """

    compared: int = 0
    outside: int = 0
    noticed: int = 0
    first: str = ""

    def __add__(self, other):
        return Tally(*(a + b for a, b in zip(self[:3], other[:3], strict=True)), self.first or other.first)

    def __str__(self):
        line = f"{self.compared:>12,} compared {self.outside:>8,} outside {self.noticed:>12,} noticed if too narrow"
        return f"{line}\n    {self.first}" if self.outside else line

    @property
    def passes(self):
        """Nothing is outside, and a narrower enclosure would have failed."""
        return self.outside == 0 < self.noticed


def verify(case, method, dtype, seed, n):
    """The images of points of n random boxes against their enclosures by `method`, in one call by XLA, and of the
    first boxes by NumPy too.

    What is compared lies certainly inside or certainly outside. Points outside of the domain are left out, and so
    are images that the ball does not decide; a bound that is not a number counts as an image outside.
    """
    rng = np.random.default_rng(seed)
    n_boxes = len(case.shapes) - case.constants
    boxes, points = zip(*(random_box(rng, dtype, (n, *s), case.around) for s in case.shapes[:n_boxes]), strict=True)
    # the ends of one box meet both ends of the next
    points = [np.concatenate([np.roll(p[:2], k, axis=0), p[2:]]) for k, p in enumerate(points)]
    # some constants are ends of boxes
    constants = [numbers(rng, dtype, (n, *shape)) for shape in case.shapes[n_boxes:]]
    constants = [
        np.where(rng.uniform(size=n) < 0.3, boxes[0].lower, c) if c.shape == boxes[0].shape == (n,) else c
        for c in constants
    ]
    enclosures = leaves(jax.jit(jax.vmap(method(case.f)))(*boxes, *constants))
    singly = zip(*(leaves(_nth(method(case.f), i, (*boxes, *constants))) for i in range(min(n, SINGLY))), strict=True)
    enclosures = [_within(y, ys) for y, ys in zip(enclosures, singly, strict=True)]
    default, ctx.prec = ctx.prec, case.bits
    try:
        images = case.oracle(*map(exact, points), *(exact(c)[None] for c in constants))
        images = images if isinstance(images, tuple) else (images,)
        arguments = [*points, *(np.broadcast_to(c, (len(points[0]), *c.shape)) for c in constants)]
        tallies = [_tally(*pair, case.steps, arguments) for pair in zip(images, enclosures, strict=True)]
    finally:
        ctx.prec = default
    return sum(tallies, Tally())


def _nth(f, i, arguments):
    return f(*(jax.tree.map(lambda x: x[i], argument) for argument in arguments))


def _within(y, ys):
    """Enclosures y of n boxes, of the first ones within others of theirs: what is outside of either is outside."""
    if not isinstance(y, Interval):
        return y
    lower, upper = (np.array(end) for end in (y.lower, y.upper))
    with np.errstate(invalid="ignore"):
        lower[: len(ys)] = np.maximum(lower[: len(ys)], [x.lower for x in ys])
        upper[: len(ys)] = np.minimum(upper[: len(ys)], [x.upper for x in ys])
    return Interval(lower, upper)


def leaves(enclosures):
    return jax.tree.leaves(enclosures, is_leaf=lambda x: isinstance(x, Interval))


def _tally(image, enclosure, steps, arguments):
    lower, upper = (enclosure.lower, enclosure.upper) if isinstance(enclosure, Interval) else (enclosure, enclosure)
    lower, upper = np.asarray(lower), np.asarray(upper)
    bounds = (np.broadcast_to(bound, image.shape) for bound in (lower, upper, *_inward(lower, upper, steps)))
    rows = zip(image.flat, *(bound.astype(float).ravel().tolist() for bound in bounds), strict=True)
    compared = outside = noticed = 0
    first = ""
    for i, (y, low, high, lower_in, upper_in) in enumerate(rows):
        out = y < low or y > high or not low <= high
        if out or (y >= low and y <= high and y.is_finite()):
            compared += 1
            noticed += y < lower_in or y > upper_in
        if out:
            outside += 1
            k, n = np.unravel_index(i, image.shape)[:2]
            point, ends = ([x[place].tolist() for x in arguments] for place in ((k, n), (slice(2), n)))
            first = first or f"{point} between {ends} has the image {y.str(20)}, outside of [{low!r}, {high!r}]"
    return Tally(compared, outside, noticed, first)


def _inward(lower, upper, steps):
    """Ends that are `steps` floats further inside; of a comparison or an integer, one that is decided."""
    if lower.dtype.kind != "f":
        return lower, lower
    with np.errstate(invalid="ignore", over="ignore"):
        moved = lower + steps * np.spacing(abs(lower)), upper - steps * np.spacing(abs(upper))
    return [np.where(np.isfinite(m), m, end) for m, end in zip(moved, (lower, upper), strict=True)]
