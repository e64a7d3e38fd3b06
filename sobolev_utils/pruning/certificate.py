r"""How far a surrogate is from its reference model, in price, deltas and gamma: bounds proven over a whole box.

The error e(x) = V(x) - f(x), its gradient and v'H v of its Hessian H are enclosed by affine arithmetic, in which what
both have in common cancels, on sections a <= w'x <= b of the box (see `sections`). w is the direction along which V
varies most, the leading eigenvector of E g g' with its gradients g (Constantine 2014: active subspace). Sections are
halved until all bounds are within a tolerance of the largest error that a search finds from inside.

What is proven assumes that `rounding.ELEMENTARY` bounds the errors of XLA's elementary functions. It holds for
surrogate and reference evaluated exactly, with their stored numbers; for an exported model `paper.floating_point`
bounds what rounding adds.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import qmc
from tqdm import tqdm

from sobolev_utils.enclosures.intervals import Interval, box
from sobolev_utils.enclosures.sections import AT_ONCE, Sections, bounds_on, enclose_on, halved, worst
from sobolev_utils.learning.hessian_products import principal_directions
from sobolev_utils.pruning.attained import largest

__all__ = ["TOLERANCES", "Bound", "Certificate", "certify", "sections_across"]

TOLERANCES = {"price": 1.2, "delta": 1.3, "gamma": 1.5}
SECTIONS = 128  # to begin with
LOOK_AGAIN = 8  # times as many, and points of the worst ones are tried


@dataclass(frozen=True)
class Bound:
    """Of the m errors of a quantity and, last, of their Euclidean norm over the box: arrays of length m + 1.

    proven: bounds of each from above; found: the largest that a search found from inside, at the points (m + 1, n) of
    `where`. The truth lies between. sections: those on which the bounds are attained. rounding: how much of a bound
    comes from rounding in the proof, that is how wide the enclosure of a single point is. boxes: the number of
    sections in the proof; seconds: the time that it took, compilation included.
    """

    proven: np.ndarray
    found: np.ndarray
    where: np.ndarray
    sections: Sections
    rounding: np.ndarray
    boxes: int
    seconds: float

    @property
    def ratio(self) -> float:
        """The largest proven / found: how tight the bounds are at least."""
        proven, found = self.proven, self.found
        return float(np.divide(proven, found, out=np.where(proven > 0, np.inf, 1.0), where=found > 0).max())


@dataclass(frozen=True)
class Certificate:
    """Proven bounds of the errors over the box from `lower` to `upper`, (n,), by quantity; the gamma is v'Hv along
    `direction`, v.
    """

    lower: np.ndarray
    upper: np.ndarray
    direction: np.ndarray
    bounds: Mapping[str, Bound]

    def rows(self) -> list[dict]:
        """A row for price, the worst single delta, the norm of all deltas, and gamma."""
        rows = []
        for quantity, bound in self.bounds.items():
            parts = {quantity: slice(-1), f"{quantity}_norm": slice(-1, None)}
            for name, part in parts.items() if len(bound.proven) > 2 else [(quantity, slice(-1))]:
                row = {"quantity": name, "proven": bound.proven[part].max(), "sampled": bound.found[part].max()}
                rows.append(row | {"boxes": bound.boxes, "seconds": bound.seconds})
        return rows


def certify(
    surrogate: Callable,
    reference: object,
    inputs: Interval,
    *,
    direction: ArrayLike | None = None,
    tolerances: Mapping[str, float] = TOLERANCES,
    enough: Mapping[str, ArrayLike] | None = None,
    seconds: float = np.inf,
    boxes: int = 2**14,
) -> Certificate:
    """Proven bounds of sup |V - f|, sup |dV/dx_i - df/dx_i| and sup |v'(H_V - H_f)v| over a box `inputs`, (n,).

    surrogate, V, and reference, f: JAX functions (n,) -> (), such as a `Surrogate`, or objects with `value` and,
    where they have it, `delta`, (n,) -> (n,), and `gamma`, (n,) -> (), along their `direction` or else (1, ..., 1).
    What they have not is derived by JAX, as is a gamma along another direction than v, (n,), by default (1, ..., 1).

    Each quantity in `tolerances` is proven until all its bounds are so many times what is found from inside, until
    there are `boxes` sections, or its share of `seconds` is over; what is returned is proven in each case. enough:
    instead of tolerances bounds, as in `Bound.proven`, that are to be proven, unless one is found to be exceeded.

    Raises TypeError for what is not a JAX function, ValueError for another number of inputs or outputs, for a
    tolerance not above 1, and where a surrogate or reference is not finite in the box.
    """
    if unknown := set(tolerances) - set(TOLERANCES):
        raise ValueError(f"expected tolerances for quantities of {sorted(TOLERANCES)}, got {sorted(unknown)}")
    if bad := {name: tolerance for name, tolerance in tolerances.items() if not tolerance > 1}:
        raise ValueError(f"a tolerance is a ratio above 1 of proven to found, got {bad}")
    with jax.enable_x64(True):
        wide = box(*(np.asarray(end, float) for end in (inputs.lower, inputs.upper)))
        if len(wide.shape) != 1:
            raise ValueError(f"expected a box of inputs (n,), got shape {wide.shape}")
        v = np.ones(wide.shape) if direction is None else np.asarray(direction, float)
        if v.shape != wide.shape or not np.isfinite(v).all():
            raise ValueError(f"expected a direction of {wide.shape[0]} finite numbers, got {direction}")
        names, given = ("surrogate", "reference"), (surrogate, reference)
        models = [_derived(*each, wide, v) for each in zip(names, given, strict=True)]
        errors = {quantity: _error(*(model[quantity] for model in models)) for quantity in tolerances}
        found, influence = _from_inside(*(model["price"] for model in models), errors, wide)
        sections = sections_across(models[0]["price"], wide)
        bounds, end = {}, time.monotonic() + seconds
        for number, (quantity, error) in enumerate(errors.items()):
            left = (end - time.monotonic()) / (len(errors) - number)
            target = tolerances[quantity] if enough is None else np.asarray(enough[quantity], float)
            bounds[quantity] = _prove(quantity, error, sections, found[quantity], target, influence, boxes, left)
    return Certificate(np.asarray(wide.lower), np.asarray(wide.upper), v, bounds)


def sections_across(f: Callable, inputs: Interval, count: int = SECTIONS) -> Sections:
    """Sections of a box (n,) of equal thickness, across the direction along which f: (n,) -> () varies most."""
    gradients = jax.jit(jax.vmap(jax.grad(f)))(_points(inputs))
    return Sections.of(inputs, np.asarray(principal_directions(gradients, 1))[0], count)


def _points(inputs):
    unit = qmc.Sobol(inputs.shape[0], rng=0).random(2**9)
    return inputs.lower + (inputs.upper - inputs.lower) * unit


def _derived(name, model, inputs, v):
    """Price, deltas and gamma of a model, functions of x (n,): its own where it has them, else by JAX."""
    value, own = getattr(model, "value", model), hasattr(model, "value")
    try:
        y = jax.eval_shape(value, jax.ShapeDtypeStruct(inputs.shape, inputs.dtype))
    except (ValueError, NotImplementedError):
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise TypeError(f"expected as {name} a JAX function of inputs {inputs.shape}: {reason}") from error
    if getattr(y, "shape", None) != ():
        got = getattr(y, "shape", type(y).__name__)
        raise ValueError(f"the {name} must have one output, of shape () for inputs {inputs.shape}, got {got}")

    def along(f):
        return lambda x: jax.jvp(f, (x,), (jnp.asarray(v, x.dtype),))[1]

    delta = getattr(model, "delta", None) if own else None
    is_along = np.array_equal(getattr(model, "direction", np.ones(v.shape)), v)
    gamma = getattr(model, "gamma", None) if own and is_along else None
    return {"price": value, "delta": delta or jax.grad(value), "gamma": gamma or along(along(value))}


def _error(f, g):
    """The difference of two functions, (n,) -> (m,)."""
    return lambda x: jnp.atleast_1d(f(x) - g(x))


def _from_inside(surrogate, reference, errors, inputs):
    """The largest errors that a search finds, and where, by quantity; the influence of each direction on them."""

    def magnitudes(x):
        return jnp.abs(jnp.concatenate([_with_norm(error(x)) for error in errors.values()]))

    most, where = map(np.asarray, largest(magnitudes, inputs))
    if not np.isfinite(most).all():
        x = where[~np.isfinite(most)][0]
        raise ValueError(
            f"the error is not finite in the box: at x = {x.tolist()} the surrogate is {surrogate(jnp.asarray(x))} "
            f"and the reference {reference(jnp.asarray(x))}, derivatives apart; choose a box inside both domains"
        )
    # where the slope of the error changes, its enclosure is wide
    curvature = jax.jit(jax.vmap(jax.hessian(lambda x: surrogate(x) - reference(x))))(_points(inputs))
    influence = np.nan_to_num(np.einsum("sik,sjk->ij", curvature, curvature))
    influence += np.finfo(float).tiny * np.eye(len(influence))  # of no error: the widest side
    sizes = [jax.eval_shape(error, where[0]).shape[0] + 1 for error in errors.values()]
    ends = np.cumsum(sizes)[:-1]
    found = dict(zip(errors, zip(np.split(most, ends), np.split(where, ends), strict=True), strict=True))
    return found, influence


def _prove(quantity, error, sections, found, target, influence, boxes, seconds) -> Bound:
    """target: how many times what is found is enough, or the bounds that are, (m + 1,)."""
    start, (most, where) = time.monotonic(), found
    search = jax.jit(jax.vmap(lambda x: _with_norm(error(x))))
    bounds = bounds_on(error, sections)
    with tqdm(total=boxes, desc=quantity, unit="section", file=sys.stdout, mininterval=0.5, ncols=80) as bar:
        bar.update(len(sections))
        while True:
            is_exceeded = np.ndim(target) and (most > target).any()
            rows = worst(bounds, target if np.ndim(target) else target * most)
            if is_exceeded or not len(rows) or len(bounds.sections) >= boxes or time.monotonic() - start > seconds:
                break
            bounds = halved(error, bounds, rows, influence)
            bar.update(len(bounds.sections) - bar.n)
            if len(bounds.sections) > LOOK_AGAIN * SECTIONS:  # the search may have missed what the bounds point to
                parts = bounds.sections[np.argsort(-(bounds.of_each / bounds.largest).max(axis=1))[:AT_ONCE]]
                x = np.clip(0.5 * parts.lower + 0.5 * parts.upper, parts.lower, parts.upper)
                y = np.abs(search(x))
                where = np.where((y.max(axis=0) > most)[:, None], x[y.argmax(axis=0)], where)
                most = np.maximum(most, y.max(axis=0))
    rounding = 0.5 * enclose_on(error, Sections.at(where, sections.direction)).width
    rounding = np.append(rounding.max(axis=0), np.linalg.norm(rounding[-1]))
    attained = bounds.sections[bounds.of_each.argmax(axis=0)]
    seconds = time.monotonic() - start
    return Bound(bounds.largest, most, where, attained, rounding, len(bounds.sections), seconds)


def _with_norm(y):
    return jnp.append(y, jnp.linalg.norm(y))
