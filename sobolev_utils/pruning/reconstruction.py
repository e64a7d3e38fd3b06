r"""Pruning that keeps the function: the next layer's weights are refitted, so that it receives what it did before.

Let n(x) be those nodes of a layer that stay, and a(x) what the next layer received in the large network. The weights
W and the bias b into the next layer solve

    min_{W, b}  sum_x  |W n + b - a|^2  +  lambda^2 sum_x sum_i s_i^2 |W dn/dx_i - da/dx_i|^2

over points x of the box, without labels; s_i is the deviation of input i. Layer after layer, from the inputs to the
output, n are the nodes of the *small* network as far as it goes, and a is always the large one's: so what was lost in
the layers before is made up for. Holding removed nodes at constants changes b alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from sobolev_utils.arrays import as_count, as_floats
from sobolev_utils.enclosures.intervals import Interval
from sobolev_utils.learning.diagnosis import check_weights
from sobolev_utils.learning.surrogate import ACTIVATIONS, NORMALISATION, Surrogate
from sobolev_utils.pruning.choice import Choice, Layer, matching_pursuit

__all__ = ["Large", "Small", "reconstruct", "refit"]

MANY = 16  # inputs or outputs: where there are more, as many random directions stand for them
RANK = 1e-6  # of the longest singular value: what is shorter is rounding, and would ask for huge weights


def reconstruct(
    model: Surrogate,
    inputs: Interval,
    keep: int | Sequence[int],
    *,
    steps: Sequence[int | Sequence[int]] = (),
    points: int | np.ndarray = 2**11,
    weight: float = 1.0,
    choose: Choice = matching_pursuit,
    seed: int = 0,
) -> Surrogate:
    """A small network with the values and derivatives of `model` over the box `inputs`, (n_inputs,).

    keep: how many nodes stay in each hidden layer, a count or one for each layer; a layer of which none stay goes
    whole. steps: the same, of networks in between, for pruning in steps. points: how many Sobol points of the box, or
    points (n, n_inputs) in it. weight: lambda. choose: which nodes stay.

    All is computed in double precision, and returned in that of the model. The cost is linear in the points.

    Raises ValueError for counts above a width, below 0, or all 0; for points that are none or not in the box; for a
    weight that is negative or not finite; and for a network that is not finite.
    """
    large = Large.at(model, inputs, points, weight, seed)
    small = large.whole
    for counts in (*steps, keep):
        small = refit(large, small, counts, choose)
    return small.model


@dataclass(frozen=True)
class Small:
    """A network of some nodes of a large one: by layer, 0 for the inputs, their indices in it."""

    model: Surrogate
    nodes: dict[int, np.ndarray]


@dataclass(frozen=True)
class Large:
    """What is known of a large network at points, in normalised coordinates and double precision.

    x: the points, (n, n_inputs). start, received: the inputs, and what each layer receives, as values and, times
    lambda, derivatives in k directions of the inputs: (1 + k, n, width). metrics: by layer a root of E g g', (width,
    width), where g are the adjoints of what it receives: in it, a change counts by how far it moves the output, to
    first order.
    """

    whole: Small
    x: np.ndarray
    start: np.ndarray
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
        start = np.concatenate([((x - mean) / deviation)[None], weight * directions])
        received = []
        for kernel, bias in _layers(model):
            received.append(_affine(_activated(model, received[-1]) if received else start, kernel, bias))
        adjoints = [_directions(len(x), model.n_outputs, seed)]
        for (kernel, _), a in zip(_layers(model)[:0:-1], received[-2::-1], strict=True):
            ones = np.stack([a[0], np.ones_like(a[0])])
            adjoints.append(_activated(model, ones)[1] * (adjoints[-1] @ kernel.T))
        sizes = (model.n_inputs, *model.widths, model.n_outputs)
        whole = Small(model, dict(enumerate(map(np.arange, sizes))))
        return cls(whole, x, start, received, [_root(g) for g in reversed(adjoints)])


def refit(large: Large, small: Small, keep: int | Sequence[int], choose: Choice = matching_pursuit) -> Small:
    """`small` with `keep` of the nodes of each hidden layer, and the weights that follow these fitted anew."""
    counts = _counts(small, keep)
    stay = {number: nodes for number, nodes in small.nodes.items() if counts[number]}
    layers, said = [], large.start
    for number, following in pairwise(list(stay)):
        wanted = large.received[following - 1][..., stay[following]]
        if number == 0 and following == list(small.nodes)[1]:
            solution = np.vstack(_layers(small.model)[0][::-1])
        else:
            columns, target = _triangle(said, wanted)
            if number:
                metric = large.metrics[following - 1][stay[following]]
                chosen = choose(Layer(number, stay[number], columns, target @ metric), counts[number])
                columns, said, stay[number] = columns[:, [0, *1 + chosen]], said[..., chosen], stay[number][chosen]
                layers[-1] = layers[-1][:, chosen]
            solution = _least_squares(columns, target)
        layers.append(solution)
        said = _activated(large.whole.model, _affine(said, solution[1:], solution[0]))
    arrays = large.whole.model.arrays()
    named = {name: arrays[name] for name in ("activation", *NORMALISATION)}
    for i, solution in enumerate(layers):
        named |= {f"kernel_{i}": solution[1:].astype(arrays["kernel_0"].dtype)}
        named |= {f"bias_{i}": solution[0].astype(arrays["bias_0"].dtype)}
    return Small(Surrogate.from_arrays(named), stay)


def _counts(small: Small, keep: int | Sequence[int]) -> dict[int, int]:
    """How many nodes of each layer stay, inputs and outputs included. Raises ValueError where that cannot be."""
    *hidden, last = list(small.nodes)[1:]
    counts = list(keep) if np.iterable(keep) else [keep] * len(hidden)
    if len(counts) != len(hidden):
        raise ValueError(f"expected one number of nodes, or one for each of {len(hidden)} hidden layers, got {keep}")
    for number, count in zip(hidden, counts, strict=True):
        width = len(small.nodes[number])
        if as_count(count, name=f"the number of nodes of layer {number}", least=0) > width:
            raise ValueError(f"layer {number} has {width} nodes and cannot keep {count}: expected 0 to {width}")
    if not any(counts):
        raise ValueError(f"at least one hidden layer must stay, got {keep}")
    return {0: len(small.nodes[0]), **dict(zip(hidden, counts, strict=True)), last: len(small.nodes[last])}


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


def _layers(model: Surrogate) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of each layer, in double precision."""
    return [(np.asarray(layer.kernel[...], float), np.asarray(layer.bias[...], float)) for layer in model.layers]


def _affine(said: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """What a layer receives: the bias belongs to the values, not to their derivatives."""
    received = said @ kernel
    received[0] += bias
    return received


def _activated(model: Surrogate, received: np.ndarray) -> np.ndarray:
    """What a layer says: the activation of what it receives, and its derivatives, (1 + k, n, width)."""
    with jax.enable_x64(True):
        return np.asarray(_pushed_forward(ACTIVATIONS[model.activation], received))


@partial(jax.jit, static_argnums=0)
def _pushed_forward(activation, received):
    values, along = jax.linearize(activation, received[0])
    return jnp.concatenate([values[None], jax.vmap(along)(received[1:])])


def _triangle(said: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The constant and the nodes, and what the next layer is to receive, as columns of an equivalent problem.

    R of a QR decomposition of all rows has the columns' lengths and products, without squaring their condition.
    """
    constant = np.zeros((*said.shape[:2], 1))
    constant[0] = 1
    rows = np.concatenate([constant, said, wanted], axis=-1)
    triangle = np.linalg.qr(rows.reshape(-1, rows.shape[-1]), mode="r")
    return triangle[:, : 1 + said.shape[-1]], triangle[:, 1 + said.shape[-1] :]


def _least_squares(columns: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The shortest solution, in units of the columns' lengths, where they depend on each other."""
    lengths = np.linalg.norm(columns, axis=0)
    lengths = np.where(lengths > 0, lengths, 1)
    return np.linalg.lstsq(columns / lengths, target, rcond=RANK)[0] / lengths[:, None]


def _root(adjoints: np.ndarray) -> np.ndarray:
    """M^(1/2) of the metric M = E g g' of adjoints g, (k, n, width), with a tenth of its mean eigenvalue added.

    Without that, what the output does not hear at all would be left to chance.
    """
    g = adjoints.reshape(-1, adjoints.shape[-1])
    values, vectors = np.linalg.eigh(g.T @ g / len(g))
    values = np.maximum(values, 0)
    return vectors * np.sqrt(values + 0.1 * values.mean())
