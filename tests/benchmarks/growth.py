"""How the cost of an analysis grows: results/tables/iasa_cost.csv, results/figures/iasa_cost.png, by `make bench`.

Networks as they are initialised, 6 x 128 with 7 inputs but for what is varied; seconds after compilation, the least
of ten runs, for values and adjoints of all nodes.

What bounds it. Intervals: the elementwise work on the nodes, hence depth and width, as both matrix products of a
layer are small beside it up to a width of some hundred. Zonotopes: the products of a matrix with the generators, of
which each layer adds as many as it has nodes, in both sweeps: width^3 depth^2. Inputs: the first layer alone.
Sub-boxes: their number, as soon as a split fills a batch of 1,024, and in memory two rows of all values and adjoints
for each.
"""

from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from flax import nnx
from run import seconds, splitting

from sobolev_utils.enclosures.intervals import box
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.paper.artifacts import results_folder
from sobolev_utils.paper.figures import use_style
from sobolev_utils.paper.outputs import save_figure, save_table
from sobolev_utils.pruning.attained import inside
from sobolev_utils.pruning.significance import METHODS, values_and_adjoints

VARIED = {
    "depth": (2, 4, 6, 9, 12),
    "width": (32, 64, 128, 256, 512),
    "inputs": (2, 7, 20, 50),
    "sub-boxes": (2**6, 2**8, 2**10, 2**12, 2**14),
}


def network(depth=6, width=128, inputs=7):
    return Surrogate(inputs, [width] * depth, rngs=nnx.Rngs(42)), box(*np.float32([[0.3] * inputs, [1.7] * inputs]))


def one_box(method, **varied):
    model, inputs = network(**varied)
    enclosure = jax.jit(METHODS[method](lambda x: values_and_adjoints(model, x)))
    jax.block_until_ready(enclosure(inputs))
    return min(seconds(enclosure, inputs) for _ in range(10))


def sub_boxes(n):
    model, inputs = network()
    return splitting(model, inputs, inside(model, inputs, samples=2**10), boxes=n)


def measure():
    for varied, values in VARIED.items():
        for value in values:
            if varied == "sub-boxes":
                yield "intervals", varied, value, sub_boxes(value)
                continue
            for method in ("intervals", "zonotopes"):
                yield method, varied, value, one_box(method, **{varied: value})


def draw(table):
    use_style()
    figure, axes = plt.subplots(1, len(VARIED), figsize=(7.2, 2.6), sharey=True)
    for axis, varied in zip(axes, VARIED, strict=True):
        for method, rows in table[table.varied == varied].groupby("method"):
            axis.loglog(rows.value, rows.seconds, "o-", ms=4, label=method)
        axis.set(xlabel=varied, xticks=VARIED[varied], xticklabels=VARIED[varied])
        axis.tick_params(axis="x", labelsize=6, rotation=45)
        axis.minorticks_off()
    axes[0].set_ylabel("seconds")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


if __name__ == "__main__":
    rows = []
    for row in measure():
        rows.append((*row[:-1], float(f"{row[-1]:.3g}")))
        print(*rows[-1], sep=", ", flush=True)
    table = pd.DataFrame(rows, columns=["method", "varied", "value", "seconds"])
    folder = Path(results_folder())
    print(*save_table(folder, "iasa_cost", table, formats=("csv",)), save_figure(folder, "iasa_cost", draw(table)))
