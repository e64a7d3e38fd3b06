"""Certificates against what points say, and against what is known of networks that were made wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import random_basket, random_surrogate

from sobolev_utils.enclosures import box
from sobolev_utils.learning import Surrogate, with_bump
from sobolev_utils.models import GaussianBasket
from sobolev_utils.pruning import certify

BASKET = random_basket(2, seed=3, strike=1.0)
BOX = box(*BASKET.box)
MODEL = random_surrogate(n_inputs=2, widths=(4, 4))


def errors(surrogate, reference, x, direction):
    """Errors of price, deltas and gamma at points, by JAX's own derivatives in double precision."""

    def f(x):
        return surrogate(x) - reference(x)

    gammas = jnp.einsum("nij,i,j->n", jax.vmap(jax.hessian(f))(x), direction, direction)
    return {"price": jax.vmap(f)(x)[:, None], "delta": jax.vmap(jax.grad(f))(x), "gamma": gammas[:, None]}


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(
    "model, direction",
    [(MODEL, None), (random_surrogate(2, (4, 4), "tanh", seed=1), np.array([0.7, -0.3]))],
    ids=["silu", "tanh, another direction"],
)
def test_no_point_exceeds_a_certificate_and_it_is_tight(model, direction):
    certificate = certify(model, BASKET, BOX, direction=direction)
    x = jnp.asarray(np.random.default_rng(0).uniform(*BASKET.box, (20_000, 2)))
    at_points = errors(model, BASKET.value, x, certificate.direction)
    for quantity, limit in (("price", 1.2), ("delta", 1.3), ("gamma", 1.5)):
        bound, sampled = certificate.bounds[quantity], abs(np.asarray(at_points[quantity]))
        sampled = np.append(sampled.max(axis=0), np.linalg.norm(sampled, axis=1).max())
        assert (sampled <= bound.proven).all() and (sampled <= 1.01 * bound.found).all()
        assert bound.ratio <= limit and (bound.rounding < 1e-9 * bound.proven).all()
        there = errors(model, BASKET.value, bound.where, certificate.direction)[quantity]
        norms = np.append(abs(np.diagonal(there)), np.linalg.norm(there[-1]))
        np.testing.assert_allclose(norms, bound.found, rtol=1e-6)
        assert ((BOX.lower <= bound.where) & (bound.where <= BOX.upper)).all()
    assert [row["quantity"] for row in certificate.rows()] == ["price", "delta", "delta_norm", "gamma"]


def test_a_known_error_is_found_and_proven():
    """f + 3 tanh x_1 against f: all is known of the error, whose cancellation affine arithmetic sees."""

    def reference(x):
        return jnp.tanh(x @ jnp.array([0.5, -1.0]))

    def surrogate(x):
        return reference(x) + 3 * jnp.tanh(x[0])

    unit = box(np.array([-0.5, -1.0]), np.array([1.0, 1.0]))
    bounds = certify(surrogate, reference, unit, direction=[2.0, 0.0], tolerances=dict.fromkeys(TIGHT, 1.02)).bounds
    known = {"price": [3 * np.tanh(1)] * 2, "delta": [3, 0, 3], "gamma": [12 * 4 / 3**1.5] * 2}
    for quantity, truth in known.items():
        assert (bounds[quantity].proven >= np.array(truth) * (1 - 1e-14)).all()
        np.testing.assert_allclose(bounds[quantity].found, truth, rtol=1e-3, atol=1e-12)
        np.testing.assert_allclose(bounds[quantity].proven, truth, rtol=0.03, atol=0.03)


TIGHT = ("price", "delta", "gamma")


def test_a_spike_that_sampling_misses_is_not_certified():
    """Wrong by 0.1 in a millionth of the box."""
    w = np.array([0.6, 0.4])
    width = 1e-6 * float((BOX.upper - BOX.lower) @ w) / 2
    wrong = with_bump(MODEL, w, 1.0, width, 0.1)
    x = np.random.default_rng(0).uniform(*BASKET.box, (4096, 2))
    np.testing.assert_allclose(wrong(x), MODEL(x), rtol=0, atol=1e-9)
    honest, proof = (
        certify(each, MODEL, BOX, tolerances={"price": 1.2}, enough={"price": [1e-3, 1e-3]}, boxes=600).bounds[
            "price"
        ]
        for each in (MODEL, wrong)
    )
    assert honest.proven[0] <= 1e-3 and proof.found[0] < 1e-3 and proof.proven[0] >= 0.1


def test_a_gamma_that_alone_is_wrong_is_not_certified():
    w = np.array([0.6, 0.4])
    wrong = with_bump(MODEL, w, 1.0, 1e-3, 1e-7)
    enough = {"price": [1e-3] * 2, "delta": [1e-2] * 3, "gamma": [0.1] * 2}
    bounds = certify(wrong, MODEL, BOX, enough=enough, boxes=2**11).bounds
    assert [bool((bounds[q].proven <= enough[q]).all()) for q in enough] == [True, True, False]
    x = np.clip(np.full((1000, 2), 1.0) + np.linspace(-2e-3, 2e-3, 1000)[:, None], *BASKET.box)
    assert abs(wrong.gamma(x) - MODEL.gamma(x)).max() > 0.1
    assert bounds["gamma"].proven[0] >= abs(wrong.gamma(x) - MODEL.gamma(x)).max()


def test_a_budget_ends_the_proof_which_holds_all_the_same():
    few = certify(MODEL, BASKET, BOX, tolerances={"gamma": 1.00001}, boxes=200).bounds["gamma"]
    short = certify(MODEL, BASKET, BOX, tolerances={"gamma": 1.00001}, seconds=0).bounds["gamma"]
    assert few.ratio > 1.00001 and 128 < few.boxes <= 256 and short.boxes == 128
    assert (few.found <= few.proven).all() and (few.proven <= short.proven).all()


def by_numpy(x):
    return float(np.sum(x))


@pytest.mark.parametrize(
    "surrogate, reference, inputs, options, words",
    [
        (MODEL, by_numpy, BOX, {}, "as reference a JAX function of inputs"),
        (Surrogate(2, [3], n_outputs=2, rngs=nnx.Rngs(0)), BASKET, BOX, {}, "surrogate must have one output"),
        (MODEL, lambda x: jnp.log(x[0] - 1) + x[1], BOX, {}, "not finite in the box: at x = "),
        (MODEL, lambda x: 1 / (x[0] - x[0]), BOX, {}, "the reference inf"),
        (MODEL, BASKET, box(np.zeros(3), np.ones(3)), {}, "must have shape"),
        (MODEL, GaussianBasket.random(0, 3), BOX, {}, "must have shape"),
        (MODEL, BASKET, box(np.zeros((1, 2)), np.ones((1, 2))), {}, "a box of inputs"),
        (MODEL, BASKET, BOX, {"tolerances": {"price": 1.0}}, "a ratio above 1"),
        (MODEL, BASKET, BOX, {"tolerances": {"vega": 1.2}}, "expected tolerances for quantities of"),
        (MODEL, BASKET, BOX, {"direction": [1.0]}, "a direction of 2 finite numbers"),
    ],
)
def test_bad_input_is_refused_in_a_line(surrogate, reference, inputs, options, words):
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        certify(surrogate, reference, inputs, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
