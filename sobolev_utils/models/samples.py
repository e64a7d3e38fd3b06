"""What a surrogate learns from: labels at inputs, with derivatives of several kinds, in shapes that fit."""

from typing import NamedTuple, TypeVar

import jax
import numpy as np

from sobolev_utils.arrays import as_floats

__all__ = ["CurvedSamples", "Samples", "StripSamples", "as_samples", "not_finite"]


class Samples(NamedTuple):
    """Inputs x (n_samples, n_inputs), labels y (n_samples,), derivatives dydx (n_samples, n_inputs) or None."""

    x: jax.Array
    y: jax.Array
    dydx: jax.Array | None = None


class CurvedSamples(NamedTuple):
    """Samples, and Hessian-vector products hvp along k directions, both (n_samples, k, n_inputs)."""

    x: jax.Array
    y: jax.Array
    dydx: jax.Array
    directions: jax.Array
    hvp: jax.Array


class StripSamples(NamedTuple):
    """Labels y (n_samples, m) of m outputs, and vector-Jacobian products vjp (n_samples, k, n_inputs) along k
    cotangents (n_samples, k, m).
    """

    x: jax.Array
    y: jax.Array
    cotangents: jax.Array
    vjp: jax.Array


AnySamples = TypeVar("AnySamples", Samples, CurvedSamples, StripSamples)


def as_samples(samples: AnySamples) -> AnySamples:
    """The samples as floating-point arrays of JAX.

    Raises ValueError for what is not samples, and where shapes do not fit each other: they would be broadcast.
    """
    if not {"x", "y"} <= set(getattr(samples, "_fields", ())):
        raise ValueError(f"expected samples with x and y, such as Samples(x, y, dydx), got {type(samples).__name__}")
    given = {
        name: as_floats(array, name=f"samples.{name}")
        for name, array in samples._asdict().items()
        if array is not None
    }
    x = given["x"]
    if x.ndim != 2:
        raise ValueError(f"samples.x must have shape (n_samples, n_inputs), got {x.shape}")
    n, n_inputs = x.shape
    outputs, directions, cotangents = (
        given[name].shape[1:] if name in given else () for name in ("y", "directions", "cotangents")
    )
    if 0 in (*directions[:1], *cotangents[:1]):
        raise ValueError("samples need at least one direction or cotangent each, got none")
    expected = {
        "y": (n, *outputs) if len(outputs) == 1 and outputs != (1,) else (n,),  # (n, 1) is a mistake
        "directions": (n, *directions[:1], n_inputs),
        "hvp": (n, *directions[:1], n_inputs),
        "cotangents": (n, *cotangents[:1], *outputs),
        "vjp": (n, *cotangents[:1], n_inputs),
    }
    for name, array in given.items():
        if array.shape != (shape := expected.get(name, (n, n_inputs))):
            raise ValueError(f"samples.{name} must have shape {shape} to go with x {x.shape}, got {array.shape}")
    return samples._replace(**given)


def not_finite(samples: AnySamples) -> str:
    """Which arrays hold how many entries that are not finite, in words; "" where all are."""
    counts = {name: np.sum(~np.isfinite(array)) for name, array in samples._asdict().items() if array is not None}
    return ", ".join(
        f"samples.{name} holds {count} entries that are not finite" for name, count in counts.items() if count
    )
