r"""Pruning that keeps the function: the next layer's weights are refitted, so that it receives what it did before.

Let n(x) be those nodes of a layer that stay, and a(x) what the next layer received in the large network. The weights
W and the bias b into the next layer solve

    min_{W, b}  sum_x  |W n + b - a|^2  +  lambda^2 sum_x sum_i s_i^2 |W dn/dx_i - da/dx_i|^2  +  mu^2 |W|^2

over points x of the box, without labels; s_i is the deviation of input i. The ridge, mu = 1e-4 of a typical node's
length over the points, prefers strong nodes to nearly silent ones and keeps weights so small that fine-tuning can
start from them. Layer after layer, from the inputs to the output, n are the nodes of the *small* network as far as it
goes, and a is always the large one's: so what was lost in the layers before is made up for. Holding removed nodes at
constants changes b alone.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from sobolev_utils.arrays import as_count
from sobolev_utils.enclosures.intervals import Interval
from sobolev_utils.learning.surrogate import NORMALISATION, Surrogate
from sobolev_utils.pruning.choice import Choice, Layer, matching_pursuit
from sobolev_utils.pruning.sampled_network import Front, Large, Small, activated, affine, weights_of

__all__ = ["extended", "reconstruct", "refit"]

RIDGE = 1e-4  # of the root mean square of the nodes' lengths, their means removed


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


def extended(
    large: Large, small: Small, front: Front, number: int, following: int, count: int, choose: Choice
) -> Front:
    """`front` by one layer: `count` nodes of its last, `number`, stay, and weights into `following` are fitted."""
    layers, nodes, wanted = front.layers, front.nodes, small.nodes[following]
    values = activated(large.whole.model, front.received) if number else front.received
    if number == 0 and following == list(small.nodes)[1]:
        weights = np.vstack(weights_of(small.model)[0][::-1])
    else:
        columns, target = _triangle(values, large.received[following - 1][..., wanted])
        if number:
            metric = large.metrics[following - 1][wanted]
            chosen = choose(Layer(number, nodes[-1], columns, target @ metric), count)
            columns, values = columns[:, [0, *1 + chosen]], values[..., chosen]
            layers, nodes = (*layers[:-1], layers[-1][:, chosen]), (*nodes[:-1], nodes[-1][chosen])
        weights = np.linalg.lstsq(columns, target, rcond=None)[0]
    return Front((*layers, weights), (*nodes, wanted), affine(values, weights[1:], weights[0]))


def refit(
    large: Large,
    small: Small,
    keep: int | Sequence[int],
    choose: Choice = matching_pursuit,
    extend: Callable[..., Front] = extended,
) -> Small:
    """`small` with `keep` of the nodes of each hidden layer, and the weights that follow these fitted anew."""
    counts, front = _counts(small, keep), large.start
    stay = [number for number in small.nodes if counts[number]]
    for number, following in pairwise(stay):
        front = extend(large, small, front, number, following, counts[number], choose)
    arrays = large.whole.model.arrays()
    named = {name: arrays[name] for name in ("activation", *NORMALISATION)}
    for i, weights in enumerate(front.layers):
        named |= {f"kernel_{i}": weights[1:].astype(arrays["kernel_0"].dtype)}
        named |= {f"bias_{i}": weights[0].astype(arrays["bias_0"].dtype)}
    return Small(Surrogate.from_arrays(named), dict(zip(stay, front.nodes, strict=True)), front.received)


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


def _triangle(values: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The constant and the nodes, and what the next layer is to receive, as columns of an equivalent problem.

    R of a QR decomposition of all rows has the columns' lengths and products, without squaring their condition. The
    ridge is a row for each node.
    """
    n, rows = values.shape[-1], np.concatenate([np.zeros((*values.shape[:2], 1)), values, wanted], axis=-1)
    rows[0, :, 0] = 1
    lengths = np.linalg.norm(np.concatenate([values[:1] - values[0].mean(axis=0), values[1:]]))
    ridge = np.zeros((n, rows.shape[-1]))
    ridge[:, 1 : 1 + n] = RIDGE * lengths / n**0.5 * np.eye(n)
    triangle = np.linalg.qr(np.vstack([rows.reshape(-1, rows.shape[-1]), ridge]), mode="r")
    return triangle[:, : 1 + n], triangle[:, 1 + n :]
