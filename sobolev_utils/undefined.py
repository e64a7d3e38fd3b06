"""Values that may be no number: what is asked of them stays open.

Over [-1, 1] the square root is enclosed over [0, 1], the part of the box inside of its domain. A comparison, though,
has an answer outside as well: `sqrt(x) >= 0` is False where sqrt(x) is not a number. So each operation that leaves
its domain marks its interval, once for all of its elements; a mark is handed on, and opens every comparison.
"""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from sobolev_utils.chains import is_array
from sobolev_utils.interval_arithmetic import Interval, bounds, is_floating, is_known

__all__ = ["marked"]

DECIDING = "gt ge lt le eq ne is_finite".split()


def _holds_zero(x):
    lower, upper = bounds(x)
    return (lower <= 0) & (upper >= 0)


def _leaves_powers(x, y):
    base, exponent = bounds(x)[0], bounds(y)[0]
    return (base < 0) | ((base <= 0) & (exponent < 0))


# where an operation may leave its domain; at its border it is infinite, and infinity less infinity is no number
LEAVES_DOMAIN = {
    "sqrt": lambda eqn, x: bounds(x)[0] < 0,
    "log": lambda eqn, x: bounds(x)[0] <= 0,
    "rsqrt": lambda eqn, x: bounds(x)[0] <= 0,
    "log1p": lambda eqn, x: bounds(x)[0] <= -1,
    "div": lambda eqn, a, b: _holds_zero(b),
    "integer_pow": lambda eqn, x: _holds_zero(x) if eqn.params["y"] < 0 else np.False_,
    "pow": lambda eqn, x, y: _leaves_powers(x, y),
}

# what a constant has to be for the output to be finite, or decided, where the other operand is
STAYS_NUMBER = {
    **dict.fromkeys([*DECIDING, "clamp"], lambda c: c == c),
    "max": lambda c: c < np.inf,
    "min": lambda c: c > -np.inf,
}


def marked(name, rule):
    """A rule of interval arithmetic that marks what may be no number, and decides nothing about it."""

    @functools.wraps(rule)
    def marking(eqn, *args):
        outputs = rule(eqn, *args)
        if all(map(is_array, args)):
            return outputs
        marks = [getattr(x, "undefined", None) for x in args]
        stays_number = STAYS_NUMBER.get(name, np.isfinite)
        marks += [np.True_ for x in args if is_known(x) and is_floating(x) and not stays_number(np.asarray(x)).all()]
        marks += [LEAVES_DOMAIN[name](eqn, *args).any()] if name in LEAVES_DOMAIN else []
        marks = [mark for mark in marks if mark is not None and not (is_known(mark) and not mark)]
        if not marks:
            return outputs
        mark = functools.reduce(jnp.logical_or, marks)
        if name in DECIDING:
            lower, upper = bounds(outputs)
            return Interval(lower & ~mark, upper | mark)
        if isinstance(outputs, list | tuple):
            return [_with(mark, y) for y in outputs]
        return _with(mark, outputs)

    return marking


def _with(mark, y):
    return dataclasses.replace(y, undefined=mark) if isinstance(y, Interval) else y
