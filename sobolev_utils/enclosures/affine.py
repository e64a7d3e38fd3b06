"""Affine arithmetic: the operations on zonotopes.

Linear maps are exact, a product loses what is quadratic in the symbols.
All rounding goes into the radius, with the margins of one operation after the other.
"""

import functools
import math
import operator

import jax.numpy as jnp
import numpy as np

from sobolev_utils.enclosures import interval_arithmetic
from sobolev_utils.enclosures.elementwise import is_array
from sobolev_utils.enclosures.kernels import dot as dot_general
from sobolev_utils.enclosures.kernels import kernel, namespace
from sobolev_utils.enclosures.rounding import computed_once, sum_error
from sobolev_utils.enclosures.zonotope import Zonotope, ball, n_symbols, point, rounded_up

__all__ = ["add", "converted", "dot", "multiply", "negative", "scaled", "total"]


def negative(x):
    """-x."""
    return -x if is_array(x) else Zonotope(-x.centre, x.radius, x.each_block(operator.neg))


def _joined(a, b):
    """The generators of a sum."""
    return a | b | {block: _plus(a[block], b[block]) for block in a.keys() & b.keys()}


@kernel(barrier=True)
def _plus(xp, x, y):
    return x + y


def add(a, b):
    """a + b, of zonotopes or constants."""
    if is_array(a) and is_array(b):
        return ball(interval_arithmetic.add(a, b))
    a, b = (point(x) if is_array(x) else x for x in (a, b))
    shape = np.broadcast_shapes(a.shape, b.shape)
    generators = _joined(*(x.each_block(functools.partial(_expanded, shape=shape)) for x in (a, b)))
    return Zonotope(*_sum(n_symbols(generators), a.parts, b.parts), generators)


def _expanded(generators, shape):
    """Generators of this shape: in a jaxpr a scalar may be added to an array."""
    if generators.shape[1:] == shape:
        return generators
    return namespace(generators).broadcast_to(_with_ndim(generators, len(shape) + 1), (len(generators), *shape))


def _with_ndim(generators, ndim):
    return generators.reshape(len(generators), *[1] * (ndim - generators.ndim), *generators.shape[1:])


@kernel(barrier=True)
def _sum(xp, n, a, b):
    (centre, radius, spread), (other, other_radius, other_spread) = a, b
    error = 4 * np.finfo(centre.dtype).epsneg * (xp.abs(centre) + spread + (xp.abs(other) + other_spread))
    return centre + other, rounded_up(radius + other_radius + error, n)


def multiply(a, b):
    """a b, of zonotopes or constants."""
    return ball(interval_arithmetic.multiply(a, b)) if is_array(a) and is_array(b) else _bilinear(a, b, None)


def dot(a, b, dimensions):
    """`lax.dot_general` of zonotopes or constants, the symbols of which are mixed."""
    if is_array(a) and is_array(b):
        return ball(interval_arithmetic.dot(a, b, dimensions))
    return _bilinear(*(x.astype(jnp.result_type(a, b)) if is_array(x) else x for x in (a, b)), dimensions)


def _bilinear(a, b, dimensions):
    """(c + d)(p + q) = c p + c q + d p + d q: c p is the centre, c q + d p are the generators; d q is at most the
    product of the spreads, in the radius.
    """
    a, b = (point(x) if is_array(x) else x for x in (a, b))
    of_a = a.each_block(lambda d: _product(d, b.centre, dimensions=dimensions, many=0))
    of_b = b.each_block(lambda q: _product(a.centre, q, dimensions=dimensions, many=1))
    generators = _joined(of_a, of_b)
    return Zonotope(*_products(n_symbols(generators), a.parts, b.parts, dimensions=dimensions), generators)


@kernel(barrier=True, static=("dimensions", "many"))
def _product(xp, x, y, *, dimensions, many=None):
    """The product, elementwise where there are no `dimensions`; of operand `many`, 0 or 1, there are several."""
    if dimensions is not None:
        return dot_general(x, y, dimensions, many)
    ndim = max(x.ndim - (many == 0), y.ndim - (many == 1))
    x, y = (_with_ndim(z, ndim + 1) if i == many else z for i, z in enumerate((x, y)))
    return x * y


@kernel(barrier=True, static="dimensions")
def _products(xp, n, a, b, *, dimensions):
    """Centre and radius of a product that has n generators."""
    (c, r, spread), (p, s, other) = a, b
    n_terms = 1 if dimensions is None else math.prod(c.shape[axis] for axis in dimensions[0][0])
    g, product = sum_error(n_terms + 8, c.dtype), functools.partial(_product, dimensions=dimensions)
    radius = product(r, xp.abs(p)) + product(xp.abs(c), s) + product(spread, other)
    radius = radius + g * product(xp.abs(c) + spread, xp.abs(p) + other)
    return product(c, p), rounded_up(radius * (1 + 2 * g), n_terms * (n + 1))


def total(x, axes):
    """The sum of x over `axes`."""
    if is_array(x):
        return ball(interval_arithmetic.total(x, axes))
    generators = x.each_block(lambda g: g.sum(axis=tuple(axis + 1 for axis in axes)))
    return Zonotope(*_total(n_symbols(generators), *x.parts, axes=axes), generators)


@kernel(barrier=True, static="axes")
def _total(xp, n, centre, radius, spread, *, axes):
    n_terms = math.prod(centre.shape[axis] for axis in axes)
    g = sum_error(n_terms + 8, centre.dtype)
    radius = (radius + g * (xp.abs(centre) + spread)).sum(axis=axes) * (1 + 2 * g)
    return centre.sum(axis=axes), rounded_up(radius, n_terms * (n + 1))


def scaled(x, slope, offset):
    """slope x + offset, for an array and an interval."""
    constant = ball(offset)
    slope, centre, radius = computed_once(slope, constant.centre, constant.radius)
    generators = x.each_block(lambda g: _multiple(g, slope))
    return Zonotope(*_scaled(n_symbols(generators), x.parts, slope, centre, radius), generators)


@kernel(barrier=True)
def _multiple(xp, x, slope):
    return xp.where(slope == 0, 0, slope * x)


@kernel(barrier=True)
def _scaled(xp, n, x, slope, offset, error):
    (centre, radius, spread), steep = x, xp.abs(slope)
    rounding = 4 * np.finfo(centre.dtype).epsneg * (_multiple(xp.abs(centre) + spread, steep) + xp.abs(offset))
    return _multiple(centre, slope) + offset, rounded_up(_multiple(radius, steep) + error + rounding, n)


def converted(x, dtype):
    """x in another type of floating-point numbers."""
    if x.dtype == dtype:
        return x
    return Zonotope(
        *_converted(n_symbols(x.generators), *x.parts, dtype=dtype), x.each_block(lambda g: g.astype(dtype))
    )


@kernel(barrier=True, static="dtype")
def _converted(xp, n, centre, radius, spread, *, dtype):
    error = 4 * np.finfo(dtype).epsneg * (xp.abs(centre) + spread)
    return centre.astype(dtype), rounded_up((radius + error).astype(dtype), n)
