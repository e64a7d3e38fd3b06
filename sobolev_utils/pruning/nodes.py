"""Removal of whole nodes: what is left is a smaller dense network, not a mask."""

from collections.abc import Sequence
from itertools import pairwise

import jax
import numpy as np

from sobolev_utils.arrays import as_count, as_floats
from sobolev_utils.learning.surrogate import Surrogate

__all__ = ["mean_nodes", "most_significant", "prune"]


def most_significant(significance: Sequence[jax.Array], keep: int | Sequence[int]) -> list[np.ndarray]:
    """Indices of the `keep` nodes of largest significance in each hidden layer, in their order in the network.

    significance: an array (width,) for each hidden layer; keep: a count, or one for each layer. Of equal nodes the
    first are taken. Raises ValueError for a count below 1 or above the width, or a significance that is NaN.
    """
    counts = [keep] * len(significance) if np.ndim(keep) == 0 else list(keep)
    if len(counts) != len(significance):
        raise ValueError(f"keep must be a count or one for each of {len(significance)} layers, got {keep}")
    counts = [as_count(count, name="the number of nodes to keep", least=-np.inf) for count in counts]
    scored = [np.asarray(as_floats(scores, name="significance")) for scores in significance]
    chosen = []
    for layer, (scores, count) in enumerate(zip(scored, counts, strict=True), start=1):
        if not 1 <= count <= scores.size:
            raise ValueError(
                f"layer {layer} has {scores.size} nodes and cannot keep {count}: expected 1 to {scores.size}"
            )
        if np.isnan(scores).any():
            raise ValueError(
                f"layer {layer} has {np.isnan(scores).sum()} nodes whose significance is not a number: "
                "try a smaller box, or sub-boxes"
            )
        chosen.append(np.sort(np.argsort(-scores, kind="stable")[:count]))
    return chosen


def mean_nodes(model: Surrogate, x: jax.Array) -> list[jax.Array]:
    """Mean value of each hidden node over inputs (n_samples, n_inputs): an array (width,) for each layer."""
    return [values.mean(axis=0) for values in model.nodes(x)[1:-1]]


def prune(model: Surrogate, keep: Sequence[np.ndarray], constants: Sequence[jax.Array]) -> Surrogate:
    """The dense surrogate of the nodes `keep`, with the others held at `constants` and folded into the next bias.

        W' = W[keep_in, keep_out],   b' = (b + c[removed] W[removed, :])[keep_out]

    keep: for each hidden layer the indices of the nodes that stay, in any order; constants: for each an array
    (width,), of which the entries of removed nodes are used. Raises ValueError for indices that are missing, repeated
    or out of range, and for another number of layers or of constants.
    """
    if not len(keep) == len(constants) == len(model.widths):
        raise ValueError(
            f"need indices and constants for {len(model.widths)} hidden layers, got {len(keep)} and {len(constants)}"
        )
    keep = [np.asarray(indices) for indices in keep]
    constants = [np.asarray(as_floats(constant, name="constants")) for constant in constants]
    for layer, (indices, constant, width) in enumerate(zip(keep, constants, model.widths, strict=True), start=1):
        distinct = indices.ndim == 1 and indices.dtype.kind in "iu" and 0 < len(set(indices.tolist())) == indices.size
        if not (distinct and 0 <= indices.min() and indices.max() < width):
            raise ValueError(
                f"layer {layer}: indices must be 1 to {width} distinct nodes of 0..{width - 1}, got {indices}"
            )
        if constant.shape != (width,):
            raise ValueError(f"layer {layer}: constants must have shape {(width,)}, got {constant.shape}")
    arrays = model.arrays()
    nodes = [np.arange(model.n_inputs), *keep, np.arange(model.n_outputs)]
    constants = [np.zeros(model.n_inputs), *constants]
    for i, (rows, columns) in enumerate(pairwise(nodes)):
        kernel, bias = arrays[f"kernel_{i}"], arrays[f"bias_{i}"]
        lost = np.delete(constants[i], rows) @ np.delete(kernel, rows, axis=0)
        arrays[f"kernel_{i}"] = kernel[rows][:, columns]
        arrays[f"bias_{i}"] = (bias + lost)[columns].astype(bias.dtype)
    return Surrogate.from_arrays(arrays)
