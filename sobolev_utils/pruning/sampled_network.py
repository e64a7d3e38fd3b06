"""A network at points of a box: what each layer receives there, its derivatives, and how much they matter."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from sobolev_utils.arrays import as_count, as_floats
from sobolev_utils.enclosures.intervals import Interval
from sobolev_utils.learning.diagnosis import check_weights
from sobolev_utils.learning.surrogate import ACTIVATIONS, Surrogate

__all__ = ["Front", "Large", "Small", "activated", "affine", "weights_of"]

MANY = 16  # inputs or outputs: where there are more, as many random directions stand for them


@dataclass(frozen=True, eq=False)
class Front:
    """The first layers of a small network: their weights, bias first, (1 + width, next width) each; the indices of
    the nodes that stay, from the inputs on; and what the last of these nodes receive, as `Large` keeps it.
    """

    layers: tuple[np.ndarray, ...]
    nodes: tuple[np.ndarray, ...]
    received: np.ndarray


@dataclass(frozen=True, eq=False)
class Small:
    """A network of some nodes of a large one: by layer, 0 for the inputs, their indices in it.

    outputs: in normalised coordinates, at the points, as `Large` keeps them.
    """

    model: Surrogate
    nodes: dict[int, np.ndarray]
    outputs: np.ndarray


@dataclass(frozen=True, eq=False)
class Large:
    """A large network at points of the box, in normalised coordinates and double precision.

    received: what each layer receives, as values and, times lambda, derivatives in k directions of the inputs:
    (1 + k, n, width); without derivatives, k = 0, for lambda = 0. metrics: by layer a root of E g g', (width, width),
    where g are the adjoints of what it receives: in it, a change counts by how far it moves the output, to first
    order. x: the points, (n, n_inputs); start: the inputs there, as the front of a small network.
    """

    whole: Small
    x: np.ndarray
    start: Front
    received: list[np.ndarray]
    metrics: list[np.ndarray]

    @classmethod
    def at(cls, model: Surrogate, inputs: Interval, points: int | np.ndarray, weight: float, seed: int) -> "Large":
        """Raises ValueError as `reconstruct` does."""
        check_weights(model)
        if not 0 <= weight < np.inf:
            raise ValueError(f"the weight of derivatives must be a number from 0, got {weight}")
        x = _points(inputs, model.n_inputs, points, seed)
        mean, deviation = (np.asarray(getattr(model, name)[...], float) for name in ("x_mean", "x_std"))
        directions = _directions(len(x), model.n_inputs, seed)
        start = np.concatenate([((x - mean) / deviation)[None], weight * directions if weight else directions[:0]])
        received = []
        for kernel, bias in weights_of(model):
            received.append(affine(activated(model, received[-1]) if received else start, kernel, bias))
        adjoints = [_directions(len(x), model.n_outputs, seed)]
        for (kernel, _), a in zip(weights_of(model)[:0:-1], received[-2::-1], strict=True):
            ones = np.stack([a[0], np.ones_like(a[0])])
            adjoints.append(activated(model, ones)[1] * (adjoints[-1] @ kernel.T))
        sizes = (model.n_inputs, *model.widths, model.n_outputs)
        nodes = dict(enumerate(map(np.arange, sizes)))
        front = Front((), (nodes[0],), start)
        return cls(Small(model, nodes, received[-1]), x, front, received, [_root(g) for g in reversed(adjoints)])


def _points(inputs: Interval, n_inputs: int, points: int | np.ndarray, seed: int) -> np.ndarray:
    """Points (n, n_inputs) of the box. Raises ValueError where there are none, or one lies outside."""
    if inputs.shape != (n_inputs,):
        raise ValueError(f"the box must have shape {(n_inputs,)}, one interval per input, got {inputs.shape}")
    lower, upper = np.asarray(inputs.lower, float), np.asarray(inputs.upper, float)
    if np.ndim(points) == 0:
        unit = qmc.Sobol(n_inputs, rng=seed).random(as_count(points, name="the number of points"))
        return lower + (upper - lower) * unit
    x = np.asarray(as_floats(points, name="points"), float)
    if x.ndim != 2 or x.shape[1] != n_inputs or not len(x):
        raise ValueError(f"points must have shape (n, {n_inputs}) with n > 0, got {x.shape}")
    outside = x[~((lower <= x) & (x <= upper)).all(axis=1)]
    if len(outside):
        raise ValueError(f"{len(outside)} of {len(x)} points lie outside the box, the first at {outside[0]}")
    return x


def _directions(n: int, size: int, seed: int) -> np.ndarray:
    """All unit vectors for each of n points, or, where there are many, random ones of equal mean: (k, n, size)."""
    if size <= MANY:
        return np.broadcast_to(np.eye(size)[:, None], (size, n, size))
    return np.random.default_rng(seed).choice([-1.0, 1.0], (MANY, n, size)) / MANY**0.5


def weights_of(model: Surrogate) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of each layer, in double precision."""
    return [(np.asarray(layer.kernel[...], float), np.asarray(layer.bias[...], float)) for layer in model.layers]


def affine(values: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """What the next layer receives: the bias enters the values, not their derivatives."""
    received = values @ kernel
    received[0] += bias
    return received


def activated(model: Surrogate, received: np.ndarray) -> np.ndarray:
    """The nodes of a layer: the activation of what they receive, and its derivatives, (1 + k, n, width)."""
    with jax.enable_x64(True):
        return np.asarray(_pushed_forward(ACTIVATIONS[model.activation], received))


@partial(jax.jit, static_argnums=0)
def _pushed_forward(activation, received):
    values, along = jax.linearize(activation, received[0])
    return jnp.concatenate([values[None], jax.vmap(along)(received[1:])])


def _root(adjoints: np.ndarray) -> np.ndarray:
    """M^(1/2) of the metric M = E g g' of adjoints g, (k, n, width), with a tenth of its mean eigenvalue added.

    Without that, a direction on which the output does not depend would be left to chance.
    """
    g = adjoints.reshape(-1, adjoints.shape[-1])
    values, vectors = np.linalg.eigh(g.T @ g / len(g))
    values = np.maximum(values, 0)
    return vectors * np.sqrt(values + 0.1 * values.mean())
