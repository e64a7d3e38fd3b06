"""Directions and products along them, against full Hessians and exact expectations."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import labelled_by, random_basket, random_surrogate, uniform_points

from sobolev_utils.directions import all_directions, hvp, principal_directions, random_directions, with_hvp
from sobolev_utils.losses import sobolev

MODEL = random_surrogate()
X = jnp.asarray(uniform_points(16, 3))
HESSIANS = MODEL.hessian(X)
KEY = jax.random.key(0)


def test_products_are_those_with_the_hessian():
    directions = random_directions(KEY, 16, 2, 3)
    expected = jnp.einsum("sij,skj->ski", HESSIANS, directions)
    np.testing.assert_allclose(hvp(MODEL, X, directions), expected, rtol=1e-10, atol=1e-12)
    y, dydx, products = MODEL.value_delta_and_hvp(X, directions)
    np.testing.assert_allclose(products, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(y, MODEL(X), rtol=1e-14)
    np.testing.assert_allclose(dydx, MODEL.delta(X), rtol=1e-14)


def test_products_of_the_closed_form_are_its_gamma_times_weights():
    basket = random_basket(3)
    directions, w = random_directions(KEY, 16, 1, 3), jnp.asarray(basket.weights)
    expected = (basket.gamma(X)[:, None] * (directions @ w))[..., None] * w
    np.testing.assert_allclose(hvp(basket.value, X, directions), expected, rtol=1e-9, atol=1e-12)


def test_random_directions_are_unbiased_exactly():
    """Over all signs, each as likely, the mean of v v' is the identity, and of (H v) v' it is H."""
    signs = jnp.asarray(list(itertools.product([-1.0, 1.0], repeat=3)))
    np.testing.assert_allclose(jnp.einsum("si,sj->ij", signs, signs) / 8, np.eye(3))
    products = hvp(MODEL, X, jnp.broadcast_to(signs, (16, 8, 3)))
    np.testing.assert_allclose(jnp.einsum("ski,kj->sij", products, signs) / 8, HESSIANS, rtol=1e-9, atol=1e-12)
    drawn = random_directions(KEY, 4000, 1, 3)
    assert set(np.unique(drawn)) == {-1, 1} and abs(drawn.mean(axis=(0, 1))).max() < 5 / np.sqrt(4000)


def test_fixed_directions_see_all_of_the_hessian_or_its_leading_part():
    squares = jnp.sum(HESSIANS**2, axis=(1, 2))
    for directions in (all_directions(3), principal_directions(MODEL.delta(X), 3)):
        products = hvp(MODEL, X, jnp.broadcast_to(directions, (16, 3, 3)))
        np.testing.assert_allclose(jnp.mean(jnp.sum(products**2, -1), -1), squares, rtol=1e-10)
    (first,) = principal_directions(MODEL.delta(X), 1)
    second_moment = MODEL.delta(X).T @ MODEL.delta(X)
    np.testing.assert_allclose(second_moment @ first, jnp.linalg.eigvalsh(second_moment)[-1] * first, rtol=1e-9)
    np.testing.assert_allclose(jnp.linalg.norm(first), 1, rtol=1e-12)


def test_samples_get_directions_of_their_own_or_in_common():
    samples = labelled_by(MODEL, X)
    common = with_hvp(samples, MODEL, all_directions(3))
    assert common.directions.shape == common.hvp.shape == (16, 3, 3)
    np.testing.assert_array_equal(common.directions[0], common.directions[5])
    assert sobolev()(MODEL, common) == sobolev()(MODEL, samples)


@pytest.mark.parametrize("counts", [(0, 1, 3), (4, 0, 3), (4, 1, 0)])
def test_counts_below_one_are_refused(counts):
    with pytest.raises(ValueError, match=rf"at least 1, got {counts[0]} samples, {counts[1]} directions and"):
        random_directions(KEY, *counts)


@pytest.mark.parametrize("k", [0, 4])
def test_more_components_than_inputs_are_refused(k):
    with pytest.raises(ValueError, match=f"between 1 and 3, got {k}"):
        principal_directions(MODEL.delta(X), k)
