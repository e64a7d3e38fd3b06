"""Brackets of the critical points and kinks of an elementwise function of one variable, searched for once.

Bisection leaves brackets of a few floats; outside of them, except far out in the tails, the natural extension of the
derivative has a sign.
"""

import dataclasses
import functools
import itertools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sobolev_utils.enclosures.elementwise import listed
from sobolev_utils.enclosures.interval import Interval, bounds
from sobolev_utils.enclosures.interval_rules import NATURAL_RULES
from sobolev_utils.enclosures.jaxpr import walk
from sobolev_utils.enclosures.rounding import in_order, normal_down, normal_up
from sobolev_utils.enclosures.undefined import DECIDING

__all__ = ["Brackets", "brackets_of", "derivative", "natural"]

CELLS = 2**12  # examined at once
ROUNDS = 8  # of bisection
BRACKETS = 6  # the largest number; of more, neighbours are joined
COMPARISONS = 6  # the largest number that is taken by cases


def natural(program, x):
    """The natural interval extension of a program over x, operation by operation."""
    closed = jax.make_jaxpr(program)(jax.ShapeDtypeStruct(x.shape, x.dtype))
    # the value of a constant program, such as `isnan(x)`, is an array
    y = walk(closed.jaxpr, closed.consts, [x], NATURAL_RULES)[0]
    return Interval(*bounds(y), getattr(y, "undefined", None))


def derivative(program, x):
    """The natural extension of f' over x, and where f is differentiable on all of x: no comparison is undecided."""

    def slope(x):
        return jax.jvp(lambda x: program(x, as_selects=True), (x,), (jnp.ones_like(x),))

    undecided = []

    def decided(name):
        def rule(eqn, *values):
            undecided.extend(v.lower ^ v.upper for v in values if isinstance(v, Interval) and v.dtype == bool)
            return NATURAL_RULES[name](eqn, *values)

        return rule

    rules = NATURAL_RULES | {name: decided(name) for name in ("select_n", "convert_element_type")}
    closed = jax.make_jaxpr(slope)(jax.ShapeDtypeStruct(x.shape, x.dtype))
    _, derivative = walk(closed.jaxpr, closed.consts, [x], rules)
    return Interval(*bounds(derivative)), ~functools.reduce(operator.or_, undecided, np.zeros(x.shape, bool))


def by_cases(program, x):
    """The natural extension over x of known bounds, by cases: of each comparison that is undecided either result is
    assumed wherever it is used, so that over a kink there are the pieces of f on both sides, and no mixture of them.
    """
    closed = jax.make_jaxpr(lambda x: program(x, as_selects=True))(jax.ShapeDtypeStruct(x.shape, x.dtype))

    def extension(results):
        """The bounds, and the comparisons in their order, those at the places in `results` with these results."""
        found = []

        def compare(name):
            def rule(eqn, *values):
                lower, upper = bounds(*listed(NATURAL_RULES[name](eqn, *values)))
                is_true = results.get(len(found), lower)
                found.append(lower ^ upper)
                decided = lower | (upper & is_true)
                return Interval(decided, decided if len(found) - 1 in results else upper)

            return rule

        rules = NATURAL_RULES | {name: compare(name) for name in DECIDING}
        return Interval(*bounds(walk(closed.jaxpr, closed.consts, [x], rules)[0])), found

    y, found = extension({})
    places = [place for place, undecided in enumerate(found) if np.any(undecided)]
    if len(places) > COMPARISONS:
        return y
    cases = itertools.product([False, True], repeat=len(places))
    ends = [extension(dict(zip(places, case, strict=True)))[0] for case in cases]
    lower, upper = (np.stack([getattr(end, side) for end in ends]) for side in ("lower", "upper"))
    return y.intersection(Interval(lower.min(axis=0), upper.max(axis=0)))


class Brackets(NamedTuple):
    """Intervals of the line that hold every critical point and kink of f; between them f is monotone.

    edges (n, 2) and the ranges of f over them, least and greatest, (2, n); those of them with kinks, (m, 2), and the
    ranges over these, (2, m); and tails, (2,), left and right of which nothing is known.
    """

    edges: np.ndarray
    ranges: np.ndarray
    kinks: np.ndarray
    kink_ranges: np.ndarray
    tails: np.ndarray


_found = {}  # brackets, by program and type


def brackets_of(program, dtype):
    """The brackets of f, searched for once."""
    dtype = np.dtype(dtype)
    closed = jax.make_jaxpr(program)(jax.ShapeDtypeStruct((), dtype))
    key = (str(closed.jaxpr), *(np.asarray(constant).tobytes() for constant in closed.consts), dtype)
    if key not in _found:
        _found[key] = _search(program, dtype)
    return _found[key]


def _search(program, dtype):
    def examine(edges):
        cells = Interval(normal_down(edges[:-1]), normal_up(edges[1:]))
        slope, smooth = derivative(program, cells)
        rising, falling = smooth & (slope.lower >= 0), smooth & (slope.upper <= 0)
        return rising | falling, 1 * rising - 1 * falling

    largest = np.finfo(dtype).max
    far = _floats(dtype.type(32), largest, CELLS // 8)[1:]
    edges = np.concatenate([-far[::-1], np.linspace(-32, 32, CELLS - 2 * len(far) + 1).astype(dtype), far])
    brackets = _open_runs(edges, *examine(edges))
    for _ in range(ROUNDS):
        if not brackets:
            break
        cells = CELLS // len(brackets) // 2 * 2
        cuts = [_cuts(*bracket.ends, cells // 2) for bracket in brackets]
        edges = np.concatenate([*cuts, np.repeat(cuts[-1][-1:], CELLS + 1)])[: CELLS + 1]
        monotone, sign = examine(edges)
        for n, (bracket, cut) in enumerate(zip(brackets, cuts, strict=True)):
            part = slice(n * (cells + 1), n * (cells + 1) + cells)
            bracket.trim(cut, monotone[part], sign[part])
    brackets = [(float(normal_down(low)), float(normal_up(high))) for low, high in (b.ends for b in brackets)]
    left, right = -np.inf, np.inf
    # over a wide bracket far out the natural range would be too wide: it begins a tail
    if brackets and brackets[0][0] / 2 < brackets[0][1] < 0:
        left = brackets.pop(0)[1]
    if brackets and brackets[-1][1] / 2 > brackets[-1][0] > 0:
        right = brackets.pop()[0]
    edges = np.asarray(brackets, dtype).reshape(-1, 2)
    # an odd place of the edges, one after the other, is a gap
    cells = Interval(*edges.T)
    smooth, ranges = derivative(program, cells)[1], np.stack(bounds(by_cases(program, cells)))
    return Brackets(edges, ranges, edges[~smooth], ranges[:, ~smooth], np.array([left, right], dtype))


@dataclasses.dataclass
class _Bracket:
    """The ends of a bracket, and the sign of f' on its left and on its right; 0 where there is none."""

    ends: list
    signs: tuple

    def trim(self, edges, monotone, sign):
        """Drop the cells at both ends in which f' has the sign that it has beyond them."""
        left, right = self.signs
        goes_on = [monotone & (sign * side >= 0) & ((side != 0) | (sign == 0)) for side in (left, right)]
        stays = [np.flatnonzero(~cells) for cells in goes_on]
        if len(stays[0]) and len(stays[1]) and stays[0][0] <= stays[1][-1]:
            self.ends = [edges[stays[0][0]], edges[stays[1][-1] + 1]]


def _open_runs(edges, monotone, sign):
    """Brackets, at most BRACKETS, without which f is monotone from one to the next."""
    # where f is constant it goes on as before
    places = np.maximum.accumulate(np.where(sign != 0, np.arange(len(sign)), 0))
    sign = np.where(monotone, sign[places], 0)
    turns = monotone[1:] & monotone[:-1] & (sign[1:] * sign[:-1] < 0)
    is_open = ~monotone | np.append(turns, False) | np.append(False, turns)
    bounds_ = np.flatnonzero(np.diff(np.concatenate([[False], is_open, [False]]).astype(int)))
    runs = [list(run) for run in bounds_.reshape(-1, 2)]
    while len(runs) > BRACKETS:
        i = int(np.argmin([edges[right[0]] - edges[left[1]] for left, right in itertools.pairwise(runs)]))
        runs[i : i + 2] = [[runs[i][0], runs[i + 1][1]]]
    sign = np.concatenate([[0], sign, [0]])
    return [_Bracket([edges[i], edges[j]], (sign[i], sign[j + 1])) for i, j in runs]


def _cuts(lower, upper, n):
    """2 n + 1 numbers from lower to upper, half of them evenly spaced, half with equally many floats between."""
    t = np.arange(1, n, dtype=lower.dtype) / n
    even = np.clip((1 - t) * lower + t * upper, lower, upper)
    return np.sort(np.concatenate([even, _floats(lower, upper, n), [upper]]))


def _floats(lower, upper, n):
    """n + 1 numbers from lower to upper, with equally many floats between neighbours."""
    integer = np.dtype(f"i{lower.dtype.itemsize}")
    least = int(np.iinfo(integer).min)
    first, last = map(int, in_order(np.array([lower, upper])))
    places = [first + (last - first) * i // n for i in range(n + 1)]
    return np.array([p if p >= 0 else least - p for p in places], integer).view(lower.dtype)
