"""The operations of interval arithmetic, rounded outward (see `rounding`).

An operand is an interval or an array, a constant that is known exactly. A variable that occurs twice counts as two
(x - x is not zero), but for its product with itself, a square.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np

from sobolev_utils.enclosures.elementwise import is_array
from sobolev_utils.enclosures.interval import Interval, bounds, is_floating, is_known
from sobolev_utils.enclosures.kernels import is_traced, kernel, known, namespace
from sobolev_utils.enclosures.rounding import (
    dot_bounds,
    elementary_bounds,
    in_order,
    round_down,
    round_up,
    sum_down,
    whole_where,
)
from sobolev_utils.enclosures.self_check import check_elementary

__all__ = [
    "absolute",
    "add",
    "converted",
    "divide",
    "dot",
    "elementary",
    "multiply",
    "negative",
    "power",
    "subtract",
    "total",
]


def negative(x):
    """-x."""
    return Interval(-x.upper, -x.lower) if isinstance(x, Interval) else -x


def absolute(x):
    """|x|."""
    return _absolute(*bounds(x))


@kernel
def _absolute(xp, lower, upper):
    return Interval(xp.maximum(xp.maximum(lower, -upper), 0), xp.maximum(-lower, upper))


def add(a, b):
    """a + b; exact where one of them is zero, and monotone: x + y >= y for all x >= 0."""
    return _sum(bounds(a), bounds(b))


@kernel
def _sum(xp, a, b):
    (lower, upper), (other_lower, other_upper) = a, b
    low, high = round_down(lower + other_lower), round_up(upper + other_upper)
    for (lower, upper), (other_lower, other_upper) in ((a, b), (b, a)):
        low = xp.where(lower >= 0, xp.maximum(low, other_lower), low)
        high = xp.where(upper <= 0, xp.minimum(high, other_upper), high)
    return Interval(low, high)


def subtract(a, b):
    """a - b; not zero for two intervals that are equal."""
    return add(a, negative(b))


def multiply(a, b):
    """a b, and a^2 where a is b."""
    if a is b:
        return power(a, 2)
    a, b = (b, a) if is_known(a) else (a, b)
    of_a, of_b = bounds(a), bounds(b)
    if not is_array(a) and is_known(b) and np.isfinite(b).all() and np.array_equal(*of_b):
        return _multiple(*of_a, of_b[0])
    product = _product(*of_a, *of_b)
    for x, (lower, upper) in ((a, of_b), (b, of_a)):
        if is_array(x) and (not is_known(x) or np.isinf(x).any()):
            # zero times a constant that is infinite is no number
            undefined = namespace(x).isinf(x) & (lower <= 0) & (upper >= 0)
            product = Interval(*whole_where(undefined, product.lower, product.upper))
    return product


@kernel
def _multiple(xp, lower, upper, factor):
    """[lower, upper] times finite numbers."""
    ends = lower * factor, upper * factor
    # where it is zero times infinity, too
    zero = ((lower == 0) & (upper == 0)) | (factor == 0)
    low, high = round_down(xp.minimum(*ends), 2), round_up(xp.maximum(*ends), 2)
    return Interval(xp.where(zero, 0, low), xp.where(zero, 0, high))


@kernel
def _product(xp, al, au, bl, bu):
    zero = ((al == 0) & (au == 0)) | ((bl == 0) & (bu == 0))
    product = _hull(xp, [x * y for x in (al, au) for y in (bl, bu)])
    return Interval(xp.where(zero, 0, product.lower), xp.where(zero, 0, product.upper))


def divide(a, b):
    """a / b; the whole line where b holds zero."""
    of_a = bounds(a)
    is_number = is_known(a) and np.array_equal(*of_a)
    return _quotient(of_a[:1] if is_number else of_a, *bounds(b))


@kernel
def _quotient(xp, ends, lower, upper):
    whole = (lower <= 0) & (upper >= 0)

    def quotient(x, y):
        # XLA may multiply by the reciprocal, and flush it: it has to be normal
        scale = xp.where(xp.abs(y) > np.finfo(y.dtype).max / 8, y.dtype.type(1 / 16), y.dtype.type(1))
        return x / xp.where(xp.isnan(x), x, xp.where(whole, 1, y * scale)) * scale

    result = _hull(xp, [quotient(x, y) for x in ends for y in (lower, upper)])
    return Interval(*whole_where(whole, result.lower, result.upper))


def _hull(xp, values):
    """The hull of products or quotients of bounds, rounded outward."""
    # 0 * inf and inf / inf stand for 0 * x and x / inf with x finite
    values = [xp.where(xp.isnan(v), 0, v) for v in values]
    least, greatest = (functools.reduce(extreme, values) for extreme in (xp.minimum, xp.maximum))
    return Interval(round_down(least, 2), round_up(greatest, 2))


def power(x, y):
    """x^y for an integer y: y - 1 products, of a relative error below one step each."""
    if y < 0:
        return divide(np.ones((), x.dtype), power(x, -y))
    return _power(*bounds(absolute(x) if y % 2 == 0 else x), y)


@kernel(static="y")
def _power(xp, lower, upper, y):
    lower, upper = round_down(_integer_power(lower, y), 2 * y), round_up(_integer_power(upper, y), 2 * y)
    return Interval(xp.maximum(lower, 0) if y % 2 == 0 else lower, upper)


def _integer_power(x, y):
    """By repeated squaring, at most y - 1 products."""
    power = x if y % 2 else None
    while y := y // 2:
        x = x * x
        power = power if y % 2 == 0 else x if power is None else power * x
    return power


def total(x, axes):
    """The sum of x over `axes`."""
    lower, upper = bounds(x)
    return Interval(sum_down(lower, axes), -sum_down(-upper, axes))


def dot(a, b, dimensions):
    """`lax.dot_general`; of two constants, one is taken as an interval."""
    a, b = a if is_array(a) else bounds(a), b if is_array(b) and not is_array(a) else bounds(b)
    return Interval(*dot_bounds(a, b, dimensions))


def elementary(name, x):
    """The function of this name in `rounding.ELEMENTARY`."""
    check_elementary(name, np.dtype(x.dtype), jax.default_backend())
    return Interval(*elementary_bounds(name, *bounds(x)))


def converted(x, dtype):
    """x in another type; a constant stays one where nothing is lost."""
    old, new = np.dtype(x.dtype), np.dtype(dtype)
    if old == new:
        return x
    if is_floating(x) and not jnp.issubdtype(new, jnp.floating):
        if is_array(x):
            return in_order(x) != 0 if new.kind == "b" else _as_integers(x, new)
        raise NotImplementedError(f"an interval of {old} cannot become one of {new}: keep to floating point")
    if not is_array(x) and not jnp.issubdtype(new, jnp.floating) and not np.can_cast(old, new):
        raise NotImplementedError(f"an interval of {old} cannot become one of {new}: not all of it fits")
    if is_known(x):
        exact = np.asarray(x).astype(new)
        with np.errstate(invalid="ignore"):
            if ((exact.astype(old) == np.asarray(x)) | (exact != exact)).all():
                return exact
    lower, upper = (end.astype(new) for end in bounds(x))
    if is_floating(x) or _digits(old) > _digits(new):
        wider = _digits(old) <= _digits(new)
        return Interval(lower, upper) if wider else Interval(round_down(lower), round_up(upper))
    return lower if is_array(x) else Interval(lower, upper)


def _as_integers(x, dtype):
    """Numbers converted as JAX does, which takes the nearest integer of the type for those that are too large."""
    with contextlib.nullcontext() if is_traced(x) else jax.ensure_compile_time_eval():
        return known(jnp.asarray(x).astype(dtype))


def _digits(dtype):
    """Enough binary digits for every number of this type, or its precision."""
    if jnp.issubdtype(dtype, jnp.floating):
        return jnp.finfo(dtype).nmant + 1
    return 1 if dtype.kind == "b" else jnp.iinfo(dtype).bits
