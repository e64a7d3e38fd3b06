"""Affine arithmetic: zonotopes, values that remember what they have in common, and their operations.

A zonotope is c + sum_k e_k g_k and an error of at most r, with symbols e_k in [-1, 1] that it shares with others
(Comba & Stolfi 1993; Stolfi & de Figueiredo 1997). Linear maps are exact, a product loses what is quadratic in the
symbols. All rounding goes into r (see `rounding`), with the margins of one operation after the other. XLA would turn
(x c) d into x (c d) for constants c and d, where c d may underflow: the barriers in `Zonotope` keep it from that.
What it does once they are dropped (fusing loops, computing again, contracting a b + c) is within the margins.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from sobolev_utils.enclosures import interval_arithmetic
from sobolev_utils.enclosures.elementwise import is_array
from sobolev_utils.enclosures.interval import Interval, bounds
from sobolev_utils.enclosures.rounding import computed_once, round_down, round_up, sum_error, whole_where

__all__ = ["Symbols", "Zonotope", "add", "ball", "bilinear", "common", "dot", "negative", "point", "total", "up"]


class Zonotope:
    """A centre c, generators g (n, *shape) and a radius r.

    `layout` names the symbols: pairs of the number of a block and its size, in the order of the generators.
    """

    def __init__(self, centre, generators, radius, layout):
        # without the barrier (x 1e-200) 1e-200 becomes x 0
        self.centre, self.generators, self.radius = lax.optimization_barrier((centre, generators, radius))
        self.shape, self.dtype, self.layout = centre.shape, centre.dtype, layout
        self.mixed = self.range = None

    @functools.cached_property
    def spread(self):
        """sum_k |g_k| + r, rounded up."""
        total = jnp.abs(self.generators).sum(axis=0) + self.radius
        return total * (1 + 2 * sum_error(len(self.generators) + 1, self.dtype))

    @property
    def reach(self):
        """|c| + spread, to which all rounding errors are relative."""
        return jnp.abs(self.centre) + self.spread

    @functools.cached_property
    def interval(self):
        """The range that the symbols allow, within `range`, the one that interval arithmetic has found."""
        lower, upper = round_down(self.centre - self.spread, 2), round_up(self.centre + self.spread, 2)
        lower, upper = whole_where(~jnp.isfinite(self.centre + self.spread), lower, upper)
        if self.range is None:
            return Interval(lower, upper)
        upper = jnp.minimum(upper, self.range.upper)
        return Interval(jnp.maximum(lower, self.range.lower), upper, self.range.undefined)

    lower = property(lambda self: self.interval.lower)
    upper = property(lambda self: self.interval.upper)

    def laid_out(self, layout):
        """The generators for the blocks of another layout, zero for those that it lacks."""
        if self.layout == layout:
            return self.generators
        places = itertools.accumulate((n for _, n in self.layout), initial=0)
        own = {block: self.generators[at : at + block[1]] for block, at in zip(self.layout, places, strict=False)}
        parts = [own.get(block, jnp.zeros((block[1], *self.shape), self.dtype)) for block in layout]
        return jnp.concatenate([self.generators[:0], *parts])


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
            size, layout, radius = math.prod(x.shape), x.layout, x.radius
            for block in sorted(layout, key=lambda block: (block[0] < self.arguments, block)):
                if self.limit is not None and sum(n for _, n in layout) + size > self.limit:
                    radius = radius + jnp.abs(x.laid_out((block,))).sum(axis=0) * (1 + 2 * sum_error(size, x.dtype))
                    layout = tuple(other for other in layout if other != block)
            generators = x.laid_out(layout)
            if self.limit is None or size <= self.limit:
                own = jnp.diag(computed_once(up(radius, 1))[0].ravel()).reshape(size, *x.shape)
                generators, layout = jnp.concatenate([generators, own]), (*layout, (next(self.numbers), size))
                radius = jnp.zeros_like(radius)
            x.mixed = Zonotope(x.centre, generators, radius, layout)
            x.mixed.mixed, x.mixed.range = x.mixed, x.interval
        return x.mixed


def common(*values):
    """The layout of all symbols of some zonotopes."""
    return tuple(sorted({block for x in values for block in x.layout}))


def ball(interval):
    """An interval as a midpoint and a radius."""
    middle = interval.midpoint
    half = jnp.maximum(round_up(interval.upper - middle), round_up(middle - interval.lower))
    y = _without_symbols(middle, jnp.where(interval.lower == interval.upper, 0, half))
    y.range = interval if interval.undefined is not None else None
    return y


def point(x):
    """A constant as a zonotope; XLA reads subnormal numbers as zero, and nan may be any number."""
    lower, upper = bounds(x)
    error = jnp.where(jnp.isnan(x), jnp.inf, jnp.finfo(x.dtype).smallest_normal)
    return _without_symbols(jnp.where(lower == upper, lower, 0), jnp.where(lower == upper, 0, error))


def _without_symbols(centre, radius):
    return Zonotope(centre, jnp.zeros((0, *centre.shape), centre.dtype), radius, ())


def up(radius, n):
    """An upper bound of a radius computed by n operations, each of which may underflow."""
    info = jnp.finfo(radius.dtype)
    return round_up(radius * (1 + 16 * info.epsneg) + 8 * (n + 1) * info.smallest_normal)


def negative(x):
    """-x."""
    return Zonotope(-x.centre, -x.generators, x.radius, x.layout) if isinstance(x, Zonotope) else -x


def add(a, b):
    """a + b, of zonotopes or constants."""
    if is_array(a) and is_array(b):
        return ball(interval_arithmetic.add(a, b))
    a, b = (point(x) if is_array(x) else x for x in (a, b))
    layout = common(a, b)
    # in a jaxpr a scalar may be added to an array
    generators = jax.vmap(jnp.add)(a.laid_out(layout), b.laid_out(layout))
    error = 4 * jnp.finfo(a.dtype).epsneg * (a.reach + b.reach)
    return Zonotope(a.centre + b.centre, generators, up(a.radius + b.radius + error, len(generators)), layout)


def bilinear(product, n, a, b):
    """A product that sums n terms, of zonotopes or constants: (c + d)(p + q) = c p + c q + d p + d q.

    c p is the centre, c q + d p are the generators; d q is at most the product of the spreads, in the radius.
    """
    if is_array(a) and is_array(b):
        return ball(interval_arithmetic.multiply(a, b))
    if is_array(a):
        return bilinear(lambda x, y: product(y, x), n, b, a)
    g, smallest = sum_error(n + 8, a.dtype), jnp.finfo(a.dtype).smallest_normal
    on_a, on_b = jax.vmap(product, (0, None)), jax.vmap(product, (None, 0))
    if is_array(b):
        # smallest / g, times the g beside it, makes up for subnormal constants that XLA reads as zero
        radius = product(a.radius + (g * a.reach + smallest), jnp.abs(b) + smallest / g)
        radius = up(radius * (1 + 2 * g), n * len(a.generators))
        return Zonotope(product(a.centre, b), on_a(a.generators, b), radius, a.layout)
    layout = common(a, b)
    generators = on_a(a.laid_out(layout), b.centre) + on_b(a.centre, b.laid_out(layout))
    radius = product(a.radius, jnp.abs(b.centre)) + product(jnp.abs(a.centre), b.radius)
    radius = radius + product(a.spread, b.spread) + 2 * g * product(a.reach, b.reach)
    radius = up(radius * (1 + 2 * g), n * len(generators))
    return Zonotope(product(a.centre, b.centre), generators, radius, layout)


def dot(a, b, dimensions):
    """`lax.dot_general` of zonotopes or constants, the symbols of which are mixed."""
    if is_array(a) and is_array(b):
        return ball(interval_arithmetic.dot(a, b, dimensions))
    a, b = (x.astype(jnp.result_type(a, b)) if is_array(x) else x for x in (a, b))
    n = math.prod(a.shape[axis] for axis in dimensions[0][0])
    return bilinear(lambda x, y: lax.dot_general(x, y, dimensions, precision=lax.Precision.HIGHEST), n, a, b)


def total(x, axes):
    """The sum of x over `axes`."""
    if is_array(x):
        return ball(interval_arithmetic.total(x, axes))
    n = math.prod(x.shape[axis] for axis in axes)
    generators = x.generators.sum(axis=tuple(axis + 1 for axis in axes))
    g = sum_error(n + 8, x.dtype)
    radius = (x.radius + g * x.reach).sum(axis=axes) * (1 + 2 * g)
    return Zonotope(x.centre.sum(axis=axes), generators, up(radius, n * len(generators)), x.layout)
