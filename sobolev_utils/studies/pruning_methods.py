"""Ways to prune compared: one oversized network, before and after the same fine-tuning, by number of nodes.

What has no oversized network to start from, the small network from scratch and sparse training, is trained on values
for as many epochs as that, before the same fine-tuning; from scratch also at its rate and decay.
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
        key = jax.random.fold_in(case.key, 3)
        small["scratch", count] = _tuned(case, [case.fresh(count)], plain, key, case.epochs, more=[case.training])[0]
        note("scratch", count, "before", "-", small["scratch", count])
        tell(f"scratch, {count} nodes")
        dense = [method for method in (*WAYS, "scratch") if (method, count) in small]
        sparse = {}
        if count == SPARSE:
            n_weights = sum(layer.kernel[...].size for layer in small["scratch", count].layers)
            sparse = {name: _sparse(case, n_weights, key, name == "rigl") for name in ("set", "rigl")}
            parameters = n_weights + sum(layer.bias[...].size for layer in sparse["set"].layers)
        for method, model in sparse.items():
            note(method, count, "before", "-", model, parameters)
        for name, loss in LOSSES.items():
            tuned = _tuned(case, [small[method, count] for method in dense], loss, key, EPOCHS)
            for method, model in zip(dense, tuned, strict=True):
                note(method, count, "after", name, model)
            if sparse:
                tuned = _tuned(case, list(sparse.values()), loss, key, EPOCHS, sparse=True)
                for method, model in zip(sparse, tuned, strict=True):
                    note(method, count, "after", name, model, parameters)
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


def _tuned(case: Case, models: Sequence[Surrogate], loss: Loss, key, epochs: int, more=(), sparse=False):
    """Trained with each of RATES, and with the settings (rate, decay) in `more`; the best of each."""
    settings = [*((rate, 0.0) for rate in RATES), *more]
    options = {"epochs": epochs, "batch": BATCH, "settings": settings, "sparse": sparse}
    return fit_together(models, case.draw, loss, case.held_out, key=key, **options)


def _sparse(case: Case, n_weights: int, key, by_gradient: bool) -> Surrogate:
    """Sparse training with so many weights; the better of RATES."""
    options = {"epochs": case.epochs, "batch": BATCH, "by_gradient": by_gradient}
    trained = [
        train_sparsely(case.fresh(WIDTH), case.draw, plain, n_weights, key=key, learning_rate=rate, **options)
        for rate in RATES
    ]
    losses = [float(plain(model, case.held_out)) for model in trained]
    return trained[int(np.argmin(np.nan_to_num(losses, nan=np.inf)))]
