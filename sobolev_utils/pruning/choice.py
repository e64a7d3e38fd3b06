"""Choosing nodes: which of a layer's nodes stay, so that the next layer can receive what it received from all.

The nodes and what the next layer receives are given at points, as values, derivatives and the rows of the ridge (see
`reconstruction`), one below the other; the first column belongs to the bias, and always stays. Nodes are chosen
greedily, by the part of each that those chosen before do not explain.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg

__all__ = ["Choice", "Layer", "matching_pursuit", "pivoted_qr"]

DEPENDENT = 1e-5  # of a node's length: with no more left of it, it is a combination of the others
ROUNDS = 10  # of exchanges, at most


@dataclass(frozen=True)
class Layer:
    """A hidden layer, of which some nodes are to stay.

    number: from 1; candidates: (n,) the indices of its nodes in the large network; nodes: (rows, 1 + n), the
    constant and the nodes; target: (rows, m), what the next layer is to receive, in units of the output (see
    `reconstruction`).
    """

    number: int
    candidates: np.ndarray
    nodes: np.ndarray
    target: np.ndarray


# Which `count` of a layer's nodes stay: their places among its candidates.
Choice = Callable[[Layer, int], np.ndarray]


def matching_pursuit(layer: Layer, count: int, *, exchange: bool = True) -> np.ndarray:
    """Orthogonal matching pursuit: one by one the node that explains most of what is left of the target.

    With z_j what the nodes chosen so far leave of node j, and R what they leave of the target, node j explains
    |z_j'R|^2 / |z_j|^2 of |R|^2 (Pati et al. 1993). Then each chosen node is exchanged for the one that explains most
    in its place, `exchange`, until none is. Returns sorted places (count,).
    """
    columns, enough = _unit(layer.nodes), 1e-9 * np.sum(layer.target**2)
    chosen, left, rest = [], columns, layer.target
    while len(chosen) <= count:
        chosen.append(int(np.argmax(_explained(left, rest, chosen))) if chosen else 0)
        left, rest = (_without(columns[:, chosen], each) for each in (columns, layer.target))
    for _ in range(ROUNDS if exchange else 0):
        before = list(chosen)
        for place in range(1, len(chosen)):
            # the part of a chosen node that the others lack; without the node, this much more would be left
            own = _unit(np.linalg.pinv(columns[:, chosen], rcond=DEPENDENT).T)[:, place]
            others = chosen[:place] + chosen[place + 1 :]
            more = (np.vstack([each, own @ whole]) for each, whole in ((left, columns), (rest, layer.target)))
            explained = _explained(*more, others)
            if explained.max() > explained[chosen[place]] + enough:
                chosen[place] = int(np.argmax(explained))
                left, rest = (_without(columns[:, chosen], each) for each in (columns, layer.target))
        if chosen == before:
            break
    return np.sort(chosen[1:]) - 1


def pivoted_qr(layer: Layer, count: int) -> np.ndarray:
    """The first pivots of a QR decomposition of the nodes: one by one the node with the largest residual.

    The interpolative decomposition of a layer (Chee et al. 2022), whatever the next layer takes from it. Returns
    sorted places (count,).
    """
    constant, nodes = np.hsplit(layer.nodes, [1])
    constant = constant / np.linalg.norm(constant)
    _, pivots = scipy.linalg.qr(nodes - constant @ (constant.T @ nodes), mode="r", pivoting=True)
    return np.sort(pivots[:count])


def _unit(columns: np.ndarray) -> np.ndarray:
    """Columns of length 1, or of zeros."""
    lengths = np.linalg.norm(columns, axis=0)
    return columns / np.where(lengths > 0, lengths, 1)


def _without(basis: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """What is left of columns when those of a basis have explained what they can."""
    q = scipy.linalg.orth(basis, rcond=DEPENDENT)
    return columns - q @ (q.T @ columns)


def _explained(left: np.ndarray, rest: np.ndarray, chosen: list[int]) -> np.ndarray:
    """How much of |rest|^2 each column of `left` explains; -1 for those chosen."""
    lengths, explained = np.sum(left**2, axis=0), np.zeros(left.shape[1])
    np.divide(np.sum((left.T @ rest) ** 2, axis=1), lengths, out=explained, where=lengths > DEPENDENT**2)
    explained[chosen] = -1
    return explained
