"""Is this machine's arithmetic the one that enclosures are built on? Asked of it when they are first used.

They hold given two things: floating-point operations as `rounding` describes them, and the error bounds of the
elementary functions, `rounding.ELEMENTARY`. Both are facts about XLA's programs, which other versions, processors
and flags may change. So each function is tried once in a process, on the arguments where it was furthest from the
truth when its bound was measured.
"""

import functools
import json
import os
import platform
import warnings
from pathlib import Path

import jax
import jaxlib
import numpy as np
from jax import lax

from sobolev_utils.enclosures.rounding import ELEMENTARY, round_down, round_up

__all__ = [
    "HARD",
    "MEASURED",
    "SelfCheckError",
    "check_arithmetic",
    "check_elementary",
    "distance",
    "hard_arguments",
]

# For each dtype and function: arguments and the correctly rounded results, as bits, by `python -m verify.elementary`.
HARD = Path(__file__).with_name("hard_arguments.json")
# What the bounds were measured with; of x86-64 processors with SSE4.2, AVX, AVX2 and AVX-512.
MEASURED = {"backend": ("cpu",), "processor": ("x86_64", "AMD64"), "jaxlib": ("0.10.2", "0.12.0.1")}


class SelfCheckError(RuntimeError):
    """What XLA computes on this machine is further from the truth than enclosures allow for."""


def check_arithmetic():
    """Warn, once, where the bounds were not measured on such a machine.

    Raises `SelfCheckError` where XLA rewrites sums as if they were exact, or computes without NaN and infinities.
    """
    _check_arithmetic(jax.default_backend())


def check_elementary(name, dtype):
    """Raises `SelfCheckError` where a function of `ELEMENTARY` is further from the truth than its bound."""
    _check_elementary(name, np.dtype(dtype), jax.default_backend())


def hard_arguments(name, dtype):
    """Arguments of the function of this name in `ELEMENTARY`, and the correctly rounded results."""
    kept = json.loads(HARD.read_text())[dtype.name][name]
    return [np.asarray([int(one, 16) for one in bits.split()], f"u{dtype.itemsize}").view(dtype) for bits in kept]


@functools.cache
def _check_arithmetic(backend):
    here = {"backend": backend, "processor": platform.machine(), "jaxlib": jaxlib.__version__}
    if others := [
        f"{what} {here[what]}, not {' or '.join(had)}" for what, had in MEASURED.items() if here[what] not in had
    ]:
        text = "; ".join(others)
        warnings.warn(
            f"the error bounds of elementary functions were not measured here, nothing is proven: {text}",
            stacklevel=4,
        )
    one = np.ones((), jax.dtypes.canonicalize_dtype(float))
    special = np.asarray([np.nan, np.inf, -np.inf], one.dtype)
    lost, down, up = _computed(lambda x, y, z: ((x + y) - x, round_down(z), round_up(z)), one * 2**60, one, special)
    largest = np.finfo(one.dtype).max
    if lost != 0 or list(down) != [-np.inf, largest, -np.inf] or list(up) != [np.inf, np.inf, -largest]:
        raise SelfCheckError(
            f"XLA does not compute as enclosures need it on {backend}: (2^60 + 1) - 2^60 is {lost}, expected 0, and "
            f"NaN, inf and -inf are rounded to {down} and {up}: {_remedy()}"
        )


@functools.cache
def _check_elementary(name, dtype, backend):
    bound = ELEMENTARY[name][int(dtype == np.float64)]
    # an odd number and in both orders: computed in the vectorised loop, and one by one in what is left over
    x, exact = (np.resize(numbers, 101) for numbers in hard_arguments(name, dtype))
    for order in (slice(None), slice(None, None, -1)):
        (y,) = _computed(getattr(lax, name), x[order])
        steps = distance(y, exact[order])
        if (steps > bound).any():
            worst = steps.argmax()
            raise SelfCheckError(
                f"{name}({x[order][worst]}) in {dtype} on {backend} is {y[worst]}, expected {exact[order][worst]} to "
                f"{bound} floats, so no enclosure with it would hold: {_remedy()}"
            )


def _remedy():
    flags = os.environ.get("XLA_FLAGS", "")
    return f"run without XLA_FLAGS={flags!r}" if flags else f"install jaxlib {MEASURED['jaxlib'][0]}"


def _computed(f, *arrays):
    """What XLA makes of f, as NumPy arrays, also while something else is traced or NaN is looked for."""
    with jax.ensure_compile_time_eval(), jax.debug_nans(False), jax.debug_infs(False):
        return [np.asarray(y) for y in jax.tree.leaves(jax.jit(f)(*arrays))]


def distance(y, exact):
    """|y - exact| in steps on the grid of the normal numbers of their dtype, zero and the infinities.

    Subnormal numbers count as zero. NaN has no distance from NaN, and an infinite one from anything else.
    """
    y, exact = np.asarray(y), np.asarray(exact)
    # exact integers, also of the difference of two float64 numbers of opposite sign
    wide = np.int64 if y.dtype == np.float32 else np.longdouble
    steps = np.abs(np.subtract(_place(y), _place(exact), dtype=wide))
    return np.where(np.isnan(y) != np.isnan(exact), np.iinfo(np.int64).max, np.where(np.isnan(y), 0, steps))


def _place(x):
    """The place of each number on the grid, with that of zero 0."""
    bits = x.view(np.int32 if x.dtype == np.float32 else np.int64)
    largest, smallest = np.iinfo(bits.dtype).max, np.finfo(x.dtype).smallest_normal.view(bits.dtype)
    magnitude = np.maximum((bits & largest) - (smallest - 1), 0)
    return np.where(bits < 0, -magnitude, magnitude)
