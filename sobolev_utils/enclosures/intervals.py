"""Interval arithmetic for JAX functions: the natural interval extension, by walking its jaxpr.

By the fundamental theorem of interval analysis (Moore, Interval Analysis, 1966) the program of f, with every
operation replaced by its interval equivalent, encloses the range of f on a box. So does that of its adjoint:
interval adjoints are `enclose(lambda x: jax.vjp(f, x)[1](1.0))`, without a second backward pass.

Rounding is outward (see `rounding`): the enclosures hold for the real function with the given floating-point
constants. Elementwise programs of one variable, such as an activation or its derivative, count as one operation with
its exact range (see `ranges`).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from sobolev_utils.enclosures.interval import Interval, bounds, is_floating
from sobolev_utils.enclosures.interval_rules import NATURAL_RULES
from sobolev_utils.enclosures.jaxpr import walk
from sobolev_utils.enclosures.kernels import known
from sobolev_utils.enclosures.ranges import exact_range
from sobolev_utils.enclosures.rounding import normal_down, normal_up
from sobolev_utils.enclosures.self_check import check_arithmetic

__all__ = ["INTERVAL_RULES", "Interval", "box", "enclose", "extension"]

INTERVAL_RULES = NATURAL_RULES | {"univariate": exact_range}


def box(lower, upper):
    """The interval [lower, upper] of concrete numbers, checked; what JAX cannot represent is rounded outward.

    lower, upper: array-likes of one shape and dtype, float32 or float64 (Python numbers are float64, which JAX holds
    in float32 unless x64 is enabled). Raises ValueError for empty, NaN, infinite or crossed bounds, bounds of
    different shapes or dtypes, and other dtypes.
    """
    lower, upper = map(np.asarray, (lower, upper))
    if lower.shape != upper.shape or lower.size == 0:
        raise ValueError(f"expected two nonempty arrays of one shape, got shapes {lower.shape} and {upper.shape}")
    dtypes = {np.dtype(float) if bound.dtype.kind in "iu" else bound.dtype for bound in (lower, upper)}
    if len(dtypes) > 1 or not dtypes <= {np.dtype(np.float32), np.dtype(np.float64)}:
        raise ValueError(f"expected bounds of one dtype, float32 or float64, got {lower.dtype} and {upper.dtype}")
    for bound in (lower, upper):
        if not np.isfinite(bound).all():
            raise ValueError(f"expected finite bounds, got {bound[~np.isfinite(bound)][0]}")
    _check_order(lower, upper)
    return Interval(_outward(lower, -np.inf), _outward(upper, np.inf))


def _outward(bound, limit):
    """A bound of NumPy in JAX's type, normal or zero, rounded towards the limit."""
    whole = bound.dtype.kind in "iu"
    with np.errstate(over="ignore"):
        nearest = np.asarray(jnp.asarray(bound.astype(float) if whole else bound))
        beyond = np.nextafter(nearest, limit, dtype=nearest.dtype)
    # Python compares integers with floats exactly
    pair = [x.astype(object) for x in (nearest, bound)] if whole else [nearest, bound]
    is_inside = np.asarray(pair[0] > pair[1] if limit < 0 else pair[0] < pair[1], bool)
    return jnp.asarray((normal_down if limit < 0 else normal_up)(np.where(is_inside, beyond, nearest)))


def _check_order(lower, upper):
    """Raise ValueError where bounds are crossed or not a number."""
    if not (lower <= upper).all():
        index = tuple(map(int, np.argwhere(~(lower <= upper))[0]))
        raise ValueError(f"expected lower <= upper, got [{lower[index]}, {upper[index]}] at index {index}")


def enclose(f, *, exact_ranges=True):
    """The interval extension of f: F(X) encloses {f(x): x in X}, rounding included.

    F takes the arguments of f, pytrees in which an `Interval` may stand for any floating-point array; other arrays
    are exact. It returns the output of f with an `Interval` for every floating-point array and undecided boolean. It
    may be jitted and vmapped; called as it is, it compiles next to nothing, as NumPy computes what is known. Without
    `exact_ranges` each operation is enclosed alone, an activation by its parts.

    sqrt on [-1, 1], say, is enclosed over the part of the box in its domain; comparisons, `isnan` and `isfinite` of
    values that may be undefined (nan) are undecided. A division by an interval that holds zero gives the whole line.
    All holds given `rounding.ELEMENTARY`, error bounds measured on the CPU; on another machine there is a warning.

    Raises NotImplementedError, with the primitive and its source line, for an operation without a rule, or without
    one for undecided integers, such as an index; TypeError where no argument is an `Interval`; ValueError for crossed
    bounds, and for nan in bounds and constants (where these are traced, as under jit, the whole line is returned
    instead); `self_check.SelfCheckError` where XLA's results on this machine are not within the error bounds.
    """
    return extension(f, lambda: (lambda x: x, INTERVAL_RULES if exact_ranges else NATURAL_RULES))


def extension(f, domain):
    """f in another domain, whose elements have `lower` and `upper`, with the same signature.

    `domain()` returns, for one call, the map of an `Interval` into the domain and the rules for `walk`.
    """

    @functools.wraps(f)
    def extended(*args, **kwargs):
        leaves, tree = jax.tree.flatten((args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Interval))

        def flat(*points):
            args, kwargs = jax.tree.unflatten(tree, points)
            return f(*args, **kwargs)

        check_arithmetic(jax.default_backend())
        _check_arguments(leaves)
        leaves = [_of_jax(x) if isinstance(x, Interval) else x for x in leaves]
        points = [jax.ShapeDtypeStruct(x.shape, x.dtype) if isinstance(x, Interval) else x for x in leaves]
        closed, shapes = jax.make_jaxpr(flat, return_shape=True)(*points)
        lift, rules = domain()
        # a new element for each argument, as `a is b` means in the rules that both are the same variable
        values = [
            lift(dataclasses.replace(x, lower=normal_down(x.lower), upper=normal_up(x.upper)))
            if isinstance(x, Interval)
            else known(jnp.asarray(x, v.dtype))
            for x, v in zip(leaves, closed.in_avals, strict=True)
        ]
        with np.errstate(all="ignore"):
            outputs = walk(closed.jaxpr, known(closed.consts), values, rules)
        outputs = [Interval(*bounds(y)) if is_floating(y) else y for y in outputs]
        broken = _not_a_number([*leaves, *closed.consts])
        if broken is not None:
            outputs = [_unknown_where(broken, y) for y in outputs]
        outputs = [jax.tree.map(jnp.asarray, y) for y in outputs]
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return extended


def _check_arguments(leaves):
    """Raise unless there are intervals among the arguments, all of ordered floating-point bounds."""
    boxes = [x for x in leaves if isinstance(x, Interval)]
    if not boxes:
        got = ", ".join(sorted({type(x).__name__ for x in leaves})) or "none"
        raise TypeError(f"expected an Interval among the arguments, got {got}: make one by box(lower, upper)")
    for x in boxes:
        kinds = {(np.shape(end), str(getattr(end, "dtype", type(end).__name__))) for end in (x.lower, x.upper)}
        if len(kinds) > 1 or not {kind for _, kind in kinds} <= {"float32", "float64"}:
            raise ValueError(f"expected bounds of one shape and dtype, float32 or float64, got {sorted(kinds)}")
        if not any(isinstance(end, jax.core.Tracer) for end in (x.lower, x.upper)):
            _check_order(np.asarray(x.lower), np.asarray(x.upper))


def _of_jax(x):
    """An interval with bounds of JAX, to which those of NumPy are rounded outward."""
    is_numpy = isinstance(x.lower, np.ndarray | np.generic) and isinstance(x.upper, np.ndarray | np.generic)
    return Interval(_outward(x.lower, -np.inf), _outward(x.upper, np.inf)) if is_numpy else x


def _not_a_number(arguments):
    """Whether a traced argument holds nan or crossed bounds; None if none is traced."""
    broken = []
    for x in arguments:
        if isinstance(x, Interval) and isinstance(x.lower, jax.core.Tracer):
            broken.append((~(x.lower <= x.upper)).any())
        elif isinstance(x, jax.core.Tracer) and is_floating(x):
            broken.append(jnp.isnan(x).any())
    return functools.reduce(jnp.logical_or, broken) if broken else None


def _unknown_where(broken, y):
    """An output of which nothing is known where an argument is broken, which operations may hide, as tanh does."""
    if not isinstance(y, Interval):
        return y
    if y.dtype == bool:
        least, most = False, True
    else:
        least, most = (-jnp.inf, jnp.inf) if is_floating(y) else (jnp.iinfo(y.dtype).min, jnp.iinfo(y.dtype).max)
    return Interval(jnp.where(broken, least, y.lower), jnp.where(broken, most, y.upper))
