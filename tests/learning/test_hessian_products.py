"""Directions and products along them, against full Hessians and exact expectations."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import labelled_by, random_basket, random_surrogate, uniform_points
from scipy import stats

from sobolev_utils.learning.hessian_products import (
    all_directions,
    hvp,
    principal_directions,
    random_directions,
    with_hvp,
)
from sobolev_utils.learning.losses import sobolev
from sobolev_utils.models.least_squares_monte_carlo import LeastSquaresMonteCarlo
from sobolev_utils.models.payoffs import smooth_call

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


def test_pathwise_products_of_a_smoothed_payoff_have_the_mean_of_its_curvature():
    """E H v = w (w'v) E f''(w'x + sd Z), by quadrature, for the smoothed payoff f; labels antithetic or not."""
    basket, n, width = random_basket(3), 2**16, 0.05
    w = basket.weights
    sd = np.sqrt(w @ basket.factor @ basket.factor.T @ w * (basket.maturity - basket.exposure))
    curvature = jax.vmap(jax.grad(jax.grad(lambda s: smooth_call(s, basket.strike, width))))
    spots = jnp.stack([jnp.full(3, basket.strike), jnp.full(3, basket.strike + 0.1), jnp.full(3, 1.5)])
    z = np.linspace(-9, 9, 20001)  # the trapezoidal rule, exact to rounding for what is smooth and decays
    expected = [stats.norm.pdf(z) @ curvature(s + sd * z) * (z[1] - z[0]) for s in spots @ w]
    np.testing.assert_allclose(expected, basket.gamma(spots) / sum(w) ** 2, atol=0.15)  # the bias of smoothing
    for antithetic in (False, True):
        reference = LeastSquaresMonteCarlo(basket, partial(smooth_call, width=width), "pseudo_random", antithetic)
        _, p = reference.paths(KEY, n)
        for x, truth in zip(spots, expected, strict=True):
            samples = reference.labelled(jnp.broadcast_to(x, (n, 3)), p)
            directions = random_directions(KEY, n, 1, 3)
            curved = with_hvp(samples, partial(reference.label, p=p), directions)
            estimates = jnp.sum(curved.hvp[:, 0] * directions[:, 0], axis=1)  # v'Hv, of mean tr H = |w|^2 E f''
            z_score = (estimates.mean() - truth * w @ w) / (estimates.std() / np.sqrt(n))
            assert abs(z_score) < 5


@pytest.mark.parametrize("counts", [(0, 1, 3), (4, 0, 3), (4, 1, 0)])
def test_counts_below_one_are_refused(counts):
    with pytest.raises(ValueError, match=r"the number of (samples|directions|inputs) must be at least 1, got 0"):
        random_directions(KEY, *counts)


@pytest.mark.parametrize("k", [0, 4])
def test_more_components_than_inputs_are_refused(k):
    with pytest.raises(ValueError, match=f"between 1 and 3, got {k}"):
        principal_directions(MODEL.delta(X), k)


@pytest.mark.parametrize("shape", [(16, 1, 2), (5, 1, 3), (3,), (16, 0, 3)])
def test_directions_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"directions must have shape \(16, .*got"):
        with_hvp(labelled_by(MODEL, X), MODEL, jnp.ones(shape))


def test_one_point_alone_is_refused_by_hvp():
    with pytest.raises(ValueError, match=r"inputs must have shape \(n_samples, n\)"):
        hvp(MODEL, X[0], jnp.eye(3))
