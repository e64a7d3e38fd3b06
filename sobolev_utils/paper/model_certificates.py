"""Certificates of exported surrogates: bounds of what a runtime computes from their files, against a reference model.

The error of the real function that the nodes stand for (see `certificate`) and what rounding adds (see
`floating_point`), rounded up to three digits.
"""

import json
from collections.abc import Mapping
from decimal import ROUND_CEILING, Context, Decimal
from pathlib import Path

import jax
import numpy as np

from sobolev_utils.enclosures.intervals import Interval, box
from sobolev_utils.paper.exported import Exported
from sobolev_utils.paper.floating_point import ROUNDINGS, ranges, rounding_errors
from sobolev_utils.pruning.certificate import TOLERANCES, Certificate, certify, sections_across

__all__ = ["ASSUMPTIONS", "CertificateError", "certify_models", "check_model", "stated"]

OUTPUTS = {"price": "price", "delta": "deltas", "gamma": "gamma"}

ASSUMPTIONS = (
    "Proven given: error bounds of XLA's elementary functions in the proof, which are measured; a runtime that "
    "computes each node in the type of the model, rounds to nearest, takes sums in any order, and has "
    + ", ".join(f"{name} within {k} u" for name, k in ROUNDINGS.items() if k > 1)
    + " of its exact value (u = 2^-24 in float32, 2^-53 in float64; for Sigmoid and Tanh absolute); spots that are "
    "numbers of that type; the reference in real arithmetic."
)


class CertificateError(ValueError):
    """A model that has no certificate, or is not proven to keep it."""


def certify_models(
    exported: Mapping[str, bytes], reference: object, inputs: Interval, **budget: object
) -> tuple[Certificate, dict[str, dict[str, np.ndarray]]]:
    """The certificate of a surrogate exported in float64, and by type what rounding adds, as in `Bound.proven`.

    exported: the models of one surrogate by type, "float64" among them; budget: as `certify` takes it.
    """
    models = {dtype: Exported(data) for dtype, data in exported.items()}
    exact = models["float64"]
    certificate = certify(exact, reference, inputs, direction=exact.direction, **budget)
    return certificate, _roundings(exact, inputs, models)


def _roundings(exact, inputs, models):
    with jax.enable_x64(True):
        wide = box(*(np.asarray(end, float) for end in (inputs.lower, inputs.upper)))
        on_sections = ranges(exact, sections_across(exact.value, wide))
    roundings = {}
    for dtype, model in models.items():
        errors = {name: np.ravel(each) for name, each in rounding_errors(exact, on_sections, model).items()}
        with np.errstate(over="ignore"):
            roundings[dtype] = {q: np.append(errors[o], np.linalg.norm(errors[o])) for q, o in OUTPUTS.items()}
    return roundings


def stated(certificate: Certificate, rounding: Mapping[str, np.ndarray], reference: str) -> dict[str, object]:
    """The certificate of a file, for its metadata: bounds by quantity, rounded up, box, reference and assumptions."""
    bounds = {q: [_rounded_up(x) for x in each.proven + rounding[q]] for q, each in certificate.bounds.items()}
    return {
        "bounds": bounds,
        "of which rounding": {q: [_rounded_up(x) for x in rounding[q]] for q in bounds},
        "lower": certificate.lower.tolist(),
        "upper": certificate.upper.tolist(),
        "reference": reference,
        "meaning": "at most so large is |model - reference| for all spots from lower to upper: of the price, of each "
        "delta, of gamma; each list ends with the Euclidean norm of its quantity",
        "assumes": ASSUMPTIONS,
    }


def _rounded_up(x):
    return float(Context(prec=3, rounding=ROUND_CEILING).create_decimal(Decimal(float(x))))


def check_model(path: str | Path | bytes, reference: object, **budget: object) -> Certificate:
    """Prove anew the certificate that a model file carries, from its nodes and constants alone, against a reference.

    Returns the proof. Raises `CertificateError` where there is no certificate, where a point exceeds it, or where it
    is not proven within the budget, that of `certify`.
    """
    model = Exported(path)
    if "certificate" not in model.metadata:
        raise CertificateError(f"no certificate in the metadata of the model, which has {sorted(model.metadata)}")
    claim = json.loads(model.metadata["certificate"])
    claimed = {quantity: np.array(bounds) for quantity, bounds in claim["bounds"].items()}
    inputs = box(np.array(claim["lower"]), np.array(claim["upper"]))
    rounding = _roundings(model, inputs, {"": model})[""]
    enough = {q: np.nextafter(bounds - rounding[q], 0) for q, bounds in claimed.items()}
    tolerances = {q: TOLERANCES[q] for q in claimed}
    proof = certify(
        model, reference, inputs, direction=model.direction, tolerances=tolerances, enough=enough, **budget
    )
    for quantity, bounds in claimed.items():
        bound = proof.bounds[quantity]
        for i in np.flatnonzero(bound.proven > enough[quantity]):
            raise CertificateError(
                f"the certificate says that the error of {_name(quantity, i, bounds)} is at most {bounds[i]:.3g}, "
                f"but {bound.found[i]:.3g} is found at {np.round(bound.where[i], 6).tolist()}, no less than "
                f"{bound.proven[i]:.3g} is proven, and rounding may add {rounding[quantity][i]:.3g}"
            )
    return proof


def _name(quantity, i, bounds):
    if len(bounds) == 2:
        return quantity
    return f"{quantity} {i + 1}" if i < len(bounds) - 1 else f"the norm of each {quantity}"
