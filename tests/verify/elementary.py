"""The error bounds of the elementary functions, measured: `python -m verify.elementary`, half an hour.

In float32 every function is tried on all 2^32 arguments, in float64 on 2^25, of which some are searched for: in long
vectors, in short ones and number by number. The judge is float64, or long double for float64, and ball arithmetic
where that cannot tell, and for the largest distances. Writes results/tables/elementary.csv and the arguments that
`self_check` tries. With --quick it is 2^26 and 2^21 arguments, and nothing is written.
"""

import argparse
import functools
import json
import multiprocessing
import os
import sys
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
import scipy.special
from flint import arb, ctx
from jax import lax
from tqdm import tqdm

from sobolev_utils.enclosures.rounding import ELEMENTARY
from sobolev_utils.enclosures.self_check import HARD
from sobolev_utils.paper.artifacts import results_folder
from sobolev_utils.paper.files import write_bytes
from sobolev_utils.paper.outputs import save_table

# Each of 2^8 parts is 2^24 arguments, in pieces that stay in the cache.
PARTS, PIECES, PIECE = 2**8, 2**8, 2**16
QUICK = {np.float32: (PARTS, 4), np.float64: (2, 16)}
WHOLE = {np.float32: (PARTS, PIECES), np.float64: (2, PIECES)}
# Judged by ball arithmetic for each function, and kept for the self-check.
WORST, KEPT = 1000, 20
# Relative error that the judges in float64 are granted, in units of 2^-53; found below 11.
GRANTED = 64

BALLS = {"logistic": lambda x: 1 / (1 + (-x).exp())}
JUDGES = {
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "erf": lambda x: scipy.special.erf(x.astype(np.float64)),
    "erfc": lambda x: scipy.special.erfc(x) if x.dtype == np.float64 else longer_erfc(x),
}


def longer_erfc(x):
    """To a few units of 2^-53 in long double, where float64 loses what it rounds of the square."""
    short = x.astype(np.float64)
    return np.where(x < 0.5, scipy.special.erfc(short), np.exp(-x * x) * scipy.special.erfcx(short))


class Part(NamedTuple):
    """How many arguments were tried, and those of the largest distances found, with these."""

    name: str
    dtype: type
    arguments: int
    steps: np.ndarray
    worst: np.ndarray
    undecided: np.ndarray


def try_part(task):
    """One part of the arguments of one function."""
    name, dtype, part, pieces = task
    rng, arguments = np.random.default_rng(part), 0
    steps, worst, undecided = np.zeros(0), np.zeros(0, dtype), []
    for piece in range(pieces):
        x = float32_piece(part, piece) if dtype == np.float32 else float64_piece(rng, piece, worst)
        rows, few = x[rng.integers(PIECE, size=(64, 7))], x[rng.integers(PIECE, size=64)]
        y = np.concatenate([computed(name, x), one_by_one(name, rows).ravel(), one_by_one(name, few)])
        x = np.concatenate([x, rows.ravel(), few])
        inside = ~(x < ELEMENTARY[name][2])
        exact, is_open = judged(name, x)
        arguments += int(inside[:PIECE].sum())
        undecided.append(x[is_open & inside])
        suspects = np.flatnonzero(inside & (bits_between(y, exact) >= 0.8 * steps.max(initial=1)))
        found = distance(y[suspects], exact[suspects])
        if found.max(initial=0) >= 0.8 * steps.max(initial=0):
            high = np.flatnonzero(found >= 0.8 * found.max(initial=0))[:WORST]
            steps, worst = np.concatenate([steps, found[high]]), np.concatenate([worst, x[suspects[high]]])
            order = np.argsort(-steps, kind="stable")[:WORST]
            steps, worst = steps[order], worst[order]
    return Part(name, dtype, arguments, steps, worst, np.concatenate(undecided))


def float32_piece(part, piece):
    """Bit patterns of a part of all, every 61st: over the pieces each of the part's comes once."""
    steps = np.arange(piece * PIECE, (piece + 1) * PIECE, dtype=np.uint32) * np.uint32(61)
    return (np.uint32(part * 2**24) + (steps & np.uint32(2**24 - 1))).view(np.float32)


def float64_piece(rng, piece, worst):
    """Bit patterns; numbers of all magnitudes and where functions change; near k log 2 / 2; near the worst so far."""
    signs = rng.choice([-1, 1], PIECE)
    if piece % 4 == 0:
        return rng.integers(0, 2**64, PIECE, np.uint64).view(np.float64)
    if piece % 4 == 1:
        x = rng.choice([1, 8, 32, 750], PIECE) * rng.uniform(size=PIECE)
        return signs * np.where(rng.uniform(size=PIECE) < 0.5, x, 10 ** rng.uniform(-20, 3, PIECE))
    centre = rng.choice(worst, PIECE) if piece % 4 == 3 else rng.integers(1, 2200, PIECE) * np.log(2) / 2
    centre = np.where(rng.uniform(size=PIECE) < 0.2, rng.choice([1, 0.5, 2, 2**0.5], PIECE), centre)
    return signs ** (piece % 4) * centre * (1 + rng.normal(size=PIECE) * 2.0 ** rng.uniform(-54, 0, PIECE))


def judged(name, x):
    """The results rounded to the dtype of x, and where the rounding may be the wrong one of two."""
    # XLA reads subnormal numbers as zero, and bounds are never subnormal
    x = np.where(np.abs(x) < np.finfo(x.dtype).smallest_normal, np.copysign(x.dtype.type(0), x), x)
    judge = JUDGES.get(name) or getattr(np, name)
    exact = judge(x.astype(np.float64 if x.dtype == np.float32 else np.longdouble))
    if x.dtype == np.float64:
        return exact.astype(np.float64), np.zeros(x.shape, bool)
    # of the 29 bits that float32 does not hold, the first is not that of the others
    low = exact.view(np.uint64).astype(np.uint32) + np.uint32(GRANTED - 2**28 + 2**32)
    return exact.astype(np.float32), (low & np.uint32(2**29 - 1)) < 2 * GRANTED


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


def bits_between(y, exact):
    """How far two bit patterns are apart: the distance, where neither sign nor subnormal numbers come in between."""
    kind = "i4" if y.dtype == np.float32 else "i8"
    return np.abs(y.view(kind) - exact.view(kind)).view(kind.replace("i", "u"))


def computed(name, x):
    """XLA's results for all of x at once."""
    return np.asarray(compiled(name)[0](x))


def one_by_one(name, x):
    """The same in a loop over the first axis."""
    return np.asarray(compiled(name)[1](x))


@functools.cache
def compiled(name):
    f = getattr(lax, name)
    return jax.jit(f), jax.jit(lambda x: lax.map(f, x))


def rounded(name, x):
    """The correctly rounded result, by ball arithmetic; where it is no finite number, the judge's."""
    info = np.finfo(x.dtype)
    for ctx.prec in (200, 2000):
        ball = BALLS.get(name, getattr(arb, name, None))(arb(float(x))) if np.isfinite(x) and x != 0 else arb("nan")
        if not ball.is_finite():
            return judged(name, x[None])[0][0]
        mantissa, exponent = ball.mid().man_exp()
        exponent = int(exponent) + int(mantissa).bit_length()
        if not info.minexp <= exponent <= info.maxexp or mantissa == 0:
            return x.dtype.type(np.sign(int(mantissa)) * (np.inf if exponent > info.maxexp and mantissa else 0.0))
        shift = info.nmant + 1 - exponent
        whole = (ball * arb(2) ** shift + arb(0.5)).floor().unique_fmpz()
        if whole is not None:
            return np.ldexp(float(int(whole)), -shift).astype(x.dtype)
    raise ArithmeticError(f"{name}({x!r}) lies too near the middle of two floats")


def summary(name, dtype, parts):
    """A row of the table, and arguments to keep with their results: the worst of all, of parts, and all kinds."""
    info, start = np.finfo(dtype), dtype(ELEMENTARY[name][2])
    few = np.asarray([0, info.tiny, 0.1, 1, 7.3, 1e9, info.max, np.inf], dtype)
    few = np.concatenate([few, -few, [np.nan]], dtype=dtype)
    few = few[~(few < start)]
    parts = sorted(parts, key=lambda part: -part.steps.max(initial=0))
    spread = np.concatenate([few, *(part.worst[:1] for part in parts)])
    worst, steps = (np.concatenate([getattr(part, field) for part in parts]) for field in ("worst", "steps"))
    worst = worst[np.argsort(-steps, kind="stable")[:WORST]]
    x = np.unique(np.concatenate([worst, spread, *(part.undecided for part in parts)]))
    exact = np.asarray([rounded(name, one) for one in x])
    y = computed(name, np.resize(x, PIECE))[: len(x)], one_by_one(name, x)
    found = np.max([distance(one, exact) for one in y], 0)
    if dtype == np.float32 and found.max() != steps.max(initial=0):
        raise ArithmeticError(f"{name}: by float64 at most {steps.max(initial=0)} steps, by balls {found.max()}")
    row = {
        "function": name,
        "precision": dtype.__name__,
        "arguments": sum(part.arguments for part in parts),
        "largest_error_steps": int(found.max()),
        "at": float(x[found.argmax()]).hex(),
        "bound_steps": ELEMENTARY[name][int(dtype == np.float64)],
    }
    hard = x[np.argsort(-found, kind="stable")[:KEPT]]
    hard = np.unique(np.concatenate([hard, spread[: len(few) + KEPT]]))
    return row, (hard, np.asarray([rounded(name, one) for one in hard]))


def as_bits(x):
    return " ".join(f"{bits:x}" for bits in x.view(f"u{x.dtype.itemsize}").tolist())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="functions, default all")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    sizes = QUICK if options.quick else WHOLE
    keys = [(name, dtype) for name in options.names or ELEMENTARY for dtype in sizes]
    tasks = [(*key, part, sizes[key[1]][1]) for key in keys for part in range(sizes[key[1]][0])]
    parts = {key: [] for key in keys}
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0)), prepare) as pool:
        for part in tqdm(pool.imap(try_part, tasks), total=len(tasks), file=sys.stdout, ncols=80, mininterval=10):
            parts[part.name, part.dtype].append(part)
    rows, hard = [], {dtype.__name__: {} for dtype in sizes}
    for (name, dtype), found in parts.items():
        row, (x, y) = summary(name, dtype, found)
        hard[dtype.__name__][name] = [as_bits(x), as_bits(y)]
        rows.append(row)
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    if not options.quick and not options.names:
        save_table(results_folder(), "elementary", table, formats=("csv",))
        write_bytes(HARD, (json.dumps(hard, indent=1) + "\n").encode())
    return int((table.largest_error_steps > table.bound_steps).any())


def prepare():
    jax.config.update("jax_enable_x64", True)
    np.seterr(all="ignore")


if __name__ == "__main__":
    prepare()
    sys.exit(main())
