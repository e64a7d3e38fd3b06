"""Ways to prune compared: one oversized network, before and after the same fine-tuning, by number of nodes.

What has no oversized network to start from, the small network from scratch and sparse training, gets as many epochs
as that and the fine-tuning took together.
"""

import io
import time
from collections.abc import Sequence
from contextlib import redirect_stdout

import jax
import numpy as np
import pandas as pd

from sobolev_utils.learning.losses import Loss, plain, sobolev
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.paper.stages import QUANTITIES
from sobolev_utils.studies.cases import Case
from sobolev_utils.studies.sparse_training import train_sparsely
from sobolev_utils.studies.together import fit_together
from sobolev_utils.studies.ways_to_prune import WAYS, Analysed

__all__ = ["COLUMNS", "SIZES", "TUNED", "compare"]

COLUMNS = ["method", "nodes", "parameters", "stage", "loss", "quantity", "r2"]
SIZES = (2, 3, 4, 6, 8, 12, 16, 32, 64)  # nodes that stay in each hidden layer
TUNED = (3, 8, 16)  # of these, before and after fine-tuning
SPARSE, WIDTH = 8, 32  # nodes of the dense network whose weights sparse training has among layers of this width
LOSSES: dict[str, Loss] = {"plain": plain, "sobolev": sobolev()}
EPOCHS, BATCH = 200, 512  # of fine-tuning
RATES = (1e-4, 1e-2)  # of Adam; of two trainings the better on samples held out; sparse training has the last alone
DIGITS = 9  # of R^2, after the point


def compare(case: Case, sizes: Sequence[int] = SIZES) -> pd.DataFrame:
    """The rows of all ways: R^2 before fine-tuning, and after it with values alone or with derivatives."""
    seen, small, rows, start = Analysed(case), {}, [], time.monotonic()

    def note(method, count, stage, loss, model, parameters=None):
        scores = zip(QUANTITIES, _scores(case, model), strict=True)
        known = (method, count, parameters or model.n_parameters, stage, loss)
        rows.extend((*known, quantity, round(score, DIGITS)) for quantity, score in scores)

    def tell(what):
        print(f"{what} after {time.monotonic() - start:.0f} s", flush=True)

    note("oversized", case.network.widths[0], "before", "-", case.network)
    for method, way in WAYS.items():
        with redirect_stdout(io.StringIO()):  # no progress bars
            for count, model in way(seen, sizes):
                small[method, count] = model
                note(method, count, "before", "-", model)
        tell(method)
    for count in (count for count in TUNED if count in sizes):
        methods = [method for method in WAYS if (method, count) in small]
        models = [small[method, count] for method in methods]
        for name, loss in LOSSES.items():
            key = jax.random.fold_in(case.key, 3)
            for method, model in zip(methods, _tuned(case, models, loss, key, EPOCHS), strict=True):
                note(method, count, "after", name, model)
            (model,) = _tuned(case, [case.fresh(count)], loss, key, case.epochs + EPOCHS)
            note("scratch", count, "after", name, model)
            if count == SPARSE:
                for method in ("set", "rigl"):
                    model, free = _sparse(case, models[0], loss, key, method == "rigl")
                    note(method, count, "after", name, model, free)
            tell(f"{count} nodes, {name}")
    return pd.DataFrame(rows, columns=COLUMNS)


def _scores(case: Case, model: Surrogate) -> np.ndarray:
    """R^2 (3,); NaN where training left numbers that are not finite."""
    finite = all(np.isfinite(array).all() for name, array in model.arrays().items() if name != "activation")
    return case.score(model) if finite else np.full(len(QUANTITIES), np.nan)


def _tuned(case: Case, models: Sequence[Surrogate], loss: Loss, key: jax.Array, epochs: int) -> list[Surrogate]:
    options = {"epochs": epochs, "batch": BATCH, "learning_rates": RATES}
    return fit_together(models, case.draw, loss, case.held_out, key=key, **options)


def _sparse(case: Case, small: Surrogate, loss: Loss, key: jax.Array, by_gradient: bool) -> tuple[Surrogate, int]:
    """Sparse training with as many weights as `small` has; and how many numbers of it are not zero, with biases."""
    n_weights = sum(layer.kernel[...].size for layer in small.layers)
    options = {"epochs": case.epochs + EPOCHS, "batch": BATCH, "learning_rate": RATES[-1], "by_gradient": by_gradient}
    model = train_sparsely(case.fresh(WIDTH), case.draw, loss, n_weights, key=key, **options)
    trained = [array for name, array in model.arrays().items() if name.startswith(("kernel", "bias"))]
    return model, sum(map(np.count_nonzero, trained))
