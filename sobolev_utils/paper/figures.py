"""Every figure that more than one notebook draws, or whose drawing would hide the mathematics; one style."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

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
# Ways to prune, with label, colour and line: dashed on values alone, dotted where other nodes are held at constants.
METHODS = {
    "pursuit": ("matching pursuit", "C0", "o-"),
    "pursuit_values": ("pursuit, values alone", "C0", "o--"),
    "pursuit_interval": ("pursuit, weighed by intervals", "C5", "o-"),
    "pivoted_qr": ("pivoted QR", "C2", "s-"),
    "pivoted_qr_values": ("interpolative decomposition", "C2", "s--"),
    "conditional": ("conditional significance", "C4", "D-"),
    "conditional_values": ("conditional, values alone", "C4", "D--"),
    "iasa_refitted": ("significance, refitted", "C1", "^-"),
    "random_refitted": ("random, refitted", "k", "v-"),
    "brain_surgeon": ("optimal brain surgeon", "C3", "P-"),
    "iasa_plain": ("significance (the paper's)", "C1", "^:"),
    "iasa_tight": ("significance, tight", "C1", "x:"),
    "sampled": ("sampled significance", "0.6", "x:"),
    "random": ("random", "k", "v:"),
    "magnitude": ("magnitude", "0.6", "o:"),
    "saliency": ("saliency", "0.6", "s:"),
    "brain_damage": ("optimal brain damage", "0.6", "P:"),
    "scratch": ("trained from scratch", "r", "*-"),
    "set": ("SET", "r", "+"),
    "rigl": ("RigL", "r", "x"),
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


def pruning_methods(table: pd.DataFrame, loss: str = "-") -> Figure:
    """Error over the number of parameters, by way to prune, as a multiple of the oversized network's own.

    An error is 1 - R²; a point is the median over the seeds. A column of panels for each network, a row for each
    quantity. table: columns network, method, parameters, seed, stage, loss, quantity, r2. loss: of the fine-tuning;
    "-" for networks before it. Ways are drawn in the order of `METHODS`.
    """
    keys = ["network", "seed", "quantity"]
    own = table[table.method == "oversized"].set_index(keys).r2
    rows = table[(table.loss == loss) & (table.method != "oversized")]
    ratio = (1 - rows.r2.to_numpy()) / (1 - own.loc[pd.MultiIndex.from_frame(rows[keys])].to_numpy())
    by = ["network", "quantity", "method", "nodes", "parameters"]
    medians = rows.assign(ratio=ratio).groupby(by, sort=False).ratio.median().reset_index()
    networks = list(dict.fromkeys(table.network))
    shape = {
        "figsize": (max(2.0 * len(networks) + 0.8, 8.8), 6.6),
        "sharex": "col",
        "sharey": "row",
        "squeeze": False,
    }
    figure, axes = plt.subplots(len(QUANTITIES), len(networks), **shape)
    for axis, (quantity, network) in zip(axes.flat, product(QUANTITIES, networks), strict=True):
        panel = medians[(medians.network == network) & (medians.quantity == quantity)]
        for method, (label, colour, style) in METHODS.items():
            line = panel[panel.method == method].sort_values("nodes")
            axis.loglog(line.parameters, line.ratio, style, color=colour, ms=3, lw=0.8, label=label)
        axis.axhline(1, color="0.8", lw=0.6, zorder=0)
        axis.xaxis.set_major_locator(LogLocator(subs=(1,) if loss == "-" else (1, 3)))
        axis.xaxis.set_minor_formatter(NullFormatter())
    for axis, network in zip(axes[0], networks, strict=True):
        axis.set_title(network.replace("_", " "))
    for axis, quantity in zip(axes[:, 0], QUANTITIES, strict=True):
        axis.set_ylabel(quantity)
    plt.setp(axes[-1], xlabel="parameters")
    figure.supylabel("1 − R², over that of the oversized network", fontsize="medium")
    shown = [method for method in METHODS if method in set(medians.method)]
    lines = dict(zip(METHODS, axes[0, 0].get_lines(), strict=False))
    named = [(lines[method], METHODS[method][0]) for method in shown]
    figure.legend(*zip(*named, strict=True), loc="outside upper center", ncols=4, fontsize=7)
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
