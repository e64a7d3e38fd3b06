"""Figures of nodes: their enclosures, their significance, and which of them stay."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

# Not imported at run time: else its edits would count as changes of these figures.
if TYPE_CHECKING:
    import pandas as pd

    from sobolev_utils.pruning.significance import Significance

__all__ = [
    "changes",
    "dense_and_sparse",
    "significance_by_rank",
    "significance_maps",
    "trade_off",
    "widths_by_layer",
]


def widths_by_layer(analyses: Mapping[str, "Significance"]) -> Figure:
    """Widths of the node values and largest |adjoint|, by layer: the median over the nodes, and their extremes."""
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 2.8))
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(analyses)))
    for number, ((name, analysis), colour) in enumerate(zip(analyses.items(), colours, strict=True)):
        widths = [np.ravel(value.width) for value in analysis.values[1:]]
        adjoints = [np.ravel(adjoint.magnitude) for adjoint in analysis.adjoints[1:-1]]
        for axis, data in zip(axes, (widths, adjoints), strict=True):
            layers = np.arange(1, len(data) + 1) + 0.12 * (number - 0.5 * (len(analyses) - 1))
            low, middle, high = (np.array([np.quantile(layer, q) for layer in data]) for q in (0, 0.5, 1))
            bars = {"fmt": ".", "ms": 5, "capsize": 2, "lw": 0.8, "color": colour}
            axis.errorbar(layers, middle, (middle - low, high - middle), label=name, **bars)
    layers = [*map(str, range(1, len(widths))), "output"]
    for axis, title, names in zip(
        axes, ("width of the value", "largest |adjoint|"), (layers, layers[:-1]), strict=True
    ):
        axis.set(yscale="log", xlabel="layer", title=title)
        axis.set_xticks(range(1, len(names) + 1), names)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(analyses))
    return figure


def significance_maps(analyses: Mapping[str, "Significance"]) -> Figure:
    """Significance relative to the largest of the layer: a panel for each analysis, a row for each layer.

    In each row the nodes stand in the order of the last analysis: a panel that falls from left to right ranks them
    alike.
    """
    orders = [np.argsort(-np.asarray(scores)) for scores in list(analyses.values())[-1].hidden]
    n, layers = len(analyses), range(len(orders))
    figure, axes = plt.subplots(n, figsize=(7.2, 0.9 * n + 0.6), sharex=True, squeeze=False)
    for axis, (name, analysis) in zip(axes.flat, analyses.items(), strict=True):
        rows = np.full((len(orders), max(map(len, orders))), np.nan)
        for row, scores, order in zip(rows, analysis.hidden, orders, strict=True):
            row[: len(order)] = np.asarray(scores)[order] / np.max(scores)
        image = axis.imshow(rows, aspect="auto", vmin=0, vmax=1, interpolation="nearest", cmap="viridis")
        axis.set(title=name, yticks=layers, yticklabels=[layer + 1 for layer in layers], ylabel="layer")
    axis.set_xlabel("node, by falling significance from inside")
    figure.colorbar(image, ax=axes, label="S / max S in the layer", aspect=40)
    return figure


def changes(bounds: Mapping[str, Sequence[float]], steps: Sequence[str]) -> Figure:
    """Bounds of the change of the output, and the largest found, for each step: a marker for each of `bounds`."""
    figure, axis = plt.subplots(figsize=(7.2, 3.6))
    for (name, values), marker in zip(bounds.items(), ("^", "v", "o"), strict=False):
        axis.semilogy(range(len(steps)), values, marker, ms=5, label=name)
    axis.set_ylabel("largest |change|")
    axis.set_xticks(range(len(steps)), steps, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
    axis.grid(axis="y", lw=0.4, color="0.85")
    axis.legend()
    return figure


def significance_by_rank(significance: Sequence[np.ndarray], keep: Sequence[np.ndarray]) -> Figure:
    """Significance of the nodes, relative to the largest of their layer, in falling order; a line for each layer.

    keep: the indices kept in each layer, of which only the number is drawn.
    """
    figure, axis = plt.subplots(figsize=(5.2, 2.6))
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(keep)))
    for layer, (scores, colour) in enumerate(zip(significance, colours, strict=True), start=1):
        falling = np.sort(scores)[::-1]
        ranks = np.arange(1, len(falling) + 1)
        axis.semilogy(ranks, falling / falling[0], color=colour, label=f"hidden layer {layer}")
    axis.axvline(len(keep[0]) + 0.5, color="C1", ls="--", lw=1, label="kept | removed")
    axis.set(xlabel="node, by falling significance", ylabel="S / max S in the layer", ylim=(1e-4, 1.5))
    figure.legend(loc="outside right center")
    return figure


def dense_and_sparse(kernels: Sequence[np.ndarray], keep: Sequence[np.ndarray]) -> Figure:
    """Equal numbers of weights, chosen two ways: those between kept nodes, or the largest of each matrix.

    kernels: the weight matrices between hidden layers, (width, width) each; keep: the nodes kept in each hidden
    layer. Black are the nodes that a chosen weight touches.
    """
    layers = range(1, len(keep) + 1)
    chosen = {"dense: whole nodes": [], "sparse: largest weights": []}
    for layer, kernel, rows, columns in zip(layers, kernels, keep, keep[1:], strict=False):
        dense = list(product(rows, columns))
        largest = np.argsort(-np.abs(kernel), axis=None, kind="stable")[: len(dense)]
        sparse = np.transpose(np.unravel_index(largest, kernel.shape))
        for lines, weights in zip(chosen.values(), (dense, sparse), strict=True):
            lines.extend(((layer, row), (layer + 1, column)) for row, column in weights)
    width = max((len(kernel) for kernel in kernels), default=max(map(max, keep)) + 1)
    grid = np.transpose(list(product(layers, range(width))))
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.0), sharey=True)
    for axis, (title, lines), colour in zip(axes, chosen.items(), ("C0", "C1"), strict=True):
        touched = sorted({end for line in lines for end in line})
        axis.add_collection(LineCollection(lines, lw=0.4, alpha=0.6, color=colour))
        axis.plot(*grid, ".", ms=1, color="0.8")
        axis.plot(*np.transpose(touched), ".", ms=2.5, color="k")
        axis.set_title(f"{title}\n{len(lines)} weights, {len(touched)} nodes touched")
        axis.set(xlabel="hidden layer", xticks=layers)
    axes[0].set_ylabel("node")
    return figure


def trade_off(table: "pd.DataFrame") -> Figure:
    """Relative change of values and of derivatives over the number of parameters: a line for each way.

    table: columns way, widths, parameters, values, derivatives; the widths are written at the points of the last way.
    """
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.0), sharey=True)
    for axis, quantity in zip(axes, ("values", "derivatives"), strict=True):
        for (way, rows), style in zip(table.groupby("way", sort=False), ("o-", "s--"), strict=False):
            axis.loglog(rows.parameters, rows[quantity], style, ms=4, lw=0.8, label=way)
        for _, row in rows.iterrows():
            axis.annotate(row.widths, (row.parameters, row[quantity]), (4, 4), textcoords="offset points", fontsize=6)
        axis.set(xlabel="parameters", title=quantity)
    axes[0].set_ylabel("relative change")
    axes[0].legend()
    return figure
