"""A case to enclose: a function in JAX, beside the same in exact or ball arithmetic.

Enclosures hold for the real function with the floating-point constants of the program, so oracles round theirs too.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb
from oracles import exact

__all__ = ["EXACT", "Case", "elementwise", "of_one", "of_two", "pulled_back", "rounding", "slope"]

# Bits that hold every sum of products of float64 numbers.
EXACT = 4400


@dataclass(frozen=True)
class Case:
    """f and its oracle, which takes and returns arrays of arb with more axes in front.

    shapes: those of the arguments, boxes but for the last `constants`, which are numbers. bits: of the oracle.
    steps: floats by which an enclosure may be too wide, at least at some points. around: numbers to look at closely.
    """

    f: Callable
    oracle: Callable
    shapes: tuple = ((),)
    constants: int = 0
    bits: int = EXACT
    steps: int = 128
    around: tuple = ()


def elementwise(oracle, n):
    """A function of n numbers, for arrays of objects."""
    return np.frompyfunc(oracle, n, 1)


def rounding(dtype):
    """What a constant of a program becomes in this type."""
    return lambda value: arb(float(dtype(value)))


def slope(f):
    """The derivative of an elementwise function, by the reverse mode."""

    @functools.wraps(f)
    def derivative(x):
        y, pullback = jax.vjp(f, x)
        return pullback(jnp.ones_like(y))[0]

    return derivative


def pulled_back(f):
    """The adjoint of x for the adjoint y of f(x), elementwise."""

    def adjoint(x, y):
        x, y = jnp.broadcast_arrays(x, y)
        return jax.vjp(f, x)[1](y)[0]

    return adjoint


def of_one(f, oracle, bits=EXACT, **options):
    """f of a box."""
    return Case(f, elementwise(oracle, 1), bits=bits, **options)


def of_two(dtype, f, oracle, bits=EXACT):
    """f of two boxes, and of a box and a constant: as data, and folded into the program, subnormal or huge."""
    info = np.finfo(dtype)
    folded = np.asarray([3, -0.1, 0, 1, info.tiny / 4, -1.5 * info.tiny, info.max / 2], dtype)

    def every(x, y, c, f, folded):
        return f(x, y), f(x, c), f(c, x), f(x[..., None], folded), f(folded, x[..., None])

    return Case(
        lambda x, y, c: every(x, y, c, f, folded),
        lambda x, y, c: every(x, y, c, elementwise(oracle, 2), exact(folded)),
        shapes=((), (), ()),
        constants=1,
        bits=bits,
    )
