"""Certificates of model files, proven anew from the files, and refused where they say too much."""

import numpy as np
import onnxruntime
import pytest
from oracles import DTYPES, random_basket, random_surrogate

from sobolev_utils.enclosures import box
from sobolev_utils.paper import CertificateError, certify_models, check_model, stated
from sobolev_utils.paper.export import to_onnx

BASKET = random_basket(2, seed=3, strike=1.0)
MODEL = random_surrogate(2, (4, 4), dtype=np.float32)


@pytest.fixture(scope="module")
def claims():
    """What is stated of the model in each type."""
    exported = {np.dtype(dtype).name: to_onnx(MODEL, dtype, {}) for dtype in DTYPES}
    certificate, roundings = certify_models(
        exported, BASKET, box(*BASKET.box), tolerances={"price": 1.2, "delta": 1.3}
    )
    return {dtype: stated(certificate, rounding, "a basket") for dtype, rounding in roundings.items()}


def test_what_is_stated_covers_what_the_runtime_computes(claims):
    x = np.random.default_rng(0).uniform(*BASKET.box, (20_000, 2)).astype(np.float32)
    for dtype, claim in claims.items():
        spots = x.astype(dtype)
        price, deltas, _ = onnxruntime.InferenceSession(to_onnx(MODEL, dtype, {})).run(None, {"spots": spots})
        wide = spots.astype(float)
        errors = {"price": (price - BASKET.value(wide))[:, None], "delta": deltas - BASKET.delta(wide)}
        for quantity, each in errors.items():
            largest = [*abs(each).max(axis=0), np.linalg.norm(each, axis=1).max()]
            assert (np.array(largest) <= claim["bounds"][quantity]).all()
            assert (np.array(claim["bounds"][quantity]) <= 1.4 * np.array(largest)).all()
    rounding = [np.array(claims[dtype]["of which rounding"]["price"]) for dtype in ("float32", "float64")]
    assert (rounding[1] < 1e-8 * rounding[0]).all()


def test_a_file_is_checked_against_its_certificate(claims):
    for dtype, claim in claims.items():
        data = to_onnx(MODEL, dtype, {"certificate": claim})
        proof = check_model(data, BASKET)
        for quantity, bounds in claim["bounds"].items():
            assert (proof.bounds[quantity].proven <= bounds).all()


def test_a_claim_that_a_point_refutes_is_refused(claims):
    lower = {**claims["float64"], "bounds": {"price": [1e-3 * b for b in claims["float64"]["bounds"]["price"]]}}
    with pytest.raises(CertificateError, match=r"the error of price is at most .*, but .* is found at"):
        check_model(to_onnx(MODEL, np.float64, {"certificate": lower}), BASKET)


def test_the_certificate_of_another_network_is_refused(claims):
    other = random_surrogate(2, (4, 4), seed=1, dtype=np.float32)
    with pytest.raises(CertificateError, match="is found at"):
        check_model(to_onnx(other, np.float32, {"certificate": claims["float32"]}), BASKET)


def test_a_file_without_a_certificate_is_refused():
    with pytest.raises(CertificateError, match="no certificate in the metadata"):
        check_model(to_onnx(MODEL, np.float64, {}), BASKET)
