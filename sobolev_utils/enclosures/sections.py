"""Bounds of a function over a box from sections of it, which can be halved where the bounds are largest.

A section is the part of a box at which w'x lies between two levels. A function that is nearly one of w'x alone varies
little on a thin one, however wide the box is. Sections cover the box; they are halved along w or along an input.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sobolev_utils.enclosures import zonotopes
from sobolev_utils.enclosures.interval import Interval, Section

__all__ = ["AT_ONCE", "Bounds", "Sections", "bounds_on", "enclose_on", "halved", "worst"]

EPS = np.finfo(float).eps
AT_ONCE = 256  # sections that are halved in a step


@dataclass(frozen=True)
class Sections:
    """Sections of a box, as arrays of NumPy: the direction w (n,), the ends (n_sections, n) of boxes that hold them,
    and two levels (n_sections, 2) of w'x.
    """

    direction: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    levels: np.ndarray

    @classmethod
    def of(cls, box: Interval, direction: np.ndarray, count: int) -> "Sections":
        """`count` sections of equal thickness that cover the box (n,)."""
        lower, upper, w = (np.asarray(x, float) for x in (box.lower, box.upper, direction))
        (least,), (most,), (slack,) = _range(w, lower[None], upper[None])
        edges = np.linspace(least - slack, most + slack, count + 1)
        lower, upper = (np.tile(end, (count, 1)) for end in (lower, upper))
        return cls(w, lower, upper, np.column_stack([edges[:-1], edges[1:]])).tightened()

    @classmethod
    def at(cls, points: np.ndarray, direction: np.ndarray) -> "Sections":
        """Sections of one point each, of points (n_sections, n)."""
        least, most, slack = _range(direction, points, points)
        return cls(direction, points, points, np.column_stack([least - slack, most + slack]))

    def __len__(self):
        return len(self.levels)

    def __getitem__(self, rows) -> "Sections":
        return Sections(self.direction, self.lower[rows], self.upper[rows], self.levels[rows])

    def joined(self, other: "Sections") -> "Sections":
        """Those of both."""
        pairs = ((self.lower, other.lower), (self.upper, other.upper), (self.levels, other.levels))
        return Sections(self.direction, *map(np.concatenate, pairs))

    @property
    def has_points(self) -> np.ndarray:
        """Which sections, once tightened, may have points."""
        return (self.lower <= self.upper).all(axis=1) & (self.levels[:, 0] <= self.levels[:, 1])

    def halved(self, axes: np.ndarray) -> "Sections":
        """Both halves of each section, along w where the axis is 0, else along that input, counted from 1."""
        rows, along = np.arange(len(self)), axes == 0
        low, high = ([x.copy() for x in (self.lower, self.upper, self.levels)] for _ in range(2))
        low[2][along, 1] = high[2][along, 0] = (0.5 * self.levels[:, 0] + 0.5 * self.levels[:, 1])[along]
        rows, inputs = rows[~along], axes[~along] - 1
        low[1][rows, inputs] = high[0][rows, inputs] = (0.5 * self.lower + 0.5 * self.upper)[rows, inputs]
        return Sections(self.direction, *map(np.concatenate, zip(low, high, strict=True))).tightened()

    def tightened(self) -> "Sections":
        """The hulls of sections in place of their boxes, and in place of their levels what w'x attains."""
        w, lower, upper, levels = self.direction, self.lower, self.upper, self.levels
        least, most, slack = (x[:, None] for x in _range(w, lower, upper))
        levels = np.column_stack([np.maximum(levels[:, :1], least - slack), np.minimum(levels[:, 1:], most + slack)])
        # w_i x_i is the level less what the other inputs add
        ends = np.sort([w * lower, w * upper], axis=0)
        ends = np.stack([levels[:, :1] - (most - ends[1]) - 2 * slack, levels[:, 1:] - (least - ends[0]) + 2 * slack])
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = np.where(w == 0, np.array([-np.inf, np.inf])[:, None, None], np.sort(ends / w, axis=0))
        lower, upper = np.maximum(lower, low - 2 * EPS * abs(low)), np.minimum(upper, high + 2 * EPS * abs(high))
        return Sections(w, lower, upper, levels)


def _range(w, lower, upper):
    """The least and the greatest w'x of boxes (n_boxes, n), and a bound of the errors of each of them."""
    ends = np.sort([w * lower, w * upper], axis=0)
    return *ends.sum(axis=2), 4 * len(w) * EPS * abs(ends).max(axis=0).sum(axis=1) + np.finfo(float).tiny


def enclose_on(f: Callable, sections: Sections):
    """The affine extension of f, a function of x (n,), on each section: its output, a pytree with an `Interval` of
    arrays of NumPy, (n_sections, ...), for each of floating-point numbers.
    """

    def enclosed(lower, upper, levels):
        section = Section(lower, upper, direction=jnp.asarray(sections.direction), level=Interval(*levels))
        return zonotopes.enclose(f)(section)

    parts, batch = [], _batch(f, sections)
    for start in range(0, len(sections), batch):
        part = sections[np.minimum(np.arange(start, start + batch), len(sections) - 1)]  # filled up, for one shape
        parts.append(jax.vmap(enclosed)(*map(jnp.asarray, (part.lower, part.upper, part.levels))))
    return jax.tree.map(lambda *ends: np.concatenate(ends)[: len(sections)], *parts)


def _batch(f, sections):
    """A power of two: how many sections at once take about 100 MB for the generators of a layer."""
    mixed, stack = [], [jax.make_jaxpr(f)(sections.lower[0]).jaxpr]
    while stack:
        for eqn in stack.pop().eqns:
            inner = (getattr(each, "jaxpr", each) for each in eqn.params.values())
            stack.extend(each for each in inner if hasattr(each, "eqns"))
            mixed += [v.aval.size for v in eqn.outvars] if eqn.primitive.name == "dot_general" else []
    generators = max(sum(mixed) * max(mixed, default=1), 1)
    return 2 ** int(np.clip(np.log2(2**23 / generators), 3, 9))


class Bounds(NamedTuple):
    """Sections that cover a box, and bounds on each, (n_sections, m + 1): of |f_i|, and of the Euclidean |f|."""

    sections: Sections
    of_each: np.ndarray

    @property
    def largest(self) -> np.ndarray:
        """Bounds over the box, (m + 1,)."""
        return self.of_each.max(axis=0)


def bounds_on(f: Callable, sections: Sections) -> Bounds:
    """Bounds of f: (n,) -> (m,) on sections."""
    each = enclose_on(f, sections).magnitude
    return Bounds(sections, np.column_stack([each, np.linalg.norm(each, axis=1) * (1 + 4 * each.shape[1] * EPS)]))


def worst(bounds: Bounds, enough: np.ndarray) -> np.ndarray:
    """Which sections, at most AT_ONCE, have the bounds that are furthest above what is enough, (m + 1,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(bounds.of_each > enough, bounds.of_each / enough, 1).max(axis=1)
    order = np.argsort(-excess, kind="stable")[:AT_ONCE]
    return order[excess[order] > 1]


def halved(f: Callable, bounds: Bounds, rows: np.ndarray, influence: np.ndarray) -> Bounds:
    """The bounds of f with sections, `rows`, halved: each along the direction a, w or that of an input across w, in
    which a'M a times its squared width is largest; M is the `influence`, (n, n).
    """
    w, parts = bounds.sections.direction, bounds.sections[rows]
    axes = np.column_stack([w / (w @ w), np.eye(len(w)) - np.outer(w, w) / (w @ w)])
    slopes = np.sqrt(np.einsum("ik,ij,jk->k", axes, influence, axes).clip(0))
    widths = np.column_stack([np.ptp(parts.levels, axis=1), parts.upper - parts.lower])
    halves = parts.halved((widths * slopes).argmax(axis=1))
    kept = halves.has_points
    new = bounds_on(f, halves[kept])
    # what bounds the whole bounds its parts
    new_of_each = np.minimum(new.of_each, np.tile(bounds.of_each[rows], (2, 1))[kept])
    others = np.delete(np.arange(len(bounds.sections)), rows)
    return Bounds(bounds.sections[others].joined(new.sections), np.concatenate([bounds.of_each[others], new_of_each]))
