"""What a stage of the paper leaves behind: for each budget a surrogate, its loss curve and its R^2."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sobolev_utils.learning.metrics import r2
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.paper.artifacts import MADE_BY, ArtifactError, load, save
from sobolev_utils.paper.case_study import BUDGETS, Truth

__all__ = ["PUBLISHED", "QUANTITIES", "STAGES", "Trained", "collect_r2", "evaluate", "load_stage", "save_stage"]

# The paper's, then those of a reconstruction: before training, and fine-tuned in the same three ways.
STAGES = (
    *("oversized", "pruned", "sobolev_nn", "sobolev_reference"),
    *("preserved", "preserved_values", "preserved_nn", "preserved_reference"),
)
QUANTITIES = ("values", "deltas", "gammas")

# R^2 of one run each, as published by Kichler et al. 2024; 7 assets.
PUBLISHED = {
    "oversized": (0.999545, 0.998700, 0.997033),
    "pruned": (0.999296, 0.996718, 0.902470),
    "sobolev_nn": (0.999805, 0.999479, 0.987393),
    "sobolev_reference": (0.999962, 0.999863, 0.997374),
}


@dataclass(frozen=True)
class Trained:
    """A surrogate, its loss by epoch (epochs,), and its R^2 (3,) in values, deltas and gammas on the test set."""

    model: Surrogate
    history: np.ndarray
    r2: np.ndarray


def evaluate(model: Surrogate, test: Truth) -> np.ndarray:
    """R^2 of values, deltas and gammas, (3,), on a test set; the gamma is 1'H1 on both sides."""
    predicted = (model(test.x), model.delta(test.x), model.gamma(test.x))
    return np.array([r2(truth, guess) for truth, guess in zip(test[1:], predicted, strict=True)])


def save_stage(results: Path, name: str, trained: Mapping[str, Trained], parameters: Mapping[str, object]) -> Path:
    """Hand on what a stage trained, by budget, with the parameters that made it; `seed` must be among them."""
    arrays = {}
    for budget, stage in trained.items():
        arrays |= {f"{budget}/model/{key}": array for key, array in stage.model.arrays().items()}
        arrays |= {f"{budget}/history": stage.history, f"{budget}/r2": stage.r2}
    return save(results, name, arrays, parameters=parameters)


def load_stage(results: Path, name: str, /, **expected: object) -> tuple[dict[str, Trained], dict[str, object]]:
    """What a stage trained, by budget, and its parameters. Raises `ArtifactError` as `artifacts.load` does."""
    arrays, parameters = load(results, name, **expected)
    trained = {}
    for budget in BUDGETS:
        own = {key.removeprefix(f"{budget}/"): array for key, array in arrays.items() if key.startswith(budget)}
        model = {key.removeprefix("model/"): array for key, array in own.items() if key.startswith("model/")}
        if not model:
            raise ArtifactError(
                f"{name} holds no model for the budget {budget}: run notebooks/{MADE_BY[name]}.ipynb again"
            )
        trained[budget] = Trained(Surrogate.from_arrays(model), own["history"], own["r2"])
    return trained, parameters


def collect_r2(results: Path, seed: int) -> pd.DataFrame:
    """The R^2 of every budget, stage and quantity: columns budget, stage, quantity, r2, r2_paper, parameters, seed.

    r2_paper is NaN for stages that the paper does not have. Raises `ArtifactError` where a stage has not been run, or
    with another seed, or is outdated.
    """
    loaded = {stage: load_stage(results, stage, seed=seed)[0] for stage in STAGES}
    known = dict.fromkeys(STAGES, [np.nan] * len(QUANTITIES)) | PUBLISHED
    rows = [
        (budget, stage, quantity, score, published, loaded[stage][budget].model.n_parameters, seed)
        for budget in BUDGETS
        for stage in STAGES
        for quantity, score, published in zip(QUANTITIES, loaded[stage][budget].r2, known[stage], strict=True)
    ]
    columns = ["budget", "stage", "quantity", "r2", "r2_paper", "parameters", "seed"]
    return pd.DataFrame(rows, columns=columns)
