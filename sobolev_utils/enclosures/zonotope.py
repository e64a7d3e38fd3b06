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

from sobolev_utils.enclosures.interval import Interval, Section, bounds
from sobolev_utils.enclosures.kernels import kernel
from sobolev_utils.enclosures.rounding import computed_once, round_down, round_up, sum_error, whole_where

__all__ = ["Symbols", "Zonotope", "ball", "n_symbols", "point", "rounded_up"]


class Zonotope:
    """A centre c, a radius r and generators g, which with the symbols' constraints reach from c + low to c + high.

    generators: arrays (n, *shape), by their `Block` of n symbols. spread: the larger one of -low and high. `range`:
    an interval that was found otherwise, or None; `mixed`: what `Symbols` made of it.
    """

    range = mixed = None

    def __init__(self, centre, radius, generators=types.MappingProxyType({})):
        self.centre, self.radius, self.generators = centre, radius, generators
        spread = functools.reduce(_with_magnitudes, [g for b, g in generators.items() if not b.constraint], radius)
        spread = _enlarged(spread, 1 + 2 * sum_error(n_symbols(generators) + 1, self.dtype))
        self.low, self.high, self.spread = -spread, spread, spread
        for block, g in generators.items():
            if block.constraint:
                self.low, self.high, self.spread = _with_reach(self.low, self.high, g, block.constraint)

    shape = property(lambda self: self.centre.shape)
    dtype = property(lambda self: self.centre.dtype)
    parts = property(lambda self: (self.centre, self.radius, self.spread))

    @functools.cached_property
    def interval(self):
        """The range that the symbols allow, within `range`, the one that interval arithmetic has found."""
        found = _interval(self.centre, self.low, self.high)
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
def _interval(xp, centre, low, high):
    lower, upper = round_down(centre + low, 2), round_up(centre + high, 2)
    return Interval(*whole_where(~xp.isfinite(centre + (high - low)), lower, upper))


@kernel(barrier=True)
def _with_reach(xp, low, high, generators, constraint):
    """low and high and, where symbols keep a constraint, the least and the greatest of sum_k e_k g_k."""
    reach = [_greatest(xp, sign * generators, *constraint) for sign in (-1, 1)]
    low, high = low - reach[0], high + reach[1]
    return low, high, xp.maximum(-low, high)


def _greatest(xp, g, omega, alpha, beta):
    """An upper bound of sum_k e_k g_k where alpha <= sum_k e_k omega_k <= beta, by duality: for any number m it is

        sum_k |g_k - m omega_k| + max(m alpha, m beta),

    the least of which is at m = 0 or at one of m = g_k / omega_k.
    """
    omega = omega.reshape(-1, *[1] * (g.ndim - 1))
    m = xp.where(omega == 0, 0, g / xp.where(omega == 0, 1, omega))[:: -(-len(g) // CANDIDATES)]
    m = xp.concatenate([m, xp.zeros_like(m[:1])])
    greatest = xp.abs(g - m[:, None] * omega).sum(axis=1) + xp.maximum(m * alpha, m * beta)
    size = xp.abs(g).sum(axis=0) + xp.abs(m) * (xp.abs(omega).sum(axis=0) + xp.maximum(xp.abs(alpha), xp.abs(beta)))
    greatest = greatest + 2 * sum_error(len(g) + 8, g.dtype) * size
    return rounded_up(xp.where(xp.isfinite(greatest), greatest, np.inf).min(axis=0), len(g))


CANDIDATES = 16  # of m: with more symbols, not all are tried


class Block:
    """A number of symbols e_k of magnitude at most 1; is_argument: whether they belong to an argument.

    constraint: omega (n,), alpha and beta of what these symbols keep, alpha <= sum_k e_k omega_k <= beta; or None.
    """

    def __init__(self, number, *, constraint=None, is_argument=False):
        self.number, self.constraint, self.is_argument = number, constraint, is_argument


class Symbols:
    """The blocks of symbols of one evaluation, and the bound of how many a value may have."""

    def __init__(self, limit):
        self.limit, self.numbers = limit, itertools.count()

    def of(self, interval):
        """An argument of the evaluation: each entry a symbol and, of a section, the level, too."""
        if isinstance(interval, Section):
            centre, radius, generators, constraint = _section(interval)
            block = Block(next(self.numbers), constraint=constraint, is_argument=True)
            x = Zonotope(centre, radius, {block: generators})
            x.range = Interval(interval.lower, interval.upper)
            return x
        return self.mix(ball(interval), is_argument=True)

    def mix(self, x, is_argument=False):
        """The same value with its own errors turned into symbols, the same ones each time."""
        if not isinstance(x, Zonotope):
            return x
        if x.mixed is None:
            size, limit = math.prod(x.shape), math.inf if self.limit is None else self.limit
            radius, generators = x.radius, dict(x.generators)
            for block in sorted(generators, key=lambda block: (block.is_argument, block.number)):
                if n_symbols(generators) + size > limit:
                    radius = _with_errors(radius, generators.pop(block))
            if size <= limit:
                radius, generators[Block(next(self.numbers), is_argument=is_argument)] = _as_symbols(radius)
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


@kernel(barrier=True)
def _section(xp, section):
    """x = w t / w'w + (I - w w'/w'w) u with t = w'x and u = x, each with symbols of its own, that keep t = w'u: the
    centre, radius and generators, and this constraint.
    """
    (t, h), (u, r), w = _ball(section.level), _ball(Interval(section.lower, section.upper)), section.direction
    eye, along = xp.eye(len(w), dtype=w.dtype), w / (w * w).sum()
    across, size = eye - along[:, None] * w, eye + xp.abs(along[:, None] * w)
    g = sum_error(8 * len(w) + 64, w.dtype)
    radius = g * (xp.abs(along) * (xp.abs(t) + h) + size @ (xp.abs(u) + r))
    generators = xp.concatenate([(along * h)[None], (across * r).T])
    omega, apart = xp.concatenate([-h[None], w * r]), t - (w * u).sum()
    slack = rounded_up(g * ((xp.abs(w) * (xp.abs(u) + r)).sum() + xp.abs(t) + h), len(w))
    return along * t + across @ u, rounded_up(radius, len(w) + 1), generators, (omega, apart - slack, apart + slack)


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
