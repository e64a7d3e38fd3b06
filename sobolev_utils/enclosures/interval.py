"""The interval, all numbers between two bounds, and what rules ask of an operand: an interval or a constant."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from sobolev_utils.enclosures.elementwise import is_array
from sobolev_utils.enclosures.kernels import namespace
from sobolev_utils.enclosures.rounding import normal_down, normal_up, round_up, whole_where

__all__ = ["Interval", "Section", "bounds", "has_nan", "is_floating", "is_known"]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["lower", "upper"], meta_fields=[], drop_fields=["undefined"]
)
@dataclasses.dataclass(frozen=True, eq=False)
class Interval:
    """All arrays between `lower` and `upper`, elementwise; a pytree, so that it passes through jit and vmap.

    The bounds have one shape and dtype, float32 or float64; they may be infinite. They are not checked: `box` checks
    a user's numbers, and rounds them outward. An undecided comparison is the boolean interval [False, True].
    undefined: within an evaluation, whether a value may be no number (see `undefined`); None where none may.
    """

    lower: jax.Array
    upper: jax.Array
    undefined: object = dataclasses.field(default=None, repr=False)

    @property
    def shape(self):
        return self.lower.shape

    @property
    def dtype(self):
        return self.lower.dtype

    @property
    def width(self):
        """upper - lower, rounded up; zero only for a single number."""
        return namespace(self.lower, self.upper).where(self.lower == self.upper, 0, round_up(self.upper - self.lower))

    @property
    def midpoint(self):
        """(lower + upper) / 2, rounded to nearest; infinite bounds count as the largest finite number."""
        xp, largest = namespace(self.lower, self.upper), jnp.finfo(self.dtype).max
        return 0.5 * xp.clip(self.lower, -largest, largest) + 0.5 * xp.clip(self.upper, -largest, largest)

    @property
    def magnitude(self):
        """max |x| over the interval."""
        return namespace(self.lower, self.upper).maximum(abs(self.lower), abs(self.upper))

    def contains(self, x):
        """Whether lower <= x <= upper, elementwise; for numbers that are known, NumPy's included, not rounded."""
        if not any(isinstance(value, jax.core.Tracer) for value in (self.lower, self.upper, x)):
            x = np.asarray(x)
            x = x.astype(object) if x.dtype.kind in "iu" else x
            return (np.asarray(self.lower) <= x) & (x <= np.asarray(self.upper))
        return (self.lower <= x) & (x <= self.upper)

    def intersection(self, other):
        """The numbers in both; of two enclosures of the same, an enclosure."""
        xp = namespace(self.lower, self.upper, other.lower, other.upper)
        return Interval(xp.maximum(self.lower, other.lower), xp.minimum(self.upper, other.upper))


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["lower", "upper", "direction", "level"],
    meta_fields=[],
    drop_fields=["undefined"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Section(Interval):
    """The points x of a box (n,) at which w'x is within the interval `level`; w, (n,), is the direction, not zero.

    Interval arithmetic takes it as the box. Affine arithmetic has symbols for w'x and across w, so that a function of
    w'x alone varies with w'x only, and leaves out the points of the box that are not in the section.
    """

    direction: jax.Array = None
    level: Interval = None


def is_floating(x):
    """Whether an array or interval is of floating-point numbers."""
    return jnp.issubdtype(x.dtype, jnp.floating)


def is_known(x):
    """Whether a value is an array whose numbers are known while a program is traced."""
    return is_array(x) and not isinstance(x, jax.core.Tracer)


def has_nan(x):
    """Whether an array holds what is not a number, as far as that is known: it may be traced."""
    return is_floating(x) and is_known(x) and bool(np.isnan(np.asarray(x)).any())


def bounds(x):
    """The bounds of a value, normal or zero, as XLA reads a subnormal constant as zero; those of nan are infinite."""
    if not is_array(x):
        return x.lower, x.upper
    if not is_floating(x):
        return x, x
    x = np.asarray(x) if is_known(x) else x
    lower, upper = normal_down(x), normal_up(x)
    return (lower, upper) if is_known(x) and not has_nan(x) else whole_where(x != x, lower, upper)
