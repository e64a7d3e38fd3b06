"""Every figure that more than one notebook draws, or whose drawing would hide the mathematics; one style."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from sobolev_utils.intervals import Interval
from sobolev_utils.problem import Truth
from sobolev_utils.stages import QUANTITIES, STAGES, Trained

__all__ = [
    "dense_and_sparse",
    "derivatives",
    "loss_curves",
    "ranges",
    "seed_spread",
    "significance_by_rank",
    "use_style",
]

STAGE_NAMES = {
    "oversized": "oversized",
    "pruned": "pruned",
    "sobolev_nn": "Sobolev,\nNN targets",
    "sobolev_reference": "Sobolev,\nreference targets",
}
BUDGET_NAMES = {"paths_8192": "fixed paths", "fresh_paths": "fresh paths"}


def use_style() -> None:
    """Apply `paper.mplstyle` to all figures that follow."""
    plt.style.use(Path(__file__).with_name("paper.mplstyle"))


def derivatives(trained: Mapping[str, Trained], test: Truth, underlying: np.ndarray, name: str) -> Figure:
    """Value, delta and gamma of the surrogate `name` against the underlying: a row for each budget.

    underlying: (n_samples,), the basket of each test spot. The delta is 1'grad, the derivative along the underlying.
    """
    order = np.argsort(underlying)
    truth = (test.value, test.delta.sum(axis=-1), test.gamma)
    figure, rows = plt.subplots(len(trained), 3, figsize=(7.2, 2.3 * len(trained)), sharex=True, squeeze=False)
    for axes, (budget, stage) in zip(rows, trained.items(), strict=True):
        model = stage.model
        guesses = (model(test.x), model.delta(test.x).sum(axis=-1), model.gamma(test.x))
        for axis, quantity, exact, guess, r2 in zip(axes, QUANTITIES, truth, guesses, stage.r2, strict=True):
            axis.plot(underlying, guess, ".", ms=2, alpha=0.5, rasterized=True, label=name)
            axis.plot(underlying[order], np.asarray(exact)[order], "k", lw=0.8, label="closed form")
            axis.set_title(f"{quantity}: 1 − R² = {1 - r2:.1e}")
        axes[0].set_ylabel(BUDGET_NAMES[budget])
    for axis in rows[-1]:
        axis.set_xlabel("basket")
    rows[0, 0].legend(markerscale=4)
    return figure


def loss_curves(histories: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Training loss by epoch, log scale: a panel for each stage, in it a line for each budget."""
    figure, axes = plt.subplots(1, len(histories), figsize=(1.2 + 1.9 * len(histories), 2.3), squeeze=False)
    for axis, (name, curves) in zip(axes[0], histories.items(), strict=True):
        for budget, history in curves.items():
            axis.semilogy(np.arange(1, len(history) + 1), history, lw=0.9, label=BUDGET_NAMES[budget])
        axis.set(title=name, xlabel="epoch")
    axes[0, 0].set_ylabel("mean training loss")
    axes[0, 0].legend()
    return figure


def ranges(enclosed: Sequence[Interval], sampled: Sequence[np.ndarray], ylabel: str) -> Figure:
    """Widths of the nodes' enclosures and of their sampled ranges, (n_samples, width) each, by hidden layer."""
    figure, axis = plt.subplots(figsize=(5.2, 2.6))
    layers = np.arange(1, len(enclosed) + 1)
    widths = {
        "interval enclosure": [np.asarray(interval.width) for interval in enclosed],
        "sampled range": [np.ptp(np.asarray(values), axis=0) for values in sampled],
    }
    for shift, (name, data) in zip((-0.1, 0.1), widths.items(), strict=True):
        low, middle, high = (np.array([np.quantile(w, q) for w in data]) for q in (0, 0.5, 1))
        axis.errorbar(layers + shift, middle, (middle - low, high - middle), fmt="o", ms=4, capsize=3, label=name)
    axis.set(xlabel="hidden layer", ylabel=ylabel, yscale="log", xticks=layers)
    axis.legend()
    return figure


def significance_by_rank(significance: Sequence[np.ndarray], keep: Sequence[np.ndarray]) -> Figure:
    """Significance of the nodes, relative to the largest of their layer, in falling order; a line for each layer.

    keep: the indices kept in each layer, of which only the number is drawn.
    """
    figure, axis = plt.subplots(figsize=(5.2, 2.6))
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(keep)))
    for layer, (scores, colour) in enumerate(zip(map(np.asarray, significance), colours, strict=True), start=1):
        ranks = np.arange(1, scores.size + 1)
        axis.semilogy(ranks, np.sort(scores)[::-1] / scores.max(), color=colour, label=f"hidden layer {layer}")
    axis.axvline(len(keep[0]) + 0.5, color="C1", ls="--", lw=1, label="kept | removed")
    axis.set(xlabel="node, by falling significance", ylabel="S / max S in the layer", ylim=(1e-4, 1.5))
    figure.legend(loc="outside right center")
    return figure


def dense_and_sparse(kernels: Sequence[np.ndarray], keep: Sequence[np.ndarray]) -> Figure:
    """Equal numbers of weights, chosen two ways: those between kept nodes, or the largest of each matrix.

    kernels: the weight matrices between hidden layers, (width, width) each; keep: the nodes kept in each hidden
    layer. Black are the nodes that a chosen weight touches.
    """
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.0), sharey=True)
    alive = [set(), set()]
    width = max((len(kernel) for kernel in kernels), default=max(map(max, keep)) + 1)
    for layer, (kernel, rows, columns) in enumerate(zip(kernels, keep, keep[1:], strict=False), start=1):
        dense = [(row, column) for row in rows for column in columns]
        largest = np.argsort(-np.abs(kernel), axis=None, kind="stable")[: len(dense)]
        sparse = np.transpose(np.unravel_index(largest, kernel.shape))
        for side, chosen in enumerate((dense, sparse)):
            lines = [((layer, row), (layer + 1, column)) for row, column in chosen]
            axes[side].add_collection(LineCollection(lines, lw=0.4, alpha=0.6, color=f"C{side}"))
            alive[side].update(end for line in lines for end in line)
    n_weights = sum(len(rows) * len(columns) for rows, columns in pairwise(keep))
    for axis, nodes, title in zip(axes, alive, ("dense: whole nodes", "sparse: largest weights"), strict=True):
        grid = [(layer, node) for layer in range(1, len(keep) + 1) for node in range(width)]
        axis.plot(*np.transpose(grid), ".", ms=1, color="0.8")
        axis.plot(*np.transpose(sorted(nodes)), ".", ms=2.5, color="k")
        axis.set(title=f"{title}\n{n_weights} weights, {len(nodes)} nodes touched", xlabel="hidden layer")
        axis.set_xticks(range(1, len(keep) + 1))
    axes[0].set_ylabel("node")
    return figure


def seed_spread(table: pd.DataFrame, published: Mapping[str, Sequence[float]]) -> Figure:
    """1 - R² of every seed, by stage and quantity, on a log axis, beside the published run.

    table: columns budget, stage, quantity, seed, r2.
    """
    figure, axes = plt.subplots(1, 3, figsize=(7.2, 3.8), sharey=True)
    for index, (axis, quantity) in enumerate(zip(axes, QUANTITIES, strict=True)):
        for position, stage in enumerate(STAGES):
            for shift, (budget, name) in zip((-0.15, 0.15), BUDGET_NAMES.items(), strict=True):
                chosen = table[(table.budget == budget) & (table.stage == stage) & (table.quantity == quantity)]
                axis.plot(np.full(len(chosen), position + shift), 1 - chosen.r2, "o", ms=3, mew=0, alpha=0.6,
                          color="C0" if shift < 0 else "C2", label=f"ours, {name}" * (position == 0))  # fmt: skip
            axis.plot(position, 1 - published[stage][index], "_", ms=16, mew=1.8, color="C1",
                      label="published run" * (position == 0))  # fmt: skip
        axis.set(title=quantity, yscale="log", xticks=range(len(STAGES)))
        axis.set_xticklabels([STAGE_NAMES[stage] for stage in STAGES], rotation=90)
    axes[0].set_ylabel("1 − R²")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure
