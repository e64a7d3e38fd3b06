"""How far an exported surrogate is from the real function of its nodes when a runtime computes in floating point.

Of exact operands a node computes y within k u |y|: u is the unit roundoff of the model's type, 2^-24 or 2^-53, and k
is in `ROUNDINGS`. A sum of n products, in any order, with or without fused multiplication and addition, is within
n u / (1 - n u) of the sum of their magnitudes (Higham 2002, section 3.1). By the mean value theorem, the errors of
the operands are carried on times a derivative, the range of which affine arithmetic encloses on sections of the box.
Errors are sums over symbols in [-1, 1] that they share, and a radius, so that a matrix may cancel them.
"""

from typing import NamedTuple

import jax
import numpy as np

from sobolev_utils.enclosures.intervals import Interval
from sobolev_utils.enclosures.sections import Sections, enclose_on
from sobolev_utils.paper.exported import Exported

__all__ = ["ROUNDINGS", "ranges", "rounding_errors"]

# k, which a runtime has to keep for a certificate to hold; 1, as of IEEE 754, for operations that are not here. Of
# functions that are at most 1 it is absolute: within k u. Those of onnxruntime on the CPU were measured at 3 (of
# Sigmoid), 10 (Tanh), 3 (Exp) and 5 (Log); tests/paper/test_exported.py measures them again.
ROUNDINGS = {"Sigmoid": 8, "Tanh": 32, "Exp": 8, "Log": 16, "Div": 2}
ROUNDINGS |= dict.fromkeys(["Neg", "Abs", "Max", "Where", "Identity", "Squeeze", "Expand"], 0)
ABSOLUTE = ("Sigmoid", "Tanh")
WIDEST = 32  # of the tensors whose errors become symbols
SLACK = 2.0**-40  # of each step, for the rounding of these bounds themselves


class Errors:
    """Errors of a tensor on sections: sums over symbols e_k in [-1, 1] of e_k times `terms`, by block of symbols
    (n_sections, n_symbols, ...), and at most `radius`, (n_sections, ...).
    """

    def __init__(self, radius, terms=None):
        self.terms = terms or {}
        total = radius + sum(abs(block).sum(axis=1) for block in self.terms.values())
        self.radius, self.total = radius + SLACK * total, total * (1 + 2 * SLACK)

    def __add__(self, other):
        blocks = self.terms | other.terms
        both = self.terms.keys() & other.terms.keys()
        terms = blocks | {block: self.terms[block] + other.terms[block] for block in both}
        return Errors(self.radius + other.radius + SLACK * (self.total + other.total), terms)

    def times(self, lower, upper):
        """Times any number between `lower` and `upper`; nothing is known where these are not."""
        bounded = np.isfinite(lower) & np.isfinite(upper)
        middle = np.where(bounded, 0.5 * lower + 0.5 * upper, 0)
        half = np.where(bounded, 0.5 * (upper - lower) + SLACK * abs(middle), np.inf)
        radius = abs(middle) * self.radius + np.where(self.total > 0, half * self.total, 0)
        middle = np.broadcast_to(middle, radius.shape)[:, None]
        return Errors(radius, {k: _spread(g, radius.ndim) * middle for k, g in self.terms.items()})

    def dot(self, matrix, block):
        """Times a constant matrix; what has no symbols yet has them of this block, up to WIDEST entries."""
        n = self.radius.shape[-1]
        if n > WIDEST:
            return Errors(self.total @ abs(matrix))
        terms = self.terms | {block: self.radius[:, None] * np.eye(n)[:, None]}
        return Errors(SLACK * (self.total @ abs(matrix)), {k: g @ matrix for k, g in terms.items()})

    def reshaped(self, shape):
        return Errors(
            self.radius.reshape(shape), {k: g.reshape(len(g), -1, *shape[1:]) for k, g in self.terms.items()}
        )


def _spread(block, ndim):
    """A block of symbols with as many axes as the errors that it goes into."""
    return block.reshape(*block.shape[:2], *[1] * (ndim + 1 - block.ndim), *block.shape[2:])


class Values(NamedTuple):
    """What a tensor may be on each section, along the first axis: its exact values, and computed ones' errors."""

    lower: np.ndarray
    upper: np.ndarray
    errors: Errors

    @property
    def magnitude(self):
        return np.maximum(abs(self.lower), abs(self.upper))

    @property
    def computed(self):
        """The least and the largest value that may be computed."""
        return self.lower - self.errors.total, self.upper + self.errors.total


def ranges(model: Exported, sections: Sections) -> dict[str, Interval]:
    """What each tensor that is computed is between, on each section, (n_sections, 1, ...), were nothing rounded."""

    def floats(x):
        return {
            name: y for name, y in model.tensors(x).items() if y.dtype.kind == "f" and name not in model.constants
        }

    with jax.enable_x64(True):
        return enclose_on(floats, sections)


def rounding_errors(
    model: Exported, exact: dict[str, Interval], used: Exported | None = None
) -> dict[str, np.ndarray]:
    """Bounds of |computed - exact| over the sections, by output: price (), deltas (n_inputs,), gamma ().

    exact: the `ranges` of what the nodes of the model make of its constants. computed: what a runtime makes of those
    of `used`, in its type: by default the model itself, or the same surrogate exported in another type. A spot is a
    number of that type. Infinite where a divisor may be zero. Raises ValueError for models of different nodes.
    """
    used = model if used is None else used
    if [str(node) for node in used.nodes] != [str(node) for node in model.nodes]:
        raise ValueError("expected the same surrogate in two types, got models of different nodes")
    info, spots = np.finfo(used.dtype), exact["spots"]
    tensors = {"spots": Values(spots.lower, spots.upper, Errors(np.zeros_like(spots.lower)))}
    for name, constant in model.constants.items():
        other = used.constants[name].astype(constant.dtype)
        with np.errstate(invalid="ignore"):
            change = np.where(constant == other, 0.0, abs(constant - other))
        tensors[name] = Values(constant[None], constant[None], Errors(change[None]))
    for node in model.nodes:
        (name,), operands = node.output, [tensors[each] for each in node.input]
        with np.errstate(all="ignore"):
            if name in exact:
                y = exact[name]
                errors = (
                    _product(node, *operands, info) if node.op_type == "Gemm" else _errors(node, y, operands, info)
                )
                tensors[name] = Values(y.lower, y.upper, errors)
            else:
                tensors[name] = _condition(node, *operands)
    totals = {name: tensors[name].errors.total.max(axis=(0, 1)) for name in ("price", "deltas", "gamma")}
    return {name: np.where(np.isnan(total), np.inf, total) for name, total in totals.items()}


def _errors(node, y, operands, info):
    """The errors of a tensor with exact values y, of an elementwise operation."""
    carried = CARRIED[node.op_type](y, *operands) if node.op_type in CARRIED else operands[0].errors
    if node.op_type == "Squeeze":
        carried = carried.reshaped(y.lower.shape)
    if node.op_type == "Expand":
        carried = Errors(np.broadcast_to(carried.total, y.lower.shape))
    if not (k := ROUNDINGS.get(node.op_type, 1)):
        return carried
    size = 1 if node.op_type in ABSOLUTE else y.magnitude + carried.total
    local = k * (float(info.epsneg) * size + float(info.smallest_normal))
    return carried + Errors(np.broadcast_to(local, y.lower.shape))


def _product(node, a, b, info):
    """The errors of A B for a constant B."""
    is_transposed = any(each.name == "transB" and each.i for each in node.attribute)
    matrix, change = (part[0].T if is_transposed else part[0] for part in (b.lower, b.errors.total))
    size, n = a.magnitude + a.errors.total, len(matrix)
    gamma = n * float(info.epsneg) / (1 - n * float(info.epsneg))
    local = size @ change + gamma * (size @ (abs(matrix) + change)) + 2 * n * float(info.smallest_normal)
    return a.errors.dot(matrix, node.output[0]) + Errors(local)


def _quotient(y, a, b):
    least, most = b.computed
    inverse = (
        np.where((least > 0) | (most < 0), 1 / most, -np.inf),
        np.where((least > 0) | (most < 0), 1 / least, np.inf),
    )
    return (a.errors + b.errors.times(-y.upper, -y.lower)).times(*inverse)


def _slope(y, a, slope, middle, curvature):
    """The errors carried by a function with slope(y), a decreasing function of |y - middle|, of this curvature."""
    ends = slope(y.lower), slope(y.upper)
    inside = (y.lower <= middle) & (middle <= y.upper)
    most = np.where(inside, slope(middle), np.maximum(*ends))
    change = curvature * a.errors.total
    return a.errors.times(np.minimum(*ends) - change, most + change)


def _either(which, a, b, apart):
    """The errors of the case that `which` names, two masks: whether it is surely a, and whether it may be."""
    surely, maybe = which
    chosen = a.errors.times(surely * 1.0, surely * 1.0) + b.errors.times(~maybe * 1.0, ~maybe * 1.0)
    return chosen + Errors(np.where(maybe & ~surely, np.maximum(a.errors.total, b.errors.total) + apart, 0.0))


def _larger(y, a, b):
    (least, most), (other_least, other_most) = a.computed, b.computed
    return _either((least > other_most, most > other_least), a, b, 0.0)


def _selected(y, which, a, b):
    # where it is undecided what is chosen, exact and computed values may be of different cases
    apart = np.maximum(a.upper - b.lower, b.upper - a.lower)
    return _either((which.lower, which.upper), a, b, apart)


# What the errors of operands become, by operation; elsewhere they stay as they are.
CARRIED = {
    "Add": lambda y, a, b: a.errors + b.errors,
    "Sub": lambda y, a, b: a.errors + b.errors.times(-1.0, -1.0),
    "Mul": lambda y, a, b: a.errors.times(b.lower, b.upper) + b.errors.times(*a.computed),
    "Div": _quotient,
    "Neg": lambda y, a: a.errors.times(-1.0, -1.0),
    "Abs": lambda y, a: a.errors.times(
        np.where(a.computed[0] > 0, 1.0, -1.0), np.where(a.computed[1] < 0, -1.0, 1.0)
    ),
    "Max": _larger,
    "Where": _selected,
    "Exp": lambda y, a: a.errors.times(y.lower * np.exp(-a.errors.total), y.upper * np.exp(a.errors.total)),
    "Log": lambda y, a: a.errors.times(1 / a.computed[1], np.where(a.computed[0] > 0, 1 / a.computed[0], np.inf)),
    "Tanh": lambda y, a: _slope(y, a, lambda t: 1 - t * t, 0.0, 0.77),
    "Sigmoid": lambda y, a: _slope(y, a, lambda s: s * (1 - s), 0.5, 0.1),
}


def _condition(node, *operands):
    """Booleans as the least and the largest that they may be, false or true; nothing of what is no value."""
    if node.op_type == "Not":
        return Values(~operands[0].upper, ~operands[0].lower, None)
    if node.op_type not in ("Equal", "Greater"):
        return None
    if node.input[0] == node.input[1]:  # a test of whether it is a number
        always = np.full_like(operands[0].lower, node.op_type == "Equal", bool)
        return Values(always, always, None)
    (least, most), (other_least, other_most) = (x.computed for x in operands)
    if node.op_type == "Greater":
        return Values(least > other_most, most > other_least, None)
    return Values(
        (least == most) & (other_least == other_most) & (least == other_least),
        (least <= other_most) & (other_least <= most),
        None,
    )
