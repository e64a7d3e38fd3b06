"""Exact ranges and affine enclosures of elementwise functions of one variable, however they are composed.

Where f' keeps its sign the range of f over an interval lies between the values at its ends. So the range of a
piecewise monotone f is exact, to rounding, once its critical points and kinks are known (see `brackets`).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sobolev_utils.enclosures.brackets import brackets_of, derivative, natural
from sobolev_utils.enclosures.interval import Interval, bounds
from sobolev_utils.enclosures.interval_arithmetic import add, multiply, subtract
from sobolev_utils.enclosures.kernels import kernel
from sobolev_utils.enclosures.rounding import computed_once, round_down, round_up
from sobolev_utils.enclosures.undefined import DECIDING, Undefined, nowhere

__all__ = ["affine_enclosure", "exact_range"]


def exact_range(program, x):
    """The rule "univariate" of interval arithmetic: the range of f over x, exact where f is piecewise monotone."""
    out = jax.eval_shape(program, jax.ShapeDtypeStruct(x.shape, x.dtype))
    if program.is_single or program.is_constant or not jnp.issubdtype(out.dtype, jnp.floating):
        return natural(program, x)
    brackets = brackets_of(program, x.dtype)
    ends = _ends(*bounds(x), brackets.tails)
    y = natural(program, Interval(ends.lower, ends.upper, x.undefined))
    return _marked(_range(*bounds(x), y, brackets), y)


@kernel
def _ends(xp, lower, upper, tails):
    """All of x; its ends, each with the part of x in the tail on its side."""
    left, right = tails
    starts = xp.stack([lower, lower, xp.maximum(lower, xp.minimum(right, upper))])
    return Interval(starts, xp.stack([upper, xp.minimum(upper, xp.maximum(left, lower)), upper]))


@kernel
def _range(xp, lower, upper, y, brackets):
    """The range of f over x: over its ends, and over the brackets that it meets; within that over all of x."""
    start, end, least, greatest = _along_first(lower.ndim, *brackets.edges.T, *brackets.ranges)
    meets = (start <= upper) & (lower <= end)
    low = xp.where(meets, least, np.inf).min(axis=0, initial=np.inf)
    high = xp.where(meets, greatest, -np.inf).max(axis=0, initial=-np.inf)
    left, right = brackets.tails
    for i, edge, in_tail in ((1, lower, lower < left), (2, upper, upper > right)):
        # an end in a bracket adds nothing to it
        adds = in_tail | ~((start <= edge) & (edge <= end)).any(axis=0)
        low = xp.minimum(low, xp.where(adds, y.lower[i], np.inf))
        high = xp.maximum(high, xp.where(adds, y.upper[i], -np.inf))
    return Interval(xp.maximum(y.lower[0], low), xp.minimum(y.upper[0], high))


def _along_first(ndim, *arrays):
    """Numbers along the first axis, before the axes of x."""
    return [array.reshape(-1, *[1] * ndim) for array in arrays]


def affine_enclosure(program, x, pieces=8):
    """A slope a, an array, and an Interval b such that f(t) is in a t + b for each t in x; and the range of f over x.

    Where x is unbounded or may be undefined, a is 0 and b is that range. Elsewhere a is the slope of the chord and b
    the range of f(t) - a t: on each of `pieces` pieces of x it is attained at the ends where f' - a has one sign, and
    bounded to second order elsewhere.
    """
    brackets = brackets_of(program, x.dtype)
    # where x is nan, a comparison in f has a result that belongs to no t
    is_deciding = x.undefined is not None and any(part.name in DECIDING for part in program.operations)
    unknown = x.undefined.holds if is_deciding else np.False_
    # all in one array, so that each operation is compiled once
    bounded, cuts, parts = _parts(*bounds(x), unknown, brackets, pieces=pieces)
    y = natural(program, Interval(parts.lower, parts.upper, x.undefined))
    slope, smooth = derivative(program, parts)
    everything = _range(*bounds(x), y, brackets)
    line = _line(bounded, cuts, slope, smooth, y, everything, brackets)
    return *line, _marked(everything, y)


@kernel(static="pieces")
def _parts(xp, lower, upper, unknown, brackets, *, pieces):
    """Where x is bounded; the ends of its pieces, cut at kinks; and parts of it: `_ends`, these cuts, the pieces."""
    bounded = xp.isfinite(lower) & xp.isfinite(upper) & xp.isfinite(upper - lower) & ~unknown
    ends, (lower, upper) = _ends(lower, upper, brackets.tails), (xp.where(bounded, end, 0) for end in (lower, upper))
    (kinks,) = _along_first(lower.ndim, brackets.kinks.ravel())
    edges = xp.concatenate([lower[None], xp.clip(kinks, lower, upper), upper[None]])
    # one part for each kink
    n = -(-pieces // (len(kinks) // 2 + 1))
    t = (np.arange(n) / n).astype(lower.dtype).reshape(-1, *[1] * lower.ndim)
    rows = [edges[i] + (edges[i + 1] - edges[i]) * t if i % 2 == 0 else edges[i][None] for i in range(len(edges) - 1)]
    cuts = [xp.clip(row, edges[i], edges[i + 1]) for i, row in enumerate(rows)]
    (cuts,) = computed_once(xp.concatenate([*cuts, upper[None]]))
    rows = [ends.lower, cuts, cuts[:-1]], [ends.upper, cuts, cuts[1:]]
    return bounded, cuts, Interval(*map(xp.concatenate, rows))


@kernel
def _line(xp, bounded, cuts, slope, smooth, y, everything, brackets):
    n, lower, upper, piece = 3 + len(cuts), cuts[0], cuts[-1], Interval(cuts[:-1], cuts[1:])
    upper, slope, y, smooth = computed_once(upper, slope, y, smooth)
    values, over = Interval(y.lower[3:n], y.upper[3:n]), Interval(y.lower[n:], y.upper[n:])
    values, over = (_known_at_kinks(xp, *both, brackets) for both in ((Interval(cuts, cuts), values), (piece, over)))
    slope, smooth = Interval(slope.lower[n:], slope.upper[n:]), smooth[n:]
    chord = (values.midpoint[-1] - values.midpoint[0]) / (upper - lower)
    chord = xp.clip(chord, slope.lower.min(axis=0), slope.upper.max(axis=0))
    chord = xp.where(xp.isfinite(chord) & xp.isfinite(upper - lower), chord, 0)

    # f(t) - a t is at most the larger value at the ends and, where its slope can change its sign, so much more
    rest = subtract(values, multiply(chord, cuts))
    falling, rising = add(slope, -chord), subtract(chord, slope)
    rise, fall = xp.maximum(falling.upper, 0), xp.maximum(rising.upper, 0)
    less, more = xp.minimum(rise, fall), xp.maximum(rise, fall)
    # rise fall / (rise + fall), no part of it tiny
    part = xp.where(xp.isfinite(rise + fall), more / (rise + fall), 1)
    excess = round_up(piece.width * (less * part + np.finfo(part.dtype).smallest_normal), 8)
    excess = xp.where((rise == 0) | (fall == 0), 0, excess)
    excess = xp.where(smooth & ~xp.isnan(excess), excess, np.inf)
    whole = subtract(over, multiply(chord, piece))
    chord, whole, rest, excess = computed_once(chord, whole, rest, excess)
    low = xp.maximum(whole.lower, round_down(xp.minimum(rest.lower[:-1], rest.lower[1:]) - excess))
    high = xp.minimum(whole.upper, round_up(xp.maximum(rest.upper[:-1], rest.upper[1:]) + excess))
    low, high = low.min(axis=0), high.max(axis=0)
    rest = Interval(xp.where(bounded, low, everything.lower), xp.where(bounded, high, everything.upper))
    return xp.where(bounded, chord, 0), rest


def _known_at_kinks(xp, x, y, brackets):
    """Ranges y over parts of x, within those of the kinks in which these lie."""
    ends = _along_first(x.lower.ndim, *brackets.kinks.T, *brackets.kink_ranges)
    start, end, least, greatest = (each.reshape(-1, 1, *each.shape[2:]) for each in ends)
    inside = (start <= x.lower) & (x.upper <= end)
    low = xp.where(inside, least, -np.inf).max(axis=0, initial=-np.inf)
    high = xp.where(inside, greatest, np.inf).min(axis=0, initial=np.inf)
    return y.intersection(Interval(low, high))


def _marked(x, parts):
    """An interval marked where one of its parts is, along the first axis."""
    undefined = parts.undefined and Undefined(nowhere, [parts.undefined], ndim=len(x.shape))
    return dataclasses.replace(x, undefined=undefined)
