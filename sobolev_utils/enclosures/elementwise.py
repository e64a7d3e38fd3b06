"""Programs of one variable, applied elementwise: an activation, its derivative, or whatever they are composed of."""

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sobolev_utils.enclosures.kernels import is_traced, known

__all__ = ["ELEMENTWISE", "ONE", "VARIABLE", "Program", "as_usual", "factored", "is_array", "listed"]


@dataclass(frozen=True, eq=False)
class Program:
    """A function of one variable, applied elementwise to an array: an operation on programs and numbers.

    With `as_selects`, max, min and clamp are computed as the equal `select_n`, whose derivative holds wherever the
    comparison is decided.
    """

    name: str
    operation: Callable
    parts: tuple

    def __call__(self, x, as_selects=False):
        values = {VARIABLE: x}

        def value(part):
            if not isinstance(part, Program):
                return lax.full_like(x, part, dtype=part.dtype)
            if part not in values:
                operation = AS_SELECTS.get(part.name, part.operation) if as_selects else part.operation
                values[part] = operation(*map(value, part.parts))
            return values[part]

        return value(self)

    @property
    def operands(self):
        """The parts that depend on the variable."""
        return [part for part in self.parts if isinstance(part, Program) and not part.is_constant]

    @functools.cached_property
    def is_constant(self):
        """Whether it is of numbers alone."""
        return self is not VARIABLE and not self.operands

    @functools.cached_property
    def operations(self):
        """All programs that it is made of, but for the variable."""
        found, stack = {VARIABLE}, [self]
        while stack:
            program = stack.pop()
            if program not in found:
                found.add(program)
                stack.extend(part for part in program.parts if isinstance(part, Program))
        return found - {VARIABLE}

    @property
    def is_single(self):
        """Whether it is one operation, on the variable and numbers."""
        return all(operand is VARIABLE for operand in self.operands)

    @property
    def is_affine(self):
        """Whether its form shows that it is a multiple of its variable plus a number."""
        return self._keeps((*MULTIPLES, "add", "sub", "add_any"))

    @property
    def is_multiple(self):
        """Whether its form shows that it is a multiple of its variable."""
        return self._keeps(MULTIPLES)

    @property
    def is_bounded(self):
        """Whether its form shows that it is a sum or difference of bounded functions and numbers."""
        is_sum = self.name in ("add", "sub", "neg")
        return self.name in BOUNDED or (is_sum and all(operand.is_bounded for operand in self.operands))

    def _keeps(self, names):
        """Whether it is the variable, or operations of these names in a row, in none of which it is a divisor."""
        if self is VARIABLE:
            return True
        if self.name not in names or len(self.operands) != 1:
            return False
        divides = self.name == "div" and self.operands[0] is not self.parts[0]
        return not divides and self.operands[0]._keeps(names)


BOUNDED = ("tanh", "logistic", "erf", "erfc")
MULTIPLES = ("neg", "copy", "mul", "div")
VARIABLE = Program("variable", None, ())


def factored(name, parts):
    """p (1 + q) for p + p q, so that 1 - t^2, which JAX may write as (1 - t) + (1 - t) t, keeps its digits.

    Only where p is bounded: where it is infinite, p + p q may be no number.
    """
    if name not in ("add", "add_any") or not all(isinstance(part, Program) for part in parts):
        return None
    for p, product in (parts, parts[::-1]):
        if product.name == "mul" and p in product.parts and p.is_bounded:
            q = product.parts[1 - product.parts.index(p)]
            return Program("mul", jnp.multiply, (p, Program("add", jnp.add, (ONE, q))))
    return None


def as_usual(eqn, *values):
    """The output of an equation of a jaxpr, computed as JAX would; at once, where nothing is traced."""
    with contextlib.nullcontext() if is_traced(values) else jax.ensure_compile_time_eval():
        return known(eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params)))


def is_array(x):
    """Whether a value is an array, which stands for itself, and no element of the domain."""
    return isinstance(x, jax.Array | np.ndarray | np.generic)


def listed(outputs):
    """The outputs of an equation as a list; one alone may be given by itself."""
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


ONE = Program("one", jnp.ones_like, (VARIABLE,))
ELEMENTWISE = frozenset(
    "exp log log1p expm1 sqrt rsqrt tanh logistic erf erfc neg abs integer_pow square one_minus_square copy "
    "is_finite not convert_element_type add sub mul div max min pow add_any gt ge lt le eq ne and or select_n "
    "clamp".split()
)
AS_SELECTS = {
    "max": lambda a, b: lax.select(a > b, a, b),
    "min": lambda a, b: lax.select(a < b, a, b),
    "clamp": lambda low, x, high: lax.select(x < low, low, lax.select(x > high, high, x)),
}
