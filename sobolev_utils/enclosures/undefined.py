"""Values that may be undefined (nan), of which comparisons stay undecided.

Over [-1, 1] the square root is enclosed over [0, 1], the part of the box in its domain, but `sqrt(x) >= 0` is False
where sqrt(x) is nan. So an operation whose result may be undefined, as inf - inf is, marks its interval, and what is
computed from it is marked too: element by element by elementwise operations, as a whole by others. Whether a mark
holds is computed when a comparison needs it.
"""

import dataclasses
import functools
import math
import operator

import numpy as np

from sobolev_utils.enclosures.elementwise import ELEMENTWISE, is_array, listed
from sobolev_utils.enclosures.interval import Interval, bounds, has_nan, is_floating, is_known
from sobolev_utils.enclosures.interval_arithmetic import negative
from sobolev_utils.enclosures.kernels import known, namespace

__all__ = ["DECIDING", "Undefined", "marked", "nowhere"]

DECIDING = frozenset("gt ge lt le eq ne is_finite".split())


class Undefined:
    """Which elements of a value may be no number: where `condition()` holds, or one of its `causes` does.

    ndim: how many axes, the last ones, the causes have in common with the value; along others, any element counts.
    """

    def __init__(self, condition, causes=(), ndim=math.inf):
        self.condition, self.causes, self.ndim = condition, causes, ndim

    @functools.cached_property
    def own(self):
        mask, self.condition = self.condition(), None  # the condition keeps the operands in memory
        return known(mask)

    @functools.cached_property
    def holds(self):
        """A mask, of NumPy where it is known; it has to be computed in the trace that made the operands."""
        found, pending, seen = [], [(self, math.inf)], set()
        while pending:
            node, ndim = pending.pop()
            if (node, ndim) not in seen:
                seen.add((node, ndim))
                is_found = node is not self and "holds" in vars(node)
                mask = node.holds if is_found else node.own
                found.append(mask.any(axis=tuple(range(mask.ndim - min(ndim, mask.ndim)))))
                pending.extend(() if is_found else ((cause, min(ndim, node.ndim)) for cause in node.causes))
        return functools.reduce(operator.or_, found)


def nowhere():
    """A condition that holds of no element."""
    return np.zeros((), bool)


def marked(name, rule):
    """The rule with a list of outputs, marked as its operands are; comparisons of marked values stay undecided."""

    @functools.wraps(rule)
    def marking(eqn, *args):
        outputs = listed(rule(eqn, *args))
        if all(map(is_array, (*args, *outputs))):
            return outputs
        causes = [x.undefined for x in args if isinstance(x, Interval) and x.undefined is not None]
        constants = [x for x in args if is_array(x) and is_floating(x)]
        causes += [Undefined(lambda x=x: x != x) for x in constants if not is_known(x) or has_nan(x)]
        if name not in ELEMENTWISE and causes:
            causes = [Undefined(nowhere, causes, ndim=0)]
        if name in DECIDING:
            return [_undecided(outputs[0], causes)]
        if name in NO_NUMBER:
            causes = [Undefined(lambda: NO_NUMBER[name](eqn, outputs[0], *args), causes)]
        return [_with(causes, y) for y in outputs]

    return marking


def _undecided(y, causes):
    """A comparison that is undecided where one of the causes holds."""
    mark = functools.reduce(operator.or_, [cause.holds for cause in causes], np.False_)
    if is_known(mark) and not mark.any():
        return y
    lower, upper = bounds(y)
    return Interval(lower & ~mark, upper | mark)


def _with(causes, y):
    if not isinstance(y, Interval):
        return y
    causes = [*causes, y.undefined] if y.undefined is not None else causes
    if not causes:
        return y
    return dataclasses.replace(y, undefined=causes[0] if len(causes) == 1 else Undefined(nowhere, causes))


def _holds_zero(x):
    lower, upper = bounds(x)
    return (lower <= 0) & (upper >= 0)


def _is_infinite(x):
    lower, upper = bounds(x)
    xp = namespace(lower, upper)
    return xp.isinf(lower) | xp.isinf(upper)


def _no_sum(eqn, y, a, b):
    (al, au), (bl, bu) = bounds(a), bounds(b)
    return ((au == np.inf) & (bl == -np.inf)) | ((al == -np.inf) & (bu == np.inf))


def _no_product(eqn, y, a, b):
    if a is b:
        return np.False_
    # a chain is scale * function, in place of more operations: those on an infinite scale may have no result
    met = (_holds_zero(a), _holds_zero(b)) if eqn is not None else (np.True_, np.True_)
    return (met[0] & _is_infinite(b)) | (_is_infinite(a) & met[1])


def _no_power(eqn, y, a, b):
    base, exponent = bounds(a)[0], bounds(b)[0]
    return (base < 0) | ((base <= 0) & (exponent < 0))


# Where the result may be no number. What may be infinite has an infinite bound; a sum of many may be infinite on its
# way, too. rsqrt and pow are infinite at 0, and at -0 of the other sign, which their bounds leave out.
NO_NUMBER = {
    **dict.fromkeys(["sqrt", "log"], lambda eqn, y, x: bounds(x)[0] < 0),
    "log1p": lambda eqn, y, x: bounds(x)[0] < -1,
    "rsqrt": lambda eqn, y, x: bounds(x)[0] <= 0,
    "pow": _no_power,
    **dict.fromkeys(["add", "add_any"], _no_sum),
    "sub": lambda eqn, y, a, b: _no_sum(eqn, y, a, negative(b)),
    "mul": _no_product,
    "div": lambda eqn, y, a, b: (_holds_zero(a) & _holds_zero(b)) | (_is_infinite(a) & _is_infinite(b)),
    **dict.fromkeys(["reduce_sum", "dot_general"], lambda eqn, y, *args: _is_infinite(y)),
}
