"""Conditional significance: the significance of what remains of a node once those that stay have explained it.

Let z_j be what is left of node j after its projection on the nodes chosen so far and on the constant. With the
enclosures of z_j and of the adjoint of node j over the box, the next node to stay is the one of largest

    S_j = width([z_j]) * max |[adjoint of node j]|.

For the first node this is the paper's significance; copies of chosen nodes have none.
"""

import jax
import numpy as np

from sobolev_utils.enclosures import zonotopes
from sobolev_utils.enclosures.intervals import Interval, box
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.pruning.active_subspace import active_gradients, slabs
from sobolev_utils.pruning.choice import DEPENDENT, Choice, Layer
from sobolev_utils.pruning.significance import METHODS, Significance, expect

__all__ = ["conditional_significance"]


def conditional_significance(
    model: Surrogate, inputs: Interval, analysis: Significance, *, n_slabs: int = 64
) -> Choice:
    """A choice by conditional significance over the box `inputs`, (n_inputs,), for `reconstruct`.

    analysis: enclosures of the adjoints over this box, by `analyse` or `analyse_subdivided`. The projection is a
    least-squares fit of the nodes as the small network has them, at the points of the reconstruction; what it leaves
    is enclosed of the large network's nodes, by affine arithmetic in double precision, united over slabs, which cover
    the box but for rounding (see `active_subspace`). Raises ValueError for an analysis that encloses nothing.
    """
    expect(analysis, (*METHODS, "subdivided"), "the analysis")
    largest = [np.asarray(adjoint.magnitude, float) for adjoint in analysis.adjoints]
    with jax.enable_x64(True):
        axes, whole, _ = slabs(active_gradients(model, inputs), inputs)
        ends = np.linspace(whole.lower[0], whole.upper[0], n_slabs + 1)
        lower, upper = (np.tile(end, (n_slabs, 1)) for end in (whole.lower, whole.upper))
        lower[:, 0], upper[:, 0] = ends[:-1], ends[1:]
        cover = box(lower, upper)

    def remainders(s, coefficients):
        hidden = model.nodes(axes @ s)[1:-1]
        return [c[0] + nodes @ c[1:] for nodes, c in zip(hidden, coefficients, strict=True)]

    enclosed = jax.jit(jax.vmap(zonotopes.enclose(remainders), (0, None)))  # of all layers: compiled once

    def choose(layer: Layer, count: int) -> np.ndarray:
        lengths = np.linalg.norm(layer.nodes, axis=0)
        lengths = np.where(lengths > 0, lengths, 1)
        columns = layer.nodes / lengths
        slopes, chosen = largest[layer.number][layer.candidates], [0]
        every = np.append(0, 1 + layer.candidates)
        while len(chosen) <= count:
            fitted = np.linalg.lstsq(columns[:, chosen], layer.nodes, rcond=DEPENDENT)[0] / lengths[chosen, None]
            left = np.eye(len(every))
            left[chosen] -= fitted
            coefficients = [np.zeros((1 + width, width)) for width in model.widths]
            coefficients[layer.number - 1][np.ix_(every, layer.candidates)] = left[:, 1:]
            with jax.enable_x64(True):
                z = enclosed(cover, coefficients)[layer.number - 1]
            width = (np.asarray(z.upper).max(axis=0) - np.asarray(z.lower).min(axis=0))[layer.candidates]
            significance = np.multiply(width, slopes, where=(width > 0) & (slopes > 0), out=np.zeros(len(width)))
            significance[np.array(chosen[1:], int) - 1] = -1
            chosen.append(1 + int(np.argmax(significance)))
        return np.sort(chosen[1:]) - 1

    return choose
