"""Outward rounding: what has to be added to XLA's floating-point results so that they bound the exact ones.

XLA on the CPU rounds to nearest, but it reorders sums, contracts `a * b + c`, turns `a / constant` into a product,
folds `(a + c1) + c2`, and reads and writes subnormal numbers as zero. So bounds are moved on their bit patterns, to
which no such rewriting applies, and arguments and results are normal or zero (`normal_down`, `normal_up`).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sobolev_utils.enclosures.kernels import dot, is_traced, kernel, namespace

__all__ = [
    "ELEMENTARY",
    "computed_once",
    "dot_bounds",
    "elementary_bounds",
    "in_order",
    "normal_down",
    "normal_up",
    "round_down",
    "round_up",
    "sum_down",
    "sum_error",
    "whole_where",
]

# Monotone elementary functions: error bounds of XLA's, in steps on the float32 and the float64 grid; the start of the
# domain; the least and the greatest value; the direction.
#
# What this package calls proven is proven given these bounds, which are measured: XLA promises none. They are at
# least four (float32, all 2^32 arguments) and three times (float64, 2^25 arguments) the largest distance from the
# correctly rounded result on the CPU with jax 0.10.2 (results/tables/elementary.csv, by tests/verify/elementary.py).
# Samples show no more with jax 0.12.0, and with SSE4.2, AVX and AVX2 in place of AVX-512, but for tanh without FMA: 6
# and 8 steps. In float64 log1p of jax 0.10 loses 7 bits between 1 - sqrt(2) and sqrt(1/2) - 1; jax 0.12 is within 2
# steps. erfc(x) loses what the rounding of x^2 does to exp(-x^2), up to 2^9 steps. `self_check` tries the bounds on
# the machine at hand.
ELEMENTARY = {
    "exp": (24, 8, -np.inf, 0, np.inf, 1),
    "expm1": (24, 16, -np.inf, -1, np.inf, 1),
    "log": (8, 8, 0, -np.inf, np.inf, 1),
    "log1p": (16, 1024, -1, -np.inf, np.inf, 1),
    "sqrt": (2, 2, 0, 0, np.inf, 1),
    "rsqrt": (8, 8, 0, 0, np.inf, -1),
    "tanh": (32, 32, -np.inf, -1, 1, 1),
    "logistic": (8, 8, -np.inf, 0, 1, 1),
    "erf": (32, 8, -np.inf, -1, 1, 1),
    "erfc": (288, 2048, -np.inf, 0, 2, -1),
}


def round_down(value, steps=1):
    """A lower bound of every real number whose computed value, `steps` floats away at most, is `value`.

    Zero may have been flushed: its bound is below minus the smallest normal number. That of infinity is the largest
    finite number, that of NaN (inf - inf) minus infinity.
    """
    return _moved(value, steps, -np.inf)


def round_up(value, steps=1):
    """An upper bound of every real number whose computed value, `steps` floats away at most, is `value`."""
    return _moved(value, steps, np.inf)


@kernel
def normal_down(xp, value):
    """The largest float that is normal or zero and not above `value`."""
    smallest = _smallest(value.dtype)
    bits = _bits(value)  # XLA itself compares subnormal numbers as zero
    negative = (bits < 0) & (bits != np.iinfo(bits.dtype).min)
    return xp.where(xp.abs(value) < smallest, xp.where(negative, -smallest, value.dtype.type(0)), value)


def normal_up(value):
    """The smallest float that is normal or zero and not below `value`."""
    return -normal_down(-value)


def in_order(value):
    """Integers in the order of the numbers; XLA itself compares subnormal numbers as zero."""
    bits = _bits(value)
    # sign and magnitude; both zeros are 0
    return namespace(bits).where(bits < 0, np.iinfo(bits.dtype).min - bits, bits)


@kernel(static="name")
def elementary_bounds(xp, name, lower, upper):
    """Bounds of a function of `ELEMENTARY` over the part of [lower, upper] in its domain; infinite where none is."""
    steps32, steps64, start, least, greatest, direction = ELEMENTARY[name]
    steps = steps64 if lower.dtype == jnp.float64 else steps32
    outside = upper < start
    # not a maximum, which may keep the sign of -0, and 1 / sqrt(-0) is minus infinity
    ends = (xp.where(end <= start, end.dtype.type(start), end) for end in (lower, upper)[::direction])
    lower, upper = (computed_by_xla(name, end) for end in ends)
    lower, upper = xp.maximum(round_down(lower, steps), least), xp.minimum(round_up(upper, steps), greatest)
    return whole_where(outside, lower, upper)


def whole_where(mask, lower, upper):
    """The bounds, or those of the whole line where `mask` holds."""
    xp = namespace(mask, lower, upper)
    return xp.where(mask, -np.inf, lower), xp.where(mask, np.inf, upper)


@kernel
def computed_once(xp, *values):
    """The same arrays or intervals, the first an array without nan, computed once by XLA.

    Else each loop that XLA fuses computes again all that leads to it, for both bounds and for each generator. XLA
    keeps a loop without iterations, but drops an optimization barrier.
    """
    if xp is np:
        return values

    def changed(x):
        return jnp.where(jnp.isnan(x), jnp.inf, x) if jnp.issubdtype(x.dtype, jnp.floating) else ~x

    return lax.while_loop(lambda values: jnp.isnan(values[0]).any(), lambda x: jax.tree.map(changed, x), values)


def sum_error(n, dtype):
    """A bound of the relative error of a sum or inner product of n terms, in any order, with or without FMA.

    gamma_n = n u / (1 - n u) and |fl(sum x_i y_i) - sum x_i y_i| <= gamma_n sum |x_i y_i|, underflow apart
    (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1). Infinite where n u >= 1/4.
    """
    dtype = np.dtype(dtype)
    nu = max(n, 1) * float(np.finfo(dtype).epsneg)
    return np.nextafter(dtype.type(nu / (1 - nu) if nu < 0.25 else np.inf), dtype.type(np.inf))


@kernel(static="axes")
def sum_down(xp, values, axes):
    """A lower bound of the exact sum over `axes`; the upper one is -sum_down(-values, axes)."""
    n = math.prod(values.shape[axis] for axis in axes)
    total = xp.sum(values, axes)
    # twice gamma for the rounding of the margin itself; each addition may flush once
    margin = 2 * sum_error(n, values.dtype) * xp.sum(xp.abs(values), axes) + 4 * n * _smallest(values.dtype)
    # partial sums may overflow where the sum does not
    lower = xp.where(xp.isfinite(total), round_down(total - margin), -xp.inf)
    return xp.where(xp.min(values, axes, initial=0) < 0, lower, xp.maximum(lower, 0))


@kernel(static="dimensions")
def dot_bounds(xp, a, b, dimensions):
    """Bounds of A B for A within a and B within b, each a pair of bounds or an array, which is a constant.

    The midpoint-radius product (Rump, Fast and parallel interval arithmetic, BIT 39, 1999): |A - m| <= r and
    |B - p| <= s put A B within |m| s + r (|p| + s) of m p: the range of the linear map where one is a constant, at
    most 1.5 times as wide for two intervals. Rounding adds gamma_n |m| |p|. `dimensions`: those of lax.dot_general.
    """
    (m, r), (p, s) = _ball(xp, a), _ball(xp, b)
    n = math.prod(m.shape[axis] for axis in dimensions[0][0])
    g, smallest = sum_error(n, m.dtype), _smallest(m.dtype)
    product = functools.partial(dot, dimensions=dimensions)
    centre = product(m, p)
    # smallest / g, times the g beside it, makes up for subnormal constants that XLA reads as zero
    if s is None:
        radius = product(r + (g * xp.abs(m) + smallest), xp.abs(p) + smallest / g)
    else:
        radius = product(xp.abs(m) + smallest / g, s + (g * xp.abs(p) + smallest))
        radius = radius if r is None else radius + product(r, xp.abs(p) + s)
    radius = radius * (1 + 4 * sum_error(n + 8, m.dtype)) + 8 * n * smallest
    return whole_where(~xp.isfinite(centre), round_down(centre - radius), round_up(centre + radius))


def _ball(xp, x):
    """A midpoint and a radius that makes up for its rounding; for a constant, itself and None."""
    if not isinstance(x, tuple):
        return x, None
    lower, upper = x
    middle = xp.where(xp.isfinite(lower) & xp.isfinite(upper), 0.5 * lower + 0.5 * upper, 0)
    return middle, round_up(xp.maximum(upper - middle, middle - lower) + _smallest(lower.dtype))


@kernel(static=("steps", "limit"))
def _moved(xp, value, steps, limit):
    """`value` moved by `steps` floats towards `limit`, an infinity, and past the subnormal numbers."""
    integer = _integer(value.dtype)
    bits = _bits(value)
    # sign and magnitude: the next bit pattern is the next float away from zero
    outward = bits < 0 if limit < 0 else bits >= 0
    bits = bits + xp.where(outward, integer(steps), integer(-steps))
    moved = _bitcast(bits, value.dtype)
    # past infinity come the patterns of NaN
    moved = xp.where(xp.isnan(moved), limit, moved)
    smallest = np.asarray(_smallest(value.dtype)).view(integer)
    near, bound = ((smallest + integer(n * steps)).view(value.dtype) for n in (1, 2))
    return xp.where(xp.abs(value) < near, np.copysign(bound, value.dtype.type(limit)), moved)


def _bits(value):
    """The bit patterns of floats as integers."""
    return _bitcast(value, _integer(value.dtype))


def _bitcast(value, dtype):
    return lax.bitcast_convert_type(value, dtype) if namespace(value) is jnp else value.view(dtype)


def computed_by_xla(name, x):
    """An elementary function of `lax`, by XLA, of which the error bounds are; known numbers in a few lengths."""
    if is_traced(x):
        return getattr(lax, name)(x)
    padded = np.resize(x, 2 ** max(x.size - 1, 255).bit_length()) if x.size else x
    with jax.ensure_compile_time_eval():
        return np.asarray(_elementary(name)(padded))[: x.size].reshape(x.shape)


@functools.cache
def _elementary(name):
    return jax.jit(getattr(lax, name))


def _smallest(dtype):
    _integer(dtype)  # refuses other types
    return np.finfo(dtype).smallest_normal


def _integer(dtype):
    """The type of the bits of a float."""
    if dtype not in (jnp.float32, jnp.float64):
        raise NotImplementedError(f"intervals are of float32 or float64, got {dtype}")
    return np.int32 if dtype == jnp.float32 else np.int64
