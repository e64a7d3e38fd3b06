"""Interval adjoint significance analysis: which nodes of a surrogate matter over a whole box of inputs."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

from sobolev_utils.intervals import Interval, enclose
from sobolev_utils.network import Surrogate

__all__ = ["Significance", "analyse", "tightness", "values_and_adjoints"]


@dataclass(frozen=True)
class Significance:
    """Enclosures of the values [n] and the adjoints of all nodes over a box, layer by layer.

    Both lists run from the inputs over the hidden layers to the output; each entry has shape (width,), that of the
    output ().
    """

    values: list[Interval]
    adjoints: list[Interval]

    @property
    def by_layer(self) -> list[jax.Array]:
        """S_[y]([n]_{l,i}) = width([n]_{l,i}) * max |adjoint of [n]_{l,i}|, for each layer l an array (width,).

        To first order it bounds how far the output moves when the node is held at a constant within its range, in
        units of the output (Afghan & Naumann, ICCS 2020; Kichler et al. 2024).
        """
        return [value.width * adjoint.magnitude for value, adjoint in zip(self.values, self.adjoints, strict=True)]

    @property
    def hidden(self) -> list[jax.Array]:
        """The significances of the hidden layers alone."""
        return self.by_layer[1:-1]


def values_and_adjoints(model: Surrogate, x: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
    """Values of all nodes at x (n_inputs,) and the derivatives of the output in them, by one `jax.vjp`."""

    def output(x, offsets):
        nodes = model.nodes(x, offsets)
        return nodes[-1], nodes

    offsets = [jnp.zeros(width, x.dtype) for width in model.widths]
    y, pullback, nodes = jax.vjp(output, x, offsets, has_aux=True)
    x_bar, offsets_bar = pullback(jnp.ones_like(y))
    return nodes, [x_bar, *offsets_bar, jnp.ones_like(y)]


def analyse(model: Surrogate, box: Interval) -> Significance:
    """Interval values and interval adjoints of every node over the box of inputs, (n_inputs,).

    AD as usual, then every operation of the adjoint program in interval arithmetic: the enclosure of
    `values_and_adjoints`, whose rigour is that of `intervals.enclose`. Raises ValueError for a box of another shape.
    """
    if box.shape != (model.n_inputs,):
        raise ValueError(f"the box must have shape {(model.n_inputs,)}, one interval per input, got {box.shape}")
    return Significance(*jax.jit(enclose(lambda x: values_and_adjoints(model, x)))(box))


def tightness(analysis: Significance, nodes: Sequence[jax.Array], adjoints: Sequence[jax.Array]) -> list[dict]:
    """How far an analysis is from what samples find: a row for each hidden layer 1, 2, ... and for the output.

    nodes, adjoints: values and adjoints of each layer at samples of the box, (n_samples, width), that of the output
    (n_samples,), inputs first. value_ratio is the width of a node's enclosure over that of its sampled range, with
    median and maximum over the layer; adjoint_ratio the enclosed over the sampled max |adjoint|; rank_correlation
    Spearman's, of S with the sampled width times the sampled max |adjoint|. Samples see the range from inside, so
    the ratios are at least 1 and, as a measure of the overestimation, a little too large.
    """
    rows = []
    for layer in range(1, len(nodes)):
        values, derivatives = (np.asarray(a[layer]).reshape(len(a[layer]), -1) for a in (nodes, adjoints))
        width, magnitude = np.ptp(values, axis=0), np.abs(derivatives).max(axis=0)
        value_ratio = _ratio(analysis.values[layer].width, width)
        adjoint_ratio = _ratio(analysis.adjoints[layer].magnitude, magnitude)
        ranks = spearmanr(np.ravel(analysis.by_layer[layer]), width * magnitude) if width.size > 1 else None
        rows.append(
            {
                "layer": str(layer) if layer < len(nodes) - 1 else "output",
                "value_ratio_median": np.median(value_ratio),
                "value_ratio_max": value_ratio.max(),
                "adjoint_ratio_median": np.median(adjoint_ratio),
                "rank_correlation": ranks.statistic if ranks else np.nan,
            }
        )
    return rows


def _ratio(enclosed, sampled: np.ndarray) -> np.ndarray:
    """Elementwise quotient; 1 for a node that never moves or is never heard."""
    return np.divide(np.ravel(enclosed), sampled, out=np.ones_like(sampled), where=sampled > 0)
