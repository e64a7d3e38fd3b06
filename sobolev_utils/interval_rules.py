"""Interval arithmetic: for each primitive of JAX, its interval equivalent, rounded outward (see `rounding`).

A variable that occurs twice counts as two (x - x is not zero), which is why natural interval extensions are wide;
only the product of a variable with itself is known to be a square.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sobolev_utils.chains import as_usual, is_array
from sobolev_utils.rounding import (
    ELEMENTARY,
    dot_bounds,
    elementary_bounds,
    normal_down,
    normal_up,
    round_down,
    round_up,
    sum_down,
)

__all__ = ["MOVING", "NATURAL_RULES", "UNCHANGED", "Interval", "add", "bounds", "divide", "multiply", "negative"]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["lower", "upper"], meta_fields=[])
@dataclasses.dataclass(frozen=True, eq=False)
class Interval:
    """All arrays between `lower` and `upper`, elementwise; a pytree, so that it passes through jit and vmap.

    The bounds have one shape and dtype, float32 or float64; they may be infinite. They are not checked: `box`
    makes an interval of a user's numbers. An undecided comparison is the boolean interval [False, True].
    """

    lower: jax.Array
    upper: jax.Array

    @property
    def shape(self):
        return self.lower.shape

    @property
    def dtype(self):
        return self.lower.dtype

    @property
    def width(self):
        """upper - lower, rounded up; zero only for a single number."""
        return jnp.where(self.lower == self.upper, 0, round_up(self.upper - self.lower))

    @property
    def midpoint(self):
        """(lower + upper) / 2, rounded to nearest; infinite bounds count as the largest finite number."""
        largest = jnp.finfo(self.dtype).max
        return 0.5 * jnp.clip(self.lower, -largest, largest) + 0.5 * jnp.clip(self.upper, -largest, largest)

    @property
    def magnitude(self):
        """max |x| over the interval."""
        return jnp.maximum(jnp.abs(self.lower), jnp.abs(self.upper))

    def contains(self, x):
        """Whether lower <= x <= upper, elementwise."""
        return (self.lower <= x) & (x <= self.upper)


def _is_floating(x):
    return jnp.issubdtype(x.dtype, jnp.floating)


# The rules of interval arithmetic. A constant stays an array, known exactly, as long as it is only moved.


def bounds(x):
    """The bounds of a value, each normal or zero: XLA would read a subnormal constant as zero."""
    if not is_array(x):
        return x.lower, x.upper
    x = jnp.asarray(x)
    return (normal_down(x), normal_up(x)) if _is_floating(x) else (x, x)


def _increasing(eqn, *args):
    """A function that increases in every argument and rounds nothing."""
    lower, upper = (as_usual(eqn, *ends) for ends in zip(*map(bounds, args), strict=True))
    return list(map(Interval, lower, upper)) if eqn.primitive.multiple_results else Interval(lower, upper)


def _moving(eqn, *args):
    """Elements copied to other places."""
    return as_usual(eqn, *args) if all(map(is_array, args)) else _increasing(eqn, *args)


def _unchanged(eqn, *args):
    return args


def negative(x):
    return Interval(-x.upper, -x.lower) if isinstance(x, Interval) else -x


def _absolute(x):
    lower, upper = bounds(x)
    return Interval(jnp.maximum(jnp.maximum(lower, -upper), 0), jnp.maximum(-lower, upper))


def add(a, b):
    (al, au), (bl, bu) = bounds(a), bounds(b)

    def rounded(round, x, y):
        return jnp.where(x == 0, y, jnp.where(y == 0, x, round(x + y)))

    return Interval(rounded(round_down, al, bl), rounded(round_up, au, bu))


def multiply(a, b):
    if a is b:
        return _power(a, 2)
    zero = functools.reduce(jnp.logical_or, [(lower == 0) & (upper == 0) for lower, upper in (bounds(a), bounds(b))])
    product = _hull([x * y for x in bounds(a) for y in bounds(b)])
    return Interval(jnp.where(zero, 0, product.lower), jnp.where(zero, 0, product.upper))


def divide(a, b):
    lower, upper = bounds(b)
    whole = (lower <= 0) & (upper >= 0)

    def quotient(x, y):
        # XLA may multiply by the reciprocal, and flush it: it has to be normal
        scale = jnp.where(jnp.abs(y) > jnp.finfo(y.dtype).max / 8, y.dtype.type(1 / 16), y.dtype.type(1))
        return x / jnp.where(jnp.isnan(x), x, jnp.where(whole, 1, y * scale)) * scale

    result = _hull([quotient(x, y) for x in bounds(a) for y in (lower, upper)])
    return Interval(jnp.where(whole, -jnp.inf, result.lower), jnp.where(whole, jnp.inf, result.upper))


def _hull(values):
    """The hull of products or quotients of bounds, rounded outward."""
    # 0 * inf and inf / inf stand for 0 * x and x / inf with x finite
    values = [jnp.where(jnp.isnan(v), 0, v) for v in values]
    return Interval(
        round_down(functools.reduce(jnp.minimum, values), 2),
        round_up(functools.reduce(jnp.maximum, values), 2),
    )


def _power(x, y):
    """x^y for an integer y: y - 1 products, of a relative error below one step each."""
    if y < 0:
        return divide(np.ones((), x.dtype), _power(x, -y))
    lower, upper = bounds(_absolute(x) if y % 2 == 0 else x)
    lower, upper = round_down(lax.integer_pow(lower, y), 2 * y), round_up(lax.integer_pow(upper, y), 2 * y)
    return Interval(jnp.maximum(lower, 0) if y % 2 == 0 else lower, upper)


def _real_power(x, y):
    """x^y = exp(y log x) for x >= 0; the whole line where x may be negative."""
    power = _elementary("exp", multiply(_convert(y, x.dtype), _elementary("log", x)))
    whole = bounds(x)[0] < 0
    return Interval(jnp.where(whole, -jnp.inf, power.lower), jnp.where(whole, jnp.inf, power.upper))


def _elementary(name, x):
    return Interval(*elementary_bounds(name, *bounds(x)))


def _sum(eqn, x):
    lower, upper = bounds(x)
    return Interval(sum_down(lower, eqn.params["axes"]), -sum_down(-upper, eqn.params["axes"]))


def _dot(eqn, a, b):
    a, b = (_convert(x, eqn.outvars[0].aval.dtype) for x in (a, b))
    # of two constants, one is taken as an interval
    a, b = a if is_array(a) else bounds(a), b if is_array(b) and not is_array(a) else bounds(b)
    return Interval(*dot_bounds(a, b, eqn.params["dimension_numbers"]))


def _convert(x, dtype):
    old, new = np.dtype(x.dtype), np.dtype(dtype)
    if old == new:
        return x
    if _is_floating(x) and not jnp.issubdtype(new, jnp.floating):
        if is_array(x):
            return x.astype(new)
        raise NotImplementedError(f"an interval of {old} cannot become one of {new}")
    if is_array(x) and not isinstance(x, jax.core.Tracer):
        exact = np.asarray(x).astype(new)
        with np.errstate(invalid="ignore"):
            if (exact.astype(old) == np.asarray(x)).all():
                return exact
    lower, upper = (end.astype(new) for end in bounds(x))
    if _is_floating(x) or _digits(old) > _digits(new):
        wider = _digits(old) <= _digits(new)
        return Interval(lower, upper) if wider else Interval(round_down(lower), round_up(upper))
    return lower if is_array(x) else Interval(lower, upper)


def _digits(dtype):
    """Enough binary digits for every number of this type, or its precision."""
    if dtype.kind == "f":
        return jnp.finfo(dtype).nmant + 1
    return 1 if dtype.kind == "b" else jnp.iinfo(dtype).bits


def _compare(eqn, a, b):
    """Decided where the intervals decide it, else [False, True]; a value equals itself."""
    if a is b:
        zeros = jnp.zeros(a.shape, jnp.int32)
        return as_usual(eqn, zeros, zeros)
    (al, au), (bl, bu) = bounds(a), bounds(b)
    above, not_below = Interval(al > bu, au > bl), Interval(al >= bu, au >= bl)
    equal = Interval(not_below.lower & (au <= bl), not_below.upper & (al <= bu))
    name = eqn.primitive.name
    result = {"gt": above, "le": above, "ge": not_below, "lt": not_below, "eq": equal, "ne": equal}[name]
    return _not(result) if name in ("le", "lt", "ne") else result


def _not(x):
    return Interval(~x.upper, ~x.lower)


def _is_finite(x):
    lower, upper = bounds(x)
    return Interval(jnp.isfinite(lower) & jnp.isfinite(upper), jnp.ones(x.shape, bool))


def _select(eqn, which, *cases):
    """The case that `which` names; the hull of both where it is undecided."""
    if is_array(which):
        return _moving(eqn, which, *cases)
    (fl, fu), (tl, tu) = map(bounds, cases)
    return Interval(
        jnp.where(which.lower, tl, jnp.where(which.upper, jnp.minimum(fl, tl), fl)),
        jnp.where(which.lower, tu, jnp.where(which.upper, jnp.maximum(fu, tu), fu)),
    )


MOVING = (
    "broadcast_in_dim reshape transpose squeeze expand_dims rev tile pad concatenate stack split unstack "
    "slice dynamic_slice dynamic_update_slice gather scatter iota"
).split()
UNCHANGED = "copy stop_gradient optimization_barrier name device_put".split()
NATURAL_RULES = {
    **{name: lambda eqn, x: _elementary(eqn.primitive.name, x) for name in ELEMENTARY},
    **dict.fromkeys(MOVING, _moving),
    **dict.fromkeys(
        "max min clamp sign floor ceil reduce_max reduce_min and or reduce_and reduce_or".split(), _increasing
    ),
    **dict.fromkeys(UNCHANGED, _unchanged),
    **dict.fromkeys("gt ge lt le eq ne".split(), _compare),
    "not": lambda eqn, x: _not(x),
    "is_finite": lambda eqn, x: _is_finite(x),
    "select_n": _select,
    "convert_element_type": lambda eqn, x: _convert(x, eqn.params["new_dtype"]),
    "neg": lambda eqn, x: negative(x),
    "abs": lambda eqn, x: _absolute(x),
    "add": lambda eqn, a, b: add(a, b),
    "add_any": lambda eqn, a, b: add(a, b),
    "sub": lambda eqn, a, b: add(a, negative(b)),
    "mul": lambda eqn, a, b: multiply(a, b),
    "div": lambda eqn, a, b: divide(a, b),
    "square": lambda eqn, x: _power(x, 2),
    "integer_pow": lambda eqn, x: _power(x, eqn.params["y"]),
    "pow": lambda eqn, x, y: _real_power(x, y),
    "one_minus_square": lambda eqn, x: add(np.ones((), x.dtype), negative(_power(x, 2))),
    "reduce_sum": _sum,
    "dot_general": _dot,
}
