"""Every figure that more than one notebook draws, or whose drawing would hide the mathematics; one style."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from sobolev_utils.paper.case_study import Truth
from sobolev_utils.paper.stages import QUANTITIES, STAGES, Trained

__all__ = [
    "beyond",
    "caption",
    "derivatives",
    "loss_curves",
    "pruning_methods",
    "seed_spread",
    "step_cost",
    "use_style",
]

STAGE_NAMES = {
    "oversized": "oversized",
    "pruned": "pruned",
    "sobolev_nn": "Sobolev,\nNN targets",
    "sobolev_reference": "Sobolev,\nreference targets",
    "preserved": "preserved,\nuntrained",
    "preserved_values": "preserved,\nvalues",
    "preserved_nn": "preserved,\nNN targets",
    "preserved_reference": "preserved,\nreference targets",
}
BUDGET_NAMES = {"paths_8192": "fixed sample", "fresh_paths": "fresh samples", "paper_recipe": "published recipe"}
BUDGET_COLOURS = {"paths_8192": "C0", "fresh_paths": "C2", "paper_recipe": "C3"}
METHOD_NAMES = {
    "iasa_plain": "IASA, plain intervals",
    "iasa_plain_iterative": "IASA, plain, iterative",
    "iasa_tight": "IASA, tight enclosures",
    "iasa_tight_iterative": "IASA, tight, iterative",
    "sampled": "sampled significance",
    "magnitude": "magnitude",
    "random": "random nodes",
    "random_iterative": "random nodes, iterative",
    "scratch": "trained from scratch",
}


def use_style() -> None:
    """Apply `paper.mplstyle` to all figures that follow."""
    plt.style.use(Path(__file__).with_name("paper.mplstyle"))


def caption(figure: Figure, *studies: pd.DataFrame) -> Figure:
    """Write below a figure what its studies, read by `outputs.read_study`, were made with; returns the figure."""
    labels = dict.fromkeys(study.attrs["of"] for study in studies)
    figure.supxlabel(f"study of {'; and of '.join(labels)}", fontsize=6, color="0.4")
    return figure


def derivatives(trained: Mapping[str, Trained], test: Truth, underlying: np.ndarray, name: str) -> Figure:
    """Value, delta and gamma of the surrogate `name` against the underlying: a row for each budget, stage or name.

    underlying: (n_samples,), the basket of each test spot. The delta is 1'grad, the derivative along the underlying.
    """
    order = np.argsort(underlying)
    truth = (test.value, test.delta.sum(axis=-1), test.gamma)
    figure, rows = plt.subplots(len(trained), 3, figsize=(7.2, 2.3 * len(trained)), sharex=True, squeeze=False)
    for axes, (row, stage) in zip(rows, trained.items(), strict=True):
        model = stage.model
        guesses = (model(test.x), model.delta(test.x).sum(axis=-1), model.gamma(test.x))
        for axis, quantity, exact, guess, r2 in zip(axes, QUANTITIES, truth, guesses, stage.r2, strict=True):
            axis.plot(underlying, guess, ".", ms=2, alpha=0.5, rasterized=True, label=name)
            axis.plot(underlying[order], np.asarray(exact)[order], "k", lw=0.8, label="closed form")
            axis.set_title(f"{quantity}: 1 − R² = {1 - r2:.1e}")
        axes[0].set_ylabel((BUDGET_NAMES | STAGE_NAMES).get(row, row))
    plt.setp(rows[-1], xlabel="basket")
    rows[0, 0].legend(markerscale=4)
    return figure


def loss_curves(histories: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Training loss by epoch, on one log scale: a panel for each stage, in it a line for each budget."""
    n, most = len(histories), 4
    columns, lines = min(n, most), -(-n // most)
    shape = {"figsize": (1.2 + 1.9 * columns, 2.3 * lines), "sharey": True, "squeeze": False}
    figure, axes = plt.subplots(lines, columns, **shape)
    for axis, (name, curves) in zip(axes.flat, histories.items(), strict=False):
        for budget, history in curves.items():
            epochs, colour = np.arange(1, len(history) + 1), BUDGET_COLOURS[budget]
            axis.semilogy(epochs, history, color=colour, lw=0.9, label=BUDGET_NAMES[budget])
        axis.set(title=name, xlabel="epoch")
    plt.setp(axes[:, 0], ylabel="mean training loss")
    for axis in axes.flat[n:]:
        axis.axis("off")
    last = axes.flat[-1 if n < axes.size else 0]
    last.legend(*axes[0, 0].get_legend_handles_labels(), loc="center" if n < axes.size else "best")
    return figure


def seed_spread(table: pd.DataFrame, published: Mapping[str, Sequence[float]]) -> Figure:
    """1 - R² of every seed, by stage and quantity, on a log axis, beside the published run.

    table: columns budget, stage, quantity, seed, r2.
    """
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 4.2), sharey=True)
    for index, (axis, quantity) in enumerate(zip(axes, QUANTITIES, strict=True)):
        for shift, (budget, name) in zip((-0.2, 0, 0.2), BUDGET_NAMES.items(), strict=True):
            runs = table[(table.budget == budget) & (table.quantity == quantity)]
            style = {"ms": 3, "mew": 0, "alpha": 0.6, "color": BUDGET_COLOURS[budget]}
            axis.plot(runs.stage.map(STAGES.index) + shift, 1 - runs.r2, "o", label=f"ours, {name}", **style)
        errors = [1 - scores[index] for scores in published.values()]
        places = [STAGES.index(stage) for stage in published]
        axis.plot(places, errors, "_", ms=20, mew=1.8, color="C1", label="published run")
        axis.set(title=quantity, yscale="log")
        axis.set_xticks(range(len(STAGES)), [STAGE_NAMES[stage] for stage in STAGES], rotation=90)
    axes[0].set_ylabel("1 − R²")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return caption(figure, table)


def pruning_methods(table: pd.DataFrame) -> Figure:
    """1 - R² after fine-tuning, by method, on log axes: a row of panels for each size, a panel for each quantity.

    A point is the median over the seeds, the thick bar the quartiles, the thin one the extremes. table: columns
    method, parameters, seed, stage, quantity, r2. Methods are drawn in the order of `METHOD_NAMES`.
    """
    pruned = table[table.stage == "pruned"]
    names = {method: name for method, name in METHOD_NAMES.items() if method in set(pruned.method)}
    sizes = sorted(set(pruned.parameters), reverse=True)
    shape = {"figsize": (7.2, 0.6 + 2.3 * len(sizes)), "sharex": "col", "sharey": True, "squeeze": False}
    figure, rows = plt.subplots(len(sizes), len(QUANTITIES), **shape)
    for axis, (size, quantity) in zip(rows.flat, product(sizes, QUANTITIES), strict=True):
        chosen = pruned[(pruned.parameters == size) & (pruned.quantity == quantity)]
        for position, method in enumerate(names):
            errors = 1 - chosen[chosen.method == method].r2
            low, first, middle, third, high = np.quantile(errors, (0, 0.25, 0.5, 0.75, 1))
            colour = "C0" if method.startswith("iasa") else "C1" if method == "scratch" else "0.45"
            axis.plot([low, high], [position] * 2, lw=0.8, color=colour)
            axis.plot([first, third], [position] * 2, lw=3.5, alpha=0.5, color=colour, solid_capstyle="butt")
            axis.plot(middle, position, "s" if "iterative" in method else "o", ms=4.5, color=colour)
        axis.set(xscale="log", title=f"{quantity}, {size} parameters")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(axis="x", lw=0.4, color="0.85")
    plt.setp(rows[:, 0], yticks=range(len(names)), yticklabels=names.values(), ylim=(len(names) - 0.5, -0.5))
    plt.setp(rows[-1], xlabel="1 − R²")
    return caption(figure, table)


def step_cost(table: pd.DataFrame) -> Figure:
    """Time of a training step over the numbers of inputs and of outputs: a line for each way to take derivatives."""
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.0), sharey=True)
    for axis, (varied, rows) in zip(axes, table.groupby("varied", sort=False), strict=True):
        for way, line in rows.groupby("way", sort=False):
            axis.loglog(line.value, 1e3 * line.seconds, "o-", ms=4, label=way)
        axis.set_xlabel(varied)
        values = sorted(rows.value.unique())
        axis.set_xticks(values, values)
        axis.minorticks_off()
        axis.legend(fontsize=7)
    axes[0].set(ylabel="milliseconds a step", ylim=(None, 1e4))
    return caption(figure, table)


def beyond(study: pd.DataFrame, seeds: pd.DataFrame, published: Mapping[str, Sequence[float]]) -> Figure:
    """1 - R^2 over the number of parameters, published and ours: mean of the seeds, with a bar to the worst.

    study: of `studies.extensions`; seeds: R^2 of the paper's stages under several seeds, of which the fixed sample is
    shown. The published pruned networks have 433 or 40 parameters, hence the lines.
    """
    sizes = dict.fromkeys([*published, "preserved"], 433) | {"oversized": 83_713}
    fixed = seeds[(seeds.budget == "paths_8192") & seeds.stage.isin(list(sizes))]
    stages = fixed.assign(experiment=fixed.stage, parameters=fixed.stage.map(sizes), one_minus_r2=1 - fixed.r2)
    shown = study[study.experiment.isin(["pathwise_8192", "second_order", "lm_433", "lm_40"])]
    ours = pd.concat([stages, shown])
    colours = {stage: f"C{n}" for n, stage in enumerate(published)}
    figure, axes = plt.subplots(1, len(QUANTITIES), figsize=(7.2, 3.6), sharey=True)
    for index, (axis, quantity) in enumerate(zip(axes, QUANTITIES, strict=True)):
        for stage, scores in published.items():
            span = [40 if sizes[stage] == 433 else sizes[stage], sizes[stage]]
            style = {"color": colours[stage], "lw": 0.8, "ms": 5, "label": f"published: {stage}"}
            axis.plot(span, [1 - scores[index]] * 2, "x--", **style)
        experiments = ours[ours.quantity == quantity].groupby("experiment", sort=False)
        for (name, runs), marker in zip(experiments, "osv^hDPX*", strict=False):
            mean, worst = runs.one_minus_r2.mean(), runs.one_minus_r2.max()
            style = {"color": colours[name]} if name in published else {"color": "k", "mfc": "none"}
            style |= {"fmt": marker, "ms": 5, "capsize": 2, "label": f"ours: {name}"}
            axis.errorbar(runs.parameters.iloc[:1], [mean], yerr=[[0], [worst - mean]], **style)
        axis.set(xscale="log", yscale="log", xlabel="parameters", title=quantity, xlim=(20, 2e5))
    axes[0].set_ylabel("$1 - R^2$")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=7)
    return caption(figure, study, seeds)
