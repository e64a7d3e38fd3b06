"""A check, when enclosures are first used, that this machine computes as `rounding` describes it.

Other versions of XLA, processors and flags may compute otherwise. So each function of `rounding.ELEMENTARY` is tried
once in a process, on the arguments where its measured error was largest.
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

__all__ = ["HARD", "MEASURED", "SelfCheckError", "check_arithmetic", "check_elementary", "hard_arguments"]

# For each dtype and function: arguments and the correctly rounded results, as bits, by `python -m verify.elementary`.
HARD = Path(__file__).with_name("hard_arguments.json")
# What the bounds were measured with; of x86-64 processors with SSE4.2, AVX, AVX2 and AVX-512.
MEASURED = {"backend": ("cpu",), "processor": ("x86_64", "AMD64"), "jaxlib": ("0.10.2", "0.12.0.1")}


class SelfCheckError(RuntimeError):
    """XLA's results on this machine are further from the truth than enclosures allow for."""


def hard_arguments(name, dtype):
    """Arguments of the function of this name in `ELEMENTARY`, and the correctly rounded results."""
    kept = json.loads(HARD.read_text())[dtype.name][name]
    return [np.asarray([int(one, 16) for one in bits.split()], f"u{dtype.itemsize}").view(dtype) for bits in kept]


@functools.cache
def check_arithmetic(backend):
    """Warn, once, where the bounds were not measured on such a machine.

    Raises `SelfCheckError` where XLA rewrites sums as if they were exact, or computes without NaN and infinities.
    """
    here = {"backend": backend, "processor": platform.machine(), "jaxlib": jaxlib.__version__}
    differs = [f"{k} {here[k]}, not {' or '.join(known)}" for k, known in MEASURED.items() if here[k] not in known]
    if differs:
        message = "the error bounds of elementary functions were not measured here, nothing is proven: "
        warnings.warn(message + "; ".join(differs), stacklevel=3)
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
def check_elementary(name, dtype, backend):
    """Raises `SelfCheckError` where a function of `ELEMENTARY` is further from the truth than its bound."""
    bound = ELEMENTARY[name][int(dtype == np.float64)]
    # an odd number, in both orders, so that each is computed in the vectorised loop and in the rest after it
    x, exact = (np.resize(numbers, 101) for numbers in hard_arguments(name, dtype))
    for order in (slice(None), slice(None, None, -1)):
        (y,) = _computed(getattr(lax, name), x[order])
        lower, upper = _computed(lambda y: (round_down(y, bound), round_up(y, bound)), y)
        holds = np.where(np.isnan(y), np.isnan(exact[order]), (lower <= exact[order]) & (exact[order] <= upper))
        if not holds.all():
            worst = holds.argmin()
            raise SelfCheckError(
                f"{name}({x[order][worst]}) in {dtype} on {backend} is {y[worst]}, expected {exact[order][worst]} to "
                f"{bound} floats, so no enclosure with it would hold: {_remedy()}"
            )


def _remedy():
    flags = os.environ.get("XLA_FLAGS", "")
    return f"run without XLA_FLAGS={flags!r}" if flags else f"install jaxlib {MEASURED['jaxlib'][0]}"


def _computed(f, *arrays):
    """The results of f under jit, as NumPy arrays, also while something else is traced or NaN is an error."""
    with jax.ensure_compile_time_eval(), jax.debug_nans(False), jax.debug_infs(False):
        return [np.asarray(y) for y in jax.tree.leaves(jax.jit(f)(*arrays))]
