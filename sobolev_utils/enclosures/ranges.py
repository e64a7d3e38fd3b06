"""Exact ranges and affine enclosures of elementwise functions of one variable, however they are composed.

Where f' keeps its sign the range of f over an interval lies between the values at its ends. So the range of a
piecewise monotone f is exact, to rounding, once its critical points and kinks are known (see `brackets`).
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from sobolev_utils.enclosures.brackets import brackets_of, derivative, natural
from sobolev_utils.enclosures.interval import Interval, bounds
from sobolev_utils.enclosures.interval_arithmetic import add, multiply, subtract
from sobolev_utils.enclosures.rounding import computed_once, round_down, round_up
from sobolev_utils.enclosures.undefined import DECIDING

__all__ = ["affine_enclosure", "exact_range"]


def exact_range(program, x):
    """The rule "univariate" of interval arithmetic: the range of f over x, exact where f is piecewise monotone."""
    out = jax.eval_shape(program, jax.ShapeDtypeStruct(x.shape, x.dtype))
    if program.is_single or not jnp.issubdtype(out.dtype, jnp.floating):
        return natural(program, x)
    lower, upper = bounds(x)
    brackets = brackets_of(program, x.dtype)
    left, right = brackets.tails
    ends = jnp.stack([lower, lower, jnp.maximum(lower, jnp.minimum(right, upper))])
    ends = Interval(ends, jnp.stack([upper, jnp.minimum(upper, jnp.maximum(left, lower)), upper]), x.undefined)
    # all of x; its ends, each with the part of x in the tail on its side
    y = natural(program, ends)
    everywhere, first, last = itertools.starmap(Interval, zip(y.lower, y.upper, strict=True))
    low, high = jnp.minimum(first.lower, last.lower), jnp.maximum(first.upper, last.upper)
    if len(brackets.edges):
        start, end, least, greatest = (  # one for each bracket, before the axes of x
            ends.reshape(-1, *[1] * lower.ndim) for ends in (*brackets.edges.T, *brackets.ranges)
        )
        inside = (start <= upper) & (lower <= end)
        low = jnp.minimum(low, jnp.where(inside, least, jnp.inf).min(axis=0))
        high = jnp.maximum(high, jnp.where(inside, greatest, -jnp.inf).max(axis=0))
    return Interval(jnp.maximum(everywhere.lower, low), jnp.minimum(everywhere.upper, high), y.undefined)


def affine_enclosure(program, x, everything, pieces=8):
    """A slope a, an array, and an Interval b such that f(t) is in a t + b for every t in x.

    Where x is unbounded or may be undefined, a is 0 and b is `everything`, the range of f over x. Elsewhere a is the
    slope of the chord and b the range of f(t) - a t: on each of `pieces` pieces of x it is attained at the ends where
    f' - a has one sign, and bounded to second order elsewhere.
    """
    bounded = jnp.isfinite(x.lower) & jnp.isfinite(x.upper) & jnp.isfinite(x.upper - x.lower)
    if x.undefined is not None and any(part.name in DECIDING for part in program.operations):
        bounded &= ~x.undefined.holds  # where x is nan, a comparison in f has a result that belongs to no t
    lower, upper = (jnp.where(bounded, end, 0) for end in bounds(x))
    kinks = brackets_of(program, x.dtype).kinks.reshape(-1, *[1] * lower.ndim)
    ends = jnp.concatenate([lower[None], jnp.clip(kinks, lower, upper), upper[None]])
    n = -(-pieces // (len(ends) - 1))
    first, last = ends[:-1, None], ends[1:, None]
    t = (np.arange(n) / n).astype(x.dtype).reshape(-1, *[1] * lower.ndim)
    cuts = jnp.clip(first + (last - first) * t, first, last).reshape(-1, *lower.shape)
    cuts = jnp.concatenate([cuts, upper[None]])
    piece = Interval(cuts[:-1], cuts[1:])
    slope, smooth = derivative(program, piece)
    y = natural(program, Interval(*(jnp.concatenate([cuts, ends]) for ends in (piece.lower, piece.upper))))
    n = len(cuts)
    upper, slope, y, smooth = computed_once(upper, slope, y, smooth)
    values, over = Interval(y.lower[:n], y.upper[:n]), Interval(y.lower[n:], y.upper[n:])
    chord = (values.midpoint[-1] - values.midpoint[0]) / (upper - lower)
    chord = jnp.clip(chord, slope.lower.min(axis=0), slope.upper.max(axis=0))
    chord = jnp.where(jnp.isfinite(chord) & jnp.isfinite(upper - lower), chord, 0)

    # f(t) - a t is at most the larger value at the ends and, where its slope can change its sign, so much more
    rest = subtract(values, multiply(chord, cuts))
    falling, rising = add(slope, -chord), subtract(chord, slope)
    rise, fall = jnp.maximum(falling.upper, 0), jnp.maximum(rising.upper, 0)
    less, more = jnp.minimum(rise, fall), jnp.maximum(rise, fall)
    # rise fall / (rise + fall), no part of it tiny
    part = jnp.where(jnp.isfinite(rise + fall), more / (rise + fall), 1)
    excess = round_up(piece.width * (less * part + jnp.finfo(part.dtype).smallest_normal), 8)
    excess = jnp.where((rise == 0) | (fall == 0), 0, excess)
    excess = jnp.where(smooth & ~jnp.isnan(excess), excess, jnp.inf)
    whole = subtract(over, multiply(chord, piece))
    chord, whole, rest, excess = computed_once(chord, whole, rest, excess)
    low = jnp.maximum(whole.lower, round_down(jnp.minimum(rest.lower[:-1], rest.lower[1:]) - excess))
    high = jnp.minimum(whole.upper, round_up(jnp.maximum(rest.upper[:-1], rest.upper[1:]) + excess))
    low, high = low.min(axis=0), high.max(axis=0)
    rest = Interval(jnp.where(bounded, low, everything.lower), jnp.where(bounded, high, everything.upper))
    return jnp.where(bounded, chord, 0), rest
