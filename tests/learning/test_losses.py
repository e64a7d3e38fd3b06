"""Losses against their formulas, and what should leave them unchanged."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import labelled_by, random_surrogate, uniform_points

from sobolev_utils.learning.hessian_products import all_directions, random_directions, with_hvp
from sobolev_utils.learning.losses import plain, sampled_sobolev, second_order, sobolev
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.models.samples import Samples, StripSamples

MODEL = random_surrogate()
X = jnp.asarray(uniform_points(16, 3))
SAMPLES = labelled_by(random_surrogate(seed=1), X)
LOSSES = {"plain": nnx.jit(plain), "sobolev": nnx.jit(sobolev()), "sobolev(0.1)": nnx.jit(sobolev(0.1))}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def test_the_plain_loss_is_the_mean_square_in_units_of_the_labels():
    error = (SAMPLES.y - MODEL(X)) / 0.3
    np.testing.assert_allclose(plain(MODEL, SAMPLES), (error**2).mean(), rtol=1e-12)


@pytest.mark.parametrize("weight", [0.1, 1.0, 7.0])
def test_the_sobolev_loss_is_its_formula(weight):
    y, dydx = MODEL.value_and_delta(X)
    values = (SAMPLES.y - y) ** 2 / 0.3**2
    derivatives = (SAMPLES.dydx - dydx) ** 2 * 0.4**2 / 0.3**2
    expected = np.mean(values) + weight * 3 * np.mean(derivatives)
    np.testing.assert_allclose(sobolev(weight)(MODEL, SAMPLES), expected / (1 + 3 * weight), rtol=1e-12)


def test_without_weight_it_is_the_plain_loss_and_with_much_the_derivatives_alone():
    np.testing.assert_allclose(sobolev(0)(MODEL, SAMPLES), plain(MODEL, SAMPLES), rtol=1e-15)
    shifted = SAMPLES._replace(y=SAMPLES.y + 10.0)
    np.testing.assert_allclose(sobolev(1e12)(MODEL, shifted), sobolev(1e12)(MODEL, SAMPLES), rtol=1e-6)


@each_loss
def test_a_loss_is_a_scalar_that_vanishes_on_the_models_own_labels(loss):
    own = labelled_by(MODEL, X)
    assert loss(MODEL, own).shape == ()
    assert loss(MODEL, own) < 1e-28 < 1e-2 < loss(MODEL, SAMPLES)
    gradient = nnx.jit(nnx.grad(loss))(MODEL, own)
    assert max(abs(leaf).max() for leaf in jax.tree.leaves(gradient)) < 1e-14


@pytest.mark.parametrize("loss, sees", [(plain, False), (sobolev(0), False), (sobolev(1), True)])
def test_only_the_sobolev_loss_looks_at_the_derivatives(loss, sees):
    changed = SAMPLES._replace(dydx=SAMPLES.dydx + 1)
    assert (loss(MODEL, changed) != loss(MODEL, SAMPLES)) == sees


@each_loss
def test_a_loss_does_not_depend_on_the_units_of_inputs_and_labels(loss):
    spot, money = 100.0, 7.0
    arrays = MODEL.arrays()
    for name, unit in [("x_mean", spot), ("x_std", spot), ("y_mean", money), ("y_std", money)]:
        arrays[name] = arrays[name] * unit
    samples = Samples(SAMPLES.x * spot, SAMPLES.y * money, SAMPLES.dydx * money / spot)
    np.testing.assert_allclose(loss(Surrogate.from_arrays(arrays), samples), loss(MODEL, SAMPLES), rtol=1e-11)


@each_loss
def test_the_loss_of_a_batch_is_the_mean_over_its_parts(loss):
    parts = [jax.tree.map(lambda a, rows=rows: a[rows], SAMPLES) for rows in (slice(0, 8), slice(8, 16))]
    np.testing.assert_allclose(loss(MODEL, SAMPLES), np.mean([loss(MODEL, part) for part in parts]), rtol=1e-12)


@pytest.mark.parametrize("weight", [-1.0, -1e-9, np.inf, np.nan])
def test_a_weight_that_makes_no_sense_is_refused(weight):
    for loss in (sobolev, sampled_sobolev, second_order, lambda weight: second_order(1.0, weight)):
        with pytest.raises(ValueError, match=f"finite and not negative, got {weight}"):
            loss(weight)


SECOND = with_hvp(SAMPLES, random_surrogate(seed=1), random_directions(jax.random.key(0), 16, 2, 3))


def test_the_second_order_loss_is_its_formula():
    hvp = jnp.einsum("sij,skj->ski", MODEL.hessian(X), SECOND.directions)
    products = jnp.mean(jnp.sum((SECOND.hvp - hvp) ** 2, axis=-1)) * 0.4**4 / 0.3**2
    first = sobolev(2.0)(MODEL, SECOND) * (1 + 2 * 3)
    expected = (first + 0.5 * products) / (1 + 2 * 3 + 0.5 * 9)
    np.testing.assert_allclose(second_order(2.0, 0.5)(MODEL, SECOND), expected, rtol=1e-10)
    np.testing.assert_allclose(second_order(2.0, 0)(MODEL, SECOND), sobolev(2.0)(MODEL, SECOND), rtol=1e-12)


def test_the_second_order_loss_along_all_directions_sees_the_whole_hessian():
    truth = random_surrogate(seed=1)
    samples = with_hvp(SAMPLES, truth, all_directions(3))
    squares = jnp.mean(jnp.sum((truth.hessian(X) - MODEL.hessian(X)) ** 2, axis=(1, 2))) * 0.4**4 / 0.3**2
    expected = (sobolev()(MODEL, SAMPLES) * 4 + squares) / (1 + 3 + 9)
    np.testing.assert_allclose(second_order()(MODEL, samples), expected, rtol=1e-10)


def strip(seed):
    model = Surrogate(3, [5], n_outputs=4, rngs=nnx.Rngs(seed, params=seed))
    return Surrogate.from_arrays({name: a if a.dtype.kind == "U" else a * 1.0 for name, a in model.arrays().items()})


def test_the_sampled_loss_is_unbiased_exactly():
    """Over all signs of the cotangents its mean is the loss of the whole Jacobian."""
    model, truth = strip(0), strip(1)
    signs = jnp.asarray(list(itertools.product([-1.0, 1.0], repeat=4)))

    def loss(u):
        y, vjp = truth.value_and_vjp(X, jnp.broadcast_to(u, (16, *u.shape)))
        samples = StripSamples(X, y, jnp.broadcast_to(u, (16, *u.shape)), vjp)
        return sampled_sobolev(0.7)(model, samples)

    difference = jax.vmap(jax.jacrev(truth))(X) - jax.vmap(jax.jacrev(model))(X)
    values = jnp.mean(jnp.sum((truth(X) - model(X)) ** 2, axis=-1))
    expected = (values + 0.7 * jnp.mean(jnp.sum(difference**2, axis=(1, 2)))) / (4 + 0.7 * 12)
    each = jnp.stack([loss(u[None]) for u in signs])
    np.testing.assert_allclose(each.mean(), expected, rtol=1e-6)
    np.testing.assert_allclose(loss(signs), expected, rtol=1e-6)
    np.testing.assert_allclose(loss(all_directions(4)), expected, rtol=1e-6)
    assert each.std() > 1e-3 * expected


@pytest.mark.parametrize(
    "loss", [plain, sobolev(0.3), second_order(0.3, 2.0)], ids=["plain", "sobolev", "second_order"]
)
def test_the_loss_is_the_mean_of_the_squares_of_its_residuals(loss):
    residuals = loss.residuals(MODEL, SECOND)
    assert residuals.shape[0] == 16
    np.testing.assert_allclose(jnp.mean(jnp.sum(residuals**2, axis=1)), loss(MODEL, SECOND), rtol=1e-12)


@pytest.mark.parametrize(
    "loss, samples, missing",
    [
        (sobolev(), SAMPLES._replace(dydx=None), "dydx"),
        (second_order(), SAMPLES, "directions, hvp"),
        (sampled_sobolev(), SAMPLES, "cotangents, vjp"),
    ],
)
def test_a_loss_says_what_its_samples_lack(loss, samples, missing):
    with pytest.raises(ValueError, match=f"this loss needs samples with {missing}, got samples with x, y"):
        loss(MODEL, samples)


def test_second_order_refuses_a_normalisation_by_input():
    model = random_surrogate().normalise(X, SAMPLES.y, by_input=True)
    assert np.isfinite(sobolev()(model, SECOND))
    with pytest.raises(ValueError, match="needs one deviation of all inputs"):
        second_order()(model, SECOND)
