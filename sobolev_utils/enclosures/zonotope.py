"""Zonotopes: values that remember what they have in common.

A zonotope is c + sum_k e_k g_k and an error of at most r, with symbols e_k in [-1, 1] that it shares with others
(Comba & Stolfi 1993; Stolfi & de Figueiredo 1997). All rounding goes into r (see `rounding`).

Symbols come in blocks, one for each value whose errors became symbols, so that layers of one shape have generators of
one shape: what is computed of them is compiled once (see `kernels`), whatever the number of blocks.
"""

import dataclasses
import functools
import itertools
import math
import types

import numpy as np

from sobolev_utils.enclosures.interval import Interval, bounds
from sobolev_utils.enclosures.kernels import kernel
from sobolev_utils.enclosures.rounding import computed_once, round_down, round_up, sum_error, whole_where

__all__ = ["Symbols", "Zonotope", "ball", "n_symbols", "point", "rounded_up"]


class Zonotope:
    """A centre c, a radius r, generators g, and the spread, sum_k |g_k| + r, rounded up.

    generators: arrays (n, *shape), by the number of their block of n symbols. `range`: an interval that was found
    otherwise, or None; `mixed`: what `Symbols` made of it.
    """

    range = mixed = None

    def __init__(self, centre, radius, generators=types.MappingProxyType({})):
        self.centre, self.radius, self.generators = centre, radius, generators
        spread = functools.reduce(_with_magnitudes, generators.values(), radius)
        self.spread = _enlarged(spread, 1 + 2 * sum_error(n_symbols(generators) + 1, self.dtype))

    shape = property(lambda self: self.centre.shape)
    dtype = property(lambda self: self.centre.dtype)
    parts = property(lambda self: (self.centre, self.radius, self.spread))

    @functools.cached_property
    def interval(self):
        """The range that the symbols allow, within `range`, the one that interval arithmetic has found."""
        found = _interval(*self.parts)
        if self.range is None:
            return found
        return dataclasses.replace(found.intersection(self.range), undefined=self.range.undefined)

    lower = property(lambda self: self.interval.lower)
    upper = property(lambda self: self.interval.upper)

    def each_block(self, operation):
        """The generators, each block by an operation."""
        return {block: operation(generators) for block, generators in self.generators.items()}


def n_symbols(generators):
    """How many symbols there are in some blocks."""
    return sum(map(len, generators.values()))


@kernel(barrier=True)
def _with_magnitudes(xp, radius, generators):
    return radius + xp.abs(generators).sum(axis=0)


@kernel(barrier=True)
def _enlarged(xp, spread, factor):
    return spread * factor


@kernel(barrier=True)
def _interval(xp, centre, radius, spread):
    lower, upper = round_down(centre - spread, 2), round_up(centre + spread, 2)
    return Interval(*whole_where(~xp.isfinite(centre + spread), lower, upper))


class Symbols:
    """Numbers for the blocks of symbols of one evaluation, and the bound of how many a value may have."""

    def __init__(self, limit):
        self.limit, self.numbers, self.arguments = limit, itertools.count(), 0

    def of(self, interval):
        """An argument of the evaluation, each entry a symbol."""
        self.arguments += 1
        return self.mix(ball(interval))

    def mix(self, x):
        """The same value with its own errors turned into symbols, the same ones each time."""
        if not isinstance(x, Zonotope):
            return x
        if x.mixed is None:
            size, limit = math.prod(x.shape), math.inf if self.limit is None else self.limit
            radius, generators = x.radius, dict(x.generators)
            for block in sorted(generators, key=lambda block: (block < self.arguments, block)):
                if n_symbols(generators) + size > limit:
                    radius = _with_errors(radius, generators.pop(block))
            if size <= limit:
                radius, generators[next(self.numbers)] = _as_symbols(radius)
            x.mixed = Zonotope(x.centre, radius, generators)
            x.mixed.mixed, x.mixed.range = x.mixed, x.interval
        return x.mixed


@kernel(barrier=True)
def _with_errors(xp, radius, generators):
    return radius + xp.abs(generators).sum(axis=0) * (1 + 2 * sum_error(len(generators), radius.dtype))


@kernel(barrier=True)
def _as_symbols(xp, radius):
    """What is left of the errors once they are symbols, and the generators of these."""
    (errors,) = computed_once(rounded_up(radius, 1))
    return xp.zeros_like(errors), xp.diag(errors.ravel()).reshape(errors.size, *errors.shape)


def ball(interval):
    """An interval as a midpoint and a radius."""
    y = Zonotope(*_ball(interval))
    y.range = interval if interval.undefined is not None else None
    return y


@kernel(barrier=True)
def _ball(xp, interval):
    middle = interval.midpoint
    half = xp.maximum(round_up(interval.upper - middle), round_up(middle - interval.lower))
    return middle, xp.where(interval.lower == interval.upper, 0, half)


def point(x):
    """A constant as a zonotope; XLA reads subnormal numbers as zero, and nan may be any number."""
    return Zonotope(*_point(x, *bounds(x)))


@kernel(barrier=True)
def _point(xp, x, lower, upper):
    error = xp.where(xp.isnan(x), xp.inf, np.finfo(x.dtype).smallest_normal)
    return xp.where(lower == upper, lower, 0), xp.where(lower == upper, 0, error)


def rounded_up(radius, n):
    """An upper bound of a radius computed by n operations, each of which may underflow."""
    info = np.finfo(radius.dtype)
    return round_up(radius * (1 + 16 * info.epsneg) + (8 * n + 8) * info.smallest_normal)
