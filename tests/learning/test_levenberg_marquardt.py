"""Levenberg-Marquardt against SciPy's, least squares in closed form, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import labelled_by, random_basket, random_surrogate, uniform_points
from scipy import optimize

from sobolev_utils.learning.levenberg_marquardt import levenberg_marquardt, residual_function
from sobolev_utils.learning.losses import SumOfSquares, plain, sobolev
from sobolev_utils.learning.metrics import r2
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.learning.training import Diverged, fit
from sobolev_utils.models.samples import Samples

KEY = jax.random.key(0)
X = jnp.asarray(uniform_points(40, 2))
BASKET = random_basket(2)
SAMPLES = Samples(X, BASKET.value(X), BASKET.delta(X))
MODEL = Surrogate(2, [3], rngs=nnx.Rngs(0)).normalise(X, SAMPLES.y)


def test_residuals_and_their_jacobian_are_those_of_the_loss():
    residuals, start, model_of = residual_function(MODEL, SAMPLES, sobolev())
    np.testing.assert_allclose(jnp.sum(residuals(start) ** 2), sobolev()(MODEL, SAMPLES), rtol=1e-12)
    np.testing.assert_allclose(model_of(start)(X), MODEL(X), rtol=1e-12)
    jacobian = jax.jacfwd(residuals)(start)
    for i, step in enumerate(1e-6 * np.eye(start.size)):
        central = (residuals(start + step) - residuals(start - step)) / 2e-6
        np.testing.assert_allclose(jacobian[:, i], central, atol=1e-8)


def test_it_finds_what_scipy_finds():
    """From a start near the minimum both end there."""
    near, _ = levenberg_marquardt(MODEL, SAMPLES, sobolev(), iterations=400)
    residuals, start, _ = residual_function(near, SAMPLES, sobolev())
    ours, history = levenberg_marquardt(near, SAMPLES, sobolev(), iterations=2000)
    scipys = optimize.least_squares(
        jax.jit(residuals), start, jax.jit(jax.jacfwd(residuals)), method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15
    )
    assert sobolev()(ours, SAMPLES) <= 1.02 * 2 * scipys.cost
    assert history[-1] < history[0]


def test_through_the_front_door_it_beats_what_first_order_reaches():
    draw = lambda key: SAMPLES  # noqa: E731
    adam, _ = fit(MODEL, draw, sobolev(), key=KEY, epochs=300, batch=40, learning_rate=1e-2)
    newton, history = fit(MODEL, draw, sobolev(), key=KEY, epochs=300, optimiser="levenberg_marquardt")
    assert sobolev()(newton, SAMPLES) < 1e-6 * sobolev()(adam, SAMPLES)
    assert 1 <= history.size <= 300 and (np.diff(history) <= 0).all()
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(newton, nnx.Param))} == {np.dtype(np.float64)}
    x = jnp.asarray(uniform_points(50, 2, seed=1))
    assert 1 - r2(BASKET.value(x), newton(x)) < 1e-7


def test_a_perfect_model_is_left_where_it_is():
    samples = labelled_by(MODEL, X)
    same, history = levenberg_marquardt(MODEL, samples, sobolev(), iterations=40)
    np.testing.assert_allclose(same(X), MODEL(X), rtol=1e-6)
    assert history.size < 40 and history[-1] < 1e-20


@jax.custom_jvp
def without_derivative_below(errors, floor):
    return errors


@without_derivative_below.defjvp
def _(primals, tangents):
    errors, floor = primals
    return errors, tangents[0] * jnp.where(abs(errors) < floor, jnp.nan, 1)


@pytest.mark.parametrize("floor", [1e-3, 10.0])
def test_a_jacobian_that_is_not_finite_ends_it_with_the_last_finite_state(floor):
    def terms(model, samples):
        return [(1.0, 1, without_derivative_below(samples.y - model(samples.x), floor))]

    loss = SumOfSquares(terms)
    with pytest.raises(Diverged, match=r"^small diverged at step \d+ of 100: the Jacobian is not finite$") as info:
        levenberg_marquardt(MODEL, SAMPLES, loss, iterations=100, name="small")
    ended = info.value
    assert ended.history.size == ended.step - 1 and np.isfinite(ended.history).all()
    assert (ended.step == 1) == (floor == 10) and loss(ended.model, SAMPLES) <= loss(MODEL, SAMPLES)
    assert jnp.isfinite(ended.model(X)).all()


def test_bad_problems_are_refused(monkeypatch):
    few = jax.tree.map(lambda a: a[:12], SAMPLES)
    with pytest.raises(ValueError, match="13 parameters need as many residuals or more, got 12"):
        levenberg_marquardt(MODEL, few, plain, iterations=5)
    broken = SAMPLES._replace(y=SAMPLES.y.at[3].set(jnp.nan))
    with pytest.raises(
        FloatingPointError, match=r"small: 1 of 120 residuals are not finite: samples\.y holds 1 entries"
    ):
        levenberg_marquardt(MODEL, broken, sobolev(), iterations=5, name="small")
    with pytest.raises(ValueError, match="needs a loss with residuals, a SumOfSquares"):
        levenberg_marquardt(MODEL, SAMPLES, lambda model, samples: 0.0, iterations=5)
    with pytest.raises(ValueError, match="this loss needs samples with dydx, got samples with x, y"):
        levenberg_marquardt(MODEL, SAMPLES._replace(dydx=None), sobolev(), iterations=5)
    for setting in ({"batch": 8}, {"weight_decay": 0.1}):
        with pytest.raises(ValueError, match="takes all samples at once and no decay"):
            fit(MODEL, lambda key: SAMPLES, plain, key=KEY, epochs=5, optimiser="levenberg_marquardt", **setting)
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        levenberg_marquardt(MODEL, SAMPLES, plain, iterations=0)
    with jax.enable_x64(False), pytest.raises(ValueError, match="needs double precision"):
        levenberg_marquardt(random_surrogate(), SAMPLES, plain, iterations=5)
