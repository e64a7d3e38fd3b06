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


def normal_down(value):
    """The largest float that is normal or zero and not above `value`; an array of NumPy where `value` is one."""
    smallest = _smallest(value.dtype)
    if isinstance(value, np.ndarray | np.generic):
        return np.where(np.abs(value) < smallest, np.where(value < 0, -smallest, value.dtype.type(0)), value)
    return _normal_down(value)


def normal_up(value):
    """The smallest float that is normal or zero and not below `value`."""
    return -normal_down(-value)


@jax.jit
def _normal_down(value):
    smallest, bits = _smallest(value.dtype), lax.bitcast_convert_type(value, _integer(value.dtype))
    negative = (bits < 0) & (bits != np.iinfo(bits.dtype).min)
    return jnp.where(jnp.abs(value) < smallest, jnp.where(negative, -smallest, 0), value)


def in_order(value):
    """Integers in the order of the numbers; XLA itself compares subnormal numbers as zero."""
    integer = _integer(value.dtype)
    is_numpy = isinstance(value, np.ndarray | np.generic)
    bits = value.view(integer) if is_numpy else lax.bitcast_convert_type(value, integer)
    # sign and magnitude; both zeros are 0
    return (np if is_numpy else jnp).where(bits < 0, np.iinfo(integer).min - bits, bits)


@functools.partial(jax.jit, static_argnames="name")
def elementary_bounds(name, lower, upper):
    """Bounds of a function of `ELEMENTARY` over the part of [lower, upper] in its domain; infinite where none is."""
    steps32, steps64, start, least, greatest, direction = ELEMENTARY[name]
    steps = steps64 if lower.dtype == jnp.float64 else steps32
    outside = upper < start
    # not a maximum, which may keep the sign of -0, and 1 / sqrt(-0) is minus infinity
    lower, upper = (getattr(lax, name)(jnp.where(end <= start, start, end)) for end in (lower, upper)[::direction])
    lower, upper = jnp.maximum(round_down(lower, steps), least), jnp.minimum(round_up(upper, steps), greatest)
    return whole_where(outside, lower, upper)


def whole_where(mask, lower, upper):
    """The bounds, or those of the whole line where `mask` holds."""
    return jnp.where(mask, -jnp.inf, lower), jnp.where(mask, jnp.inf, upper)


def computed_once(*values):
    """The same arrays or intervals, the first an array without nan, computed once by XLA.

    Else each loop that XLA fuses computes again all that leads to it, for both bounds and for each generator. XLA
    keeps a loop without iterations, but drops an optimization barrier.
    """

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


@functools.partial(jax.jit, static_argnames="axes")
def sum_down(values, axes):
    """A lower bound of the exact sum over `axes`; the upper one is -sum_down(-values, axes)."""
    n = math.prod(values.shape[axis] for axis in axes)
    total = jnp.sum(values, axes)
    # twice gamma for the rounding of the margin itself; each addition may flush once
    margin = 2 * sum_error(n, values.dtype) * jnp.sum(jnp.abs(values), axes) + 4 * n * _smallest(values.dtype)
    # partial sums may overflow where the sum does not
    lower = jnp.where(jnp.isfinite(total), round_down(total - margin), -jnp.inf)
    return jnp.where(jnp.min(values, axes, initial=0) < 0, lower, jnp.maximum(lower, 0))


def dot_bounds(a, b, dimensions):
    """Bounds of A B for A within a and B within b, each a pair of bounds or an array, which is a constant.

    The midpoint-radius product (Rump, Fast and parallel interval arithmetic, BIT 39, 1999): |A - m| <= r and
    |B - p| <= s put A B within |m| s + r (|p| + s) of m p: the range of the linear map where one is a constant, at
    most 1.5 times as wide for two intervals. Rounding adds gamma_n |m| |p|. `dimensions`: those of lax.dot_general.
    """
    (m, r), (p, s) = _ball(a), _ball(b)
    n = math.prod(m.shape[axis] for axis in dimensions[0][0])
    g, smallest = sum_error(n, m.dtype), _smallest(m.dtype)

    def dot(x, y):
        return lax.dot_general(x, y, dimensions, precision=lax.Precision.HIGHEST)

    centre = dot(m, p)
    # smallest / g, times the g beside it, makes up for subnormal constants that XLA reads as zero
    if s is None:
        radius = dot(r + (g * jnp.abs(m) + smallest), jnp.abs(p) + smallest / g)
    else:
        radius = dot(jnp.abs(m) + smallest / g, s + (g * jnp.abs(p) + smallest))
        radius = radius if r is None else radius + dot(r, jnp.abs(p) + s)
    radius = radius * (1 + 4 * sum_error(n + 8, m.dtype)) + 8 * n * smallest
    return whole_where(~jnp.isfinite(centre), round_down(centre - radius), round_up(centre + radius))


def _ball(x):
    """A midpoint and a radius that makes up for its rounding; for a constant, itself and None."""
    if not isinstance(x, tuple):
        return x, None
    lower, upper = x
    middle = jnp.where(jnp.isfinite(lower) & jnp.isfinite(upper), 0.5 * lower + 0.5 * upper, 0)
    return middle, round_up(jnp.maximum(upper - middle, middle - lower) + _smallest(lower.dtype))


@functools.partial(jax.jit, static_argnames=("steps", "limit"))
def _moved(value, steps, limit):
    """`value` moved by `steps` floats towards `limit`, an infinity, and past the subnormal numbers."""
    integer = _integer(value.dtype)
    bits = lax.bitcast_convert_type(value, integer)
    # sign and magnitude: the next bit pattern is the next float away from zero
    outward = bits < 0 if limit < 0 else bits >= 0
    bits = bits + jnp.where(outward, integer(steps), integer(-steps))
    moved = lax.bitcast_convert_type(bits, value.dtype)
    # past infinity come the patterns of NaN
    moved = jnp.where(jnp.isnan(moved), limit, moved)
    smallest = np.asarray(_smallest(value.dtype)).view(integer)
    near, bound = ((smallest + integer(n * steps)).view(value.dtype) for n in (1, 2))
    return jnp.where(jnp.abs(value) < near, np.copysign(bound, value.dtype.type(limit)), moved)


def _smallest(dtype):
    _integer(dtype)  # refuses other types
    return np.finfo(dtype).smallest_normal


def _integer(dtype):
    """The type of the bits of a float."""
    if dtype not in (jnp.float32, jnp.float64):
        raise NotImplementedError(f"intervals are of float32 or float64, got {dtype}")
    return np.int32 if dtype == jnp.float32 else np.int64
