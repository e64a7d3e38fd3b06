"""The rules of interval arithmetic: for each primitive of JAX, its interval equivalent.

Undecided comparisons, and integers that they choose, are intervals of booleans and integers: these are moved, chosen
and compared. Arithmetic with them is refused, as integers wrap around, and so is indexing by them.
"""

import functools

import numpy as np

from sobolev_utils.enclosures import interval_arithmetic as arithmetic
from sobolev_utils.enclosures.elementwise import as_usual, is_array, listed
from sobolev_utils.enclosures.interval import Interval, bounds, has_nan, is_floating, is_known
from sobolev_utils.enclosures.kernels import kernel, namespace
from sobolev_utils.enclosures.rounding import ELEMENTARY, in_order, whole_where
from sobolev_utils.enclosures.undefined import Undefined, marked

__all__ = ["MOVING", "NATURAL_RULES", "UNCHANGED"]


def _increasing(eqn, *args):
    """A function that increases in every argument and rounds nothing."""
    return Interval(*(as_usual(eqn, *ends) for ends in zip(*map(bounds, args), strict=True)))


def _moving(eqn, *args):
    """Elements copied to other places."""
    if all(map(is_array, args)):
        return as_usual(eqn, *args)
    _check_constants(args)
    places = range(len(args))[INDICES.get(eqn.primitive.name, slice(0))]
    if not all(is_array(args[i]) for i in places):
        raise NotImplementedError("an index that depends on an undecided comparison: choose by jnp.where instead")
    sides = zip(*(bounds(x) if i not in places else (x, x) for i, x in enumerate(args)), strict=True)
    lower, upper = (as_usual(eqn, *side) for side in sides)
    if eqn.primitive.name == "gather" and is_floating(lower):
        # out of bounds it may fill in what is not a number
        missing = (lower != lower) | (upper != upper)
        return Interval(*whole_where(missing, lower, upper), Undefined(lambda: missing))
    return list(map(Interval, listed(lower), listed(upper)))


def _dot(eqn, a, b):
    a, b = (arithmetic.converted(x, eqn.outvars[0].aval.dtype) for x in (a, b))
    return arithmetic.dot(a, b, eqn.params["dimension_numbers"])


def _check_constants(args):
    if any(is_array(x) and has_nan(x) for x in args):
        raise ValueError("a constant is not a number (nan), and operations may hide it")


def _compare(eqn, a, b):
    """Decided where the intervals decide it, else [False, True]; a value equals itself."""
    if is_array(a) and is_array(b):
        return _compare_numbers(eqn, a, b) if is_floating(a) else as_usual(eqn, a, b)
    if a is b:
        zeros = np.zeros(a.shape, np.int32)
        return as_usual(eqn, zeros, zeros)
    (al, au), (bl, bu) = bounds(a), bounds(b)
    above, not_below = Interval(al > bu, au > bl), Interval(al >= bu, au >= bl)
    equal = Interval(not_below.lower & (au <= bl), not_below.upper & (al <= bu))
    name = eqn.primitive.name
    result = {"gt": above, "le": above, "ge": not_below, "lt": not_below, "eq": equal, "ne": equal}[name]
    return _not(result) if name in ("le", "lt", "ne") else result


def _compare_numbers(eqn, a, b):
    """Of two constants, decided where they are subnormal, too; what is not a number may be traced."""
    a, b = (np.asarray(x) if is_known(x) else x for x in (a, b))
    ordered = as_usual(eqn, in_order(a), in_order(b))
    if is_known(a) and is_known(b):
        return ordered
    return namespace(a, b).where((a != a) | (b != b), eqn.primitive.name == "ne", ordered)


def _not(x):
    return Interval(~x.upper, ~x.lower)


def _is_finite(eqn, x):
    lower, upper = bounds(x)
    return Interval((abs(lower) < np.inf) & (abs(upper) < np.inf), np.ones(x.shape, bool))


def _power(eqn, x, y):
    """x^y = exp(y log x) for x >= 0; the whole line where x may be negative."""
    exponent = arithmetic.multiply(arithmetic.converted(y, x.dtype), arithmetic.elementary("log", x))
    result = arithmetic.elementary("exp", exponent)
    return Interval(*whole_where(bounds(x)[0] < 0, result.lower, result.upper))


def _select(eqn, which, *cases):
    """The case that `which` names; the hull of both where it is undecided."""
    if is_array(which):
        return as_usual(eqn, which, *cases) if all(map(is_array, cases)) else _increasing(eqn, which, *cases)
    if which.dtype != bool:
        raise NotImplementedError("a choice among several cases by an integer that is undecided")
    return _chosen(which, *map(bounds, cases))


@kernel
def _chosen(xp, which, false, true):
    (fl, fu), (tl, tu) = false, true
    return Interval(
        xp.where(which.lower, tl, xp.where(which.upper, xp.minimum(fl, tl), fl)),
        xp.where(which.lower, tu, xp.where(which.upper, xp.maximum(fu, tu), fu)),
    )


def _of_numbers(name, rule):
    """The rule with its operands checked: no constant that is not a number, no integers that it does not hold for."""

    @functools.wraps(rule)
    def checked(eqn, *args):
        _check_constants(args)
        for x in args:
            if not (is_array(x) or is_floating(x) or name in ORDERED or (name in LOGICAL and x.dtype == bool)):
                raise NotImplementedError(f"an interval of {x.dtype}, in which there is no arithmetic")
        return rule(eqn, *args)

    return checked


MOVING = (
    "broadcast_in_dim reshape transpose squeeze expand_dims rev tile pad concatenate stack split unstack "
    "slice dynamic_slice dynamic_update_slice gather scatter iota"
).split()
# the operands that are indices
ONE, REST = slice(1, 2), slice(1, None)
INDICES = {"gather": ONE, "scatter": ONE, "dynamic_slice": REST, "dynamic_update_slice": slice(2, None)}
UNCHANGED = "copy stop_gradient optimization_barrier name device_put".split()
COMPARISONS = "gt ge lt le eq ne".split()
# What holds for numbers of every kind, and what holds for booleans too.
ORDERED = [*COMPARISONS, *"max min clamp sign reduce_max reduce_min not pow".split()]
LOGICAL = "and or reduce_and reduce_or".split()
ON_NUMBERS = {
    **{name: lambda eqn, x: arithmetic.elementary(eqn.primitive.name, x) for name in ELEMENTARY},
    **dict.fromkeys([*"max min clamp sign floor ceil reduce_max reduce_min".split(), *LOGICAL], _increasing),
    **dict.fromkeys(COMPARISONS, _compare),
    "not": lambda eqn, x: _not(x),
    "is_finite": _is_finite,
    "neg": lambda eqn, x: arithmetic.negative(x),
    "abs": lambda eqn, x: arithmetic.absolute(x),
    **dict.fromkeys(["add", "add_any"], lambda eqn, a, b: arithmetic.add(a, b)),
    "sub": lambda eqn, a, b: arithmetic.subtract(a, b),
    "mul": lambda eqn, a, b: arithmetic.multiply(a, b),
    "div": lambda eqn, a, b: arithmetic.divide(a, b),
    "square": lambda eqn, x: arithmetic.power(x, 2),
    "integer_pow": lambda eqn, x: arithmetic.power(x, eqn.params["y"]),
    "pow": _power,
    "one_minus_square": lambda eqn, x: arithmetic.subtract(np.ones((), x.dtype), arithmetic.power(x, 2)),
    "reduce_sum": lambda eqn, x: arithmetic.total(x, eqn.params["axes"]),
    "dot_general": _dot,
}
NATURAL_RULES = {
    **dict.fromkeys(MOVING, _moving),
    "select_n": _select,
    "convert_element_type": lambda eqn, x: arithmetic.converted(x, eqn.params["new_dtype"]),
    **{name: _of_numbers(name, rule) for name, rule in ON_NUMBERS.items()},
}
NATURAL_RULES = {name: marked(name, rule) for name, rule in NATURAL_RULES.items()}
NATURAL_RULES |= dict.fromkeys(UNCHANGED, lambda eqn, *args: args)
