"""The surrogates to take away, as ONNX models in `results/models`, and the card that says what they are."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnxruntime
import pandas as pd

from sobolev_utils.learning.metrics import rmse
from sobolev_utils.paper.case_study import BUDGETS, Problem, Truth
from sobolev_utils.paper.export import to_onnx
from sobolev_utils.paper.files import write_bytes
from sobolev_utils.paper.stages import QUANTITIES, STAGES, Trained

__all__ = ["EXAMPLE", "TAKEN", "save_models"]

# the final networks, and the one they come from
TAKEN = ((STAGES[0], BUDGETS[0]), *product(STAGES[1:], BUDGETS[:2]))
DTYPES = ("float32", "float64")

EXAMPLE = """\
import json

import numpy as np
import onnxruntime

surrogate = onnxruntime.InferenceSession("results/models/sobolev_reference_paths_8192_float64.onnx")
about = surrogate.get_modelmeta().custom_metadata_map
lower, upper, weights = (json.loads(about[name]) for name in ("lower", "upper", "weights"))

spots = np.random.default_rng(0).uniform(lower, upper, (5, len(weights)))
price, deltas, gamma = surrogate.run(None, {"spots": spots})

for row in zip(spots @ weights, price, deltas.sum(axis=1), gamma):
    print("basket {:.3f}, price {:.5f}, delta {:.4f}, gamma {:.3f}".format(*row))
"""


def save_models(
    results: Path,
    problem: Problem,
    stages: Mapping[str, Mapping[str, Trained]],
    seed: int,
    certificates: Mapping[tuple[str, str, str], Mapping] = MappingProxyType({}),
) -> dict[tuple[str, str, str], Path]:
    """Write `models/<stage>_<budget>_<dtype>.onnx`, where `TAKEN`, and the card; return the paths of the models.

    stages: what each stage trained with this seed, by budget; certificates: as `stated` gives them, of some models,
    for their metadata and the card. These and the paths are by stage, budget and dtype. Raises ValueError as
    `to_onnx` does.
    """
    folder, paths, rows = Path(results) / "models", {}, []
    for stage, budget in TAKEN:
        model, scores = stages[stage][budget].model, stages[stage][budget].r2
        metadata = _metadata(problem) | {"stage": stage, "budget": budget, "seed": seed}
        claims = {dtype: certificates.get((stage, budget, dtype)) for dtype in DTYPES}
        exported = {
            dtype: to_onnx(model, dtype, metadata | ({"certificate": claim} if claim else {}))
            for dtype, claim in claims.items()
        }
        for dtype, data in exported.items():
            paths[stage, budget, dtype] = write_bytes(folder / f"{stage}_{budget}_{dtype}.onnx", data)
        row = {"network": f"{stage}_{budget}", "parameters": str(model.n_parameters)}
        row |= {f"R² {quantity}": f"{score:.9f}" for quantity, score in zip(QUANTITIES, scores, strict=True)}
        rows.append(row | {name: f"{error:.3g}" for name, error in _errors(exported, problem.test).items()})
    write_bytes(folder / "README.md", _card(problem, pd.DataFrame(rows), certificates).encode())
    return paths


def _metadata(problem: Problem) -> dict[str, object]:
    """The meaning of inputs and outputs, the domain of the errors, and the contract: the same in each file."""
    basket = problem.basket
    lower, upper = basket.box
    return {
        "spots": "of each asset at exposure, in units of the initial spot",
        "price": "of the call, in units of the initial spot",
        "deltas": "dV/dS_i, of the price in each spot",
        "gamma": "1'H1 with H the Hessian in the spots: d2V/dB2, per unit of spot",
        "lower": lower.tolist(),
        "upper": upper.tolist(),
        "weights": basket.weights.tolist(),
        "strike": basket.strike,
        "years_to_maturity": basket.maturity - basket.exposure,
        "volatility": basket.volatility,
    }


def _errors(exported: Mapping[str, bytes], test: Truth) -> dict[str, float]:
    """Of a surrogate exported by dtype, against the closed form on the test set: the worse of its files."""
    outputs = [
        onnxruntime.InferenceSession(data).run(None, {"spots": np.asarray(test.x, dtype)})
        for dtype, data in exported.items()
    ]
    errors = {
        f"RMSE {quantity}": max(rmse(truth, output) for output in found)
        for quantity, truth, *found in zip(QUANTITIES, test[1:], *outputs, strict=True)
    }
    errors["largest error of a price"] = max(abs(price - test.value).max() for price, *_ in outputs)
    return errors | {"lowest price": min(price.min() for price, *_ in outputs)}


def _certified(certificates: Mapping[tuple[str, str, str], Mapping]) -> str:
    """The section on what is proven."""
    if not certificates:
        return "Nothing is proven of these models."
    rows = []
    for (stage, budget, dtype), claim in certificates.items():
        row = {"model": f"{stage}_{budget}_{dtype}"}
        for quantity, bounds in claim["bounds"].items():
            each = (
                {quantity: bounds[:-1]} if len(bounds) == 2 else {"delta": bounds[:-1], "norm of deltas": bounds[-1:]}
            )
            row |= {name: f"{max(some):.3g}" for name, some in each.items()}
        row["of price, rounding"] = f"{claim['of which rounding']['price'][0]:.2g}"
        rows.append(row)
    (assumes,) = {claim["assumes"] for claim in certificates.values()}
    table = pd.DataFrame(rows).fillna("").to_markdown(index=False, disable_numparse=True)
    return f"""\
Bounds of the errors of what a runtime computes from a file, against the closed form, for *all* spots of the domain,
by notebook 16_certificate. {assumes}

{table}

They are in the metadata of each file, too, under `certificate`; `sobolev_utils.paper.check_model(path, basket)`
proves them anew from the file. Nothing is proven of the other models."""


def _card(problem: Problem, errors: pd.DataFrame, certificates: Mapping) -> str:
    basket, about = problem.basket, _metadata(problem)
    n, n_test, labels = basket.n_assets, len(problem.test.x), f"{problem.samples.y.size:,}"
    return f"""\
# Surrogates to take away

Made from the data by notebook 09_take_away; not to be edited. `<stage>_<budget>_<dtype>.onnx` is a dense network that
gives the price of a call on a basket of {n} assets, its deltas and its gamma in one run, without JAX.

**Stages.** `oversized`: trained on payoffs alone, here for comparison. `pruned`: what interval adjoint significance
left of it, fine-tuned on payoffs. `sobolev_nn`: then on derivatives of the oversized network. `sobolev_reference`: on
derivatives of the closed form. `preserved`: the oversized network with as few nodes, refitted so that value and
derivatives stay, and not trained; then fine-tuned: `preserved_values` on payoffs, `preserved_nn` on derivatives of
the oversized network, `preserved_reference` on those of the closed form. **Budgets.** `{BUDGETS[0]}`: the paper's, a
fixed sample of {labels} labels, each the mean of two mirrored payoffs. `{BUDGETS[1]}`: as many new ones in each
epoch.

| tensor | shape | meaning |
|---|---|---|
| input `spots` | (n, {n}) | {about["spots"]} |
| output `price` | (n,) | {about["price"]} |
| output `deltas` | (n, {n}) | {about["deltas"]} |
| output `gamma` | (n,) | {about["gamma"]} |

n is any number of spots. Inputs, weights and outputs are of the dtype in the name of the file. The networks normalise
their inputs themselves. The lines above, the domain, the contract and the seed are in each file too, as its metadata.

**Domain.** Each spot from {about["lower"][0]:.4g} to {about["upper"][0]:.4g}.

**Contract.** Strike {basket.strike:g}; years from exposure to maturity {about["years_to_maturity"]:g}; volatility of
the basket {basket.volatility:.4g} per square root of a year; no interest; driftless Gaussian (Bachelier) assets;
weights {", ".join(f"{weight:.4f}" for weight in basket.weights)}.

## Errors

Against the closed form, at {n_test:,} spots drawn uniformly from the domain. R² is of the network in JAX; the errors,
in the units above, are those of the worse of its two files.

{errors.to_markdown(index=False, disable_numparse=True)}

Notebook 09_take_away checks that each file computes what its network does in JAX.

## Certificates

{_certified(certificates)}

## Use

From the root of the repository, with numpy and onnxruntime alone:

```python
{EXAMPLE}```

## Not for

- Other contracts, volatilities or baskets: they are in the weights, and no inputs.
- Spots outside the domain: no error was measured there, and the files do not tell such spots from others.
- Prices so small that the errors above matter: these are absolute. Nothing keeps a price from being negative, or a
  delta or gamma from having the wrong sign, where it is nearly zero: see the lowest price.
- Single entries of the Hessian, or derivatives of higher order: their errors were not measured.
- Trading: the basket is drawn at random, and its market has no smile, no drift and no interest.
"""
