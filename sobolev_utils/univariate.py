"""Elementwise functions of one variable, however they are composed: exact ranges and affine enclosures.

Where the derivative of f keeps its sign the range of f over an interval lies between the values at its ends, so a
piecewise monotone f has its exact range, to rounding, as soon as its critical points and kinks are known. They are
found once for each f: bisection leaves brackets of a few floats, outside of which the natural extension of the
derivative has a sign. Where it never gets one (far out, where it cancels to nothing) f has its natural range.
"""

import dataclasses
import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sobolev_utils.interval_arithmetic import Interval, add, bounds, multiply, negative
from sobolev_utils.interval_rules import NATURAL_RULES
from sobolev_utils.rounding import computed_once, normal_down, normal_up, round_down, round_up
from sobolev_utils.undefined import DECIDING
from sobolev_utils.walker import walk

__all__ = ["affine_enclosure", "exact_range"]

CELLS = 2**12  # that a search for brackets looks at in one go
ROUNDS = 8
BRACKETS = 6  # at most; neighbours are joined beyond it


def exact_range(program, x):
    """The rule "univariate" of interval arithmetic: the range of f over x, exact where f is piecewise monotone."""
    out = jax.eval_shape(program, jax.ShapeDtypeStruct(x.shape, x.dtype))
    if program.is_single or not jnp.issubdtype(out.dtype, jnp.floating):
        return _natural(program, x)
    lower, upper = bounds(x)
    brackets = _brackets(program, x.dtype)
    left, right = brackets.tails
    ends = jnp.stack([lower, lower, jnp.maximum(lower, jnp.minimum(right, upper))])
    ends = Interval(ends, jnp.stack([upper, jnp.minimum(upper, jnp.maximum(left, lower)), upper]), x.undefined)
    # all of x; its ends, with what it has of the tails
    y = _natural(program, ends)
    natural, first, last = itertools.starmap(Interval, zip(y.lower, y.upper, strict=True))
    low, high = jnp.minimum(first.lower, last.lower), jnp.maximum(first.upper, last.upper)
    if len(brackets.edges):
        start, end, least, greatest = (  # one for each bracket, before the axes of x
            ends.reshape(-1, *[1] * lower.ndim) for ends in (*brackets.edges.T, *brackets.ranges)
        )
        inside = (start <= upper) & (lower <= end)
        low = jnp.minimum(low, jnp.where(inside, least, jnp.inf).min(axis=0))
        high = jnp.maximum(high, jnp.where(inside, greatest, -jnp.inf).max(axis=0))
    return Interval(jnp.maximum(natural.lower, low), jnp.minimum(natural.upper, high), y.undefined)


def affine_enclosure(program, x, everything, pieces=8):
    """A slope a, an array, and an Interval b such that f(t) is in a t + b for every t in x.

    `everything` is the range of f over x, which is b, with a slope of zero, where x is not bounded or may be no
    number. Elsewhere a is the slope of the chord, the best there is where f is convex or concave, and b the range of
    f(t) - a t. It is found on `pieces` pieces of x: where f' - a has one sign, at their ends; elsewhere to second
    order.
    """
    bounded = jnp.isfinite(x.lower) & jnp.isfinite(x.upper) & jnp.isfinite(x.upper - x.lower)
    if x.undefined is not None and not program.names.isdisjoint(DECIDING):
        bounded &= ~x.undefined.holds  # a value of f where x is no number is a function of no t
    lower, upper = (jnp.where(bounded, end, 0) for end in bounds(x))
    kinks = _brackets(program, x.dtype).kinks.reshape(-1, *[1] * lower.ndim)
    ends = jnp.concatenate([lower[None], jnp.clip(kinks, lower, upper), upper[None]])
    n = -(-pieces // (len(ends) - 1))
    first, last = ends[:-1, None], ends[1:, None]
    t = (np.arange(n) / n).astype(x.dtype).reshape(-1, *[1] * lower.ndim)
    cuts = jnp.clip(first + (last - first) * t, first, last).reshape(-1, *lower.shape)
    cuts = jnp.concatenate([cuts, upper[None]])
    piece = Interval(cuts[:-1], cuts[1:])
    slope, smooth = _derivative(program, piece)
    y = _natural(program, Interval(*(jnp.concatenate([cuts, ends]) for ends in (piece.lower, piece.upper))))
    n = len(cuts)
    upper, *ends, smooth = computed_once(upper, *bounds(slope), *bounds(y), smooth)
    slope, y = Interval(*ends[:2]), Interval(*ends[2:])
    values, over = Interval(y.lower[:n], y.upper[:n]), Interval(y.lower[n:], y.upper[n:])
    chord = (values.midpoint[-1] - values.midpoint[0]) / (upper - lower)
    chord = jnp.clip(chord, slope.lower.min(axis=0), slope.upper.max(axis=0))
    chord = jnp.where(jnp.isfinite(chord) & jnp.isfinite(upper - lower), chord, 0)

    # f(t) - a t is at most the larger value at the ends and, where its slope can change its sign, so much more
    rest = add(values, negative(multiply(chord, cuts)))
    falling, rising = add(slope, -chord), add(chord, negative(slope))
    rise, fall = jnp.maximum(falling.upper, 0), jnp.maximum(rising.upper, 0)
    less, more = jnp.minimum(rise, fall), jnp.maximum(rise, fall)
    part = jnp.where(
        jnp.isfinite(rise + fall), more / (rise + fall), 1
    )  # rise fall / (rise + fall), no part of it tiny
    excess = round_up(piece.width * (less * part + jnp.finfo(part.dtype).smallest_normal), 8)
    excess = jnp.where((rise == 0) | (fall == 0), 0, excess)
    excess = jnp.where(smooth & ~jnp.isnan(excess), excess, jnp.inf)
    whole = add(over, negative(multiply(chord, piece)))
    chord, *ends, excess = computed_once(chord, *bounds(whole), *bounds(rest), excess)
    whole, rest = Interval(*ends[:2]), Interval(*ends[2:])
    low = jnp.maximum(whole.lower, round_down(jnp.minimum(rest.lower[:-1], rest.lower[1:]) - excess))
    high = jnp.minimum(whole.upper, round_up(jnp.maximum(rest.upper[:-1], rest.upper[1:]) + excess))
    low, high = low.min(axis=0), high.max(axis=0)
    rest = Interval(jnp.where(bounded, low, everything.lower), jnp.where(bounded, high, everything.upper))
    return jnp.where(bounded, chord, 0), rest


def _natural(program, x):
    closed = jax.make_jaxpr(program)(jax.ShapeDtypeStruct(x.shape, x.dtype))
    # a program that is constant, as `isnan(x)` is, comes as an array
    y = walk(closed.jaxpr, closed.consts, [x], NATURAL_RULES)[0]
    return Interval(*bounds(y), getattr(y, "undefined", None))


def _derivative(program, x):
    """The natural extension of f' over x, and where f is differentiable on all of x: no comparison is open."""

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
    return Interval(*bounds(derivative)), ~functools.reduce(jnp.logical_or, undecided, jnp.zeros(x.shape, bool))


_found = {}  # brackets, by program and type


class _Brackets(NamedTuple):
    """Intervals of the line that hold every critical point and kink of f; between them f is monotone.

    edges (n, 2) and the ranges of f over them, least and greatest, (2, n); those of them with kinks, (m, 2); and
    tails, (2,), left and right of which nothing is known.
    """

    edges: np.ndarray
    ranges: np.ndarray
    kinks: np.ndarray
    tails: np.ndarray


def _brackets(program, dtype):
    """The brackets of f, searched for once."""
    dtype = np.dtype(dtype)
    closed = jax.make_jaxpr(program)(jax.ShapeDtypeStruct((), dtype))
    key = (str(closed.jaxpr), *(np.asarray(constant).tobytes() for constant in closed.consts), dtype)
    if key not in _found:
        with jax.ensure_compile_time_eval():
            _found[key] = _search(program, dtype)
    return _found[key]


def _search(program, dtype):
    def examine_cell(lower, upper):
        cell = Interval(lower, upper)
        slope, smooth = _derivative(program, cell)
        rising, falling = smooth & (slope.lower >= 0), smooth & (slope.upper <= 0)
        sign = jnp.where(rising, 1, 0) - jnp.where(falling, 1, 0)
        return rising | falling, sign, smooth, jnp.stack(bounds(_natural(program, cell)))

    def examine(edges):
        # Cell by cell: what may be no number in one is so in that one alone. And operation by operation, which all
        # programs share: compiled as a whole, a long one would take minutes.
        return jax.vmap(examine_cell, out_axes=(0, 0, 0, 1))(normal_down(edges[:-1]), normal_up(edges[1:]))

    largest = np.finfo(dtype).max
    far = _floats(dtype.type(32), largest, CELLS // 8)[1:]
    edges = np.concatenate([-far[::-1], np.linspace(-32, 32, CELLS - 2 * len(far) + 1).astype(dtype), far])
    brackets = _open_runs(edges, *map(np.asarray, examine(edges)[:2]))
    for _ in range(ROUNDS):
        if not brackets:
            break
        cells = CELLS // len(brackets) // 2 * 2
        cuts = [_cuts(*bracket.ends, cells // 2) for bracket in brackets]
        edges = np.concatenate([*cuts, np.repeat(cuts[-1][-1:], CELLS + 1)])[: CELLS + 1]
        monotone, sign = map(np.asarray, examine(edges)[:2])
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
    cells = examine(np.concatenate([edges.ravel(), np.repeat(largest, CELLS + 1 - edges.size)]))
    smooth, ranges = (np.asarray(found)[..., : edges.size : 2] for found in cells[2:])
    return _Brackets(edges, ranges, edges[~smooth], np.array([left, right], dtype))


@dataclasses.dataclass
class _Bracket:
    """The ends of a bracket, and the sign of f' on its left and on its right; 0 where there is none."""

    ends: list
    signs: tuple

    def trim(self, edges, monotone, sign):
        """Give up the cells at both ends where f goes on as it does beyond them."""
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
    """2 n + 1 numbers from lower to upper, half of them evenly spaced, half with as many floats between."""
    t = np.arange(1, n, dtype=lower.dtype) / n
    even = np.clip((1 - t) * lower + t * upper, lower, upper)
    return np.sort(np.concatenate([even, _floats(lower, upper, n), [upper]]))


def _floats(lower, upper, n):
    """n + 1 numbers from lower to upper, with as many floats between any two neighbours."""
    integer = np.dtype(f"i{lower.dtype.itemsize}")
    least = int(np.iinfo(integer).min)
    # the bits of negative numbers count downwards
    first, last = (int(b) if b >= 0 else least - int(b) for b in np.array([lower, upper]).view(integer))
    places = [first + (last - first) * i // n for i in range(n + 1)]
    return np.array([p if p >= 0 else least - p for p in places], integer).view(lower.dtype)
