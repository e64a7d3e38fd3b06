"""Ways to prune compared: one oversized network, before and after the same fine-tuning, by number of nodes.

What has no oversized network to start from, the small network from scratch and sparse training, gets as many epochs
as that and the fine-tuning took together; from scratch the oversized network's rate and decay are tried as well.
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
TUNED = (3, 8)  # of these, before and after fine-tuning
SPARSE, WIDTH = 8, 32  # nodes of the dense network whose weights sparse training has among layers of this width
LOSSES: dict[str, Loss] = {"plain": plain, "sobolev": sobolev()}
EPOCHS, BATCH = 200, 512  # of fine-tuning
RATES = (1e-3, 1e-2)  # of Adam; the better on samples held out counts, unless the network was best as it came
DIGITS = 9  # of R^2, after the point


def compare(case: Case, sizes: Sequence[int] = SIZES) -> pd.DataFrame:
    """The rows of all ways: R^2 before fine-tuning, and after it with values alone or with derivatives."""
    seen, small, rows, start = Analysed(case), {}, [], time.monotonic()
    sizes = [count for count in sizes if count <= min(case.network.widths)]

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
            (model,) = _tuned(case, [case.fresh(count)], loss, key, case.epochs + EPOCHS, [case.training])
            note("scratch", count, "after", name, model)
            if count == SPARSE:
                for method in ("set", "rigl"):
                    note(method, count, "after", name, *_sparse(case, models[0], loss, key, method == "rigl"))
            tell(f"{count} nodes, {name}")
    return pd.DataFrame(rows, columns=COLUMNS)


def _scores(case: Case, model: Surrogate) -> np.ndarray:
    """R^2 (3,); minus infinity where a prediction is not finite."""
    try:
        return case.score(model)
    except ValueError as error:
        if "must be finite" not in str(error):
            raise
        return np.full(len(QUANTITIES), -np.inf)


def _tuned(case: Case, models: Sequence[Surrogate], loss: Loss, key, epochs: int, more=()) -> list[Surrogate]:
    """With each of RATES, and with the settings (rate, decay) in `more`."""
    options = {"epochs": epochs, "batch": BATCH, "settings": [*((rate, 0.0) for rate in RATES), *more]}
    return fit_together(models, case.draw, loss, case.held_out, key=key, **options)


def _sparse(case: Case, small: Surrogate, loss: Loss, key, by_gradient: bool) -> tuple[Surrogate, int]:
    """Sparse training with as many weights as `small` has, the better of RATES; and its number of parameters."""
    n_weights, fresh = sum(layer.kernel[...].size for layer in small.layers), case.fresh(WIDTH)
    options = {"epochs": case.epochs + EPOCHS, "batch": BATCH, "by_gradient": by_gradient}
    trained = [
        train_sparsely(fresh, case.draw, loss, n_weights, key=key, learning_rate=rate, **options) for rate in RATES
    ]
    losses = [float(loss(model, case.held_out)) for model in trained]
    n_biases = sum(layer.bias[...].size for layer in fresh.layers)
    return trained[int(np.argmin(np.nan_to_num(losses, nan=np.inf)))], n_weights + n_biases
