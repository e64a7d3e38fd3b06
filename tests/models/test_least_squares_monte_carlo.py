"""Paths against their laws and orders, points against the net property, labels against the closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import DTYPES, assert_unbiased, random_basket
from scipy.stats import norm

from sobolev_utils.models.least_squares_monte_carlo import LeastSquaresMonteCarlo
from sobolev_utils.models.payoffs import call, digital, smooth_call, smooth_digital
from sobolev_utils.models.points import POINTS, normal_points
from sobolev_utils.models.sde import euler_maruyama, exact_bachelier

MU, SIGMA, S0 = 0.8, 0.3, 1.2
TIMES = np.array([0.0, 0.1, 0.7, 1.0, 2.0])
KEY = jax.random.key(0)
each_kind_of_points = pytest.mark.parametrize("points", POINTS)


def increments_of(times, n_paths, seed=0):
    return np.random.default_rng(seed).normal(size=(len(times) - 1, n_paths)) * np.sqrt(np.diff(times))[:, None]


def compiled_points(key, n, dimension, points="sobol"):
    return np.asarray(jax.jit(normal_points, static_argnums=(1, 2, 3))(key, n, dimension, points))


def compiled_samples(model, n):
    return map(np.asarray, jax.jit(model.sample, static_argnums=1)(KEY, n))


def uniform(z):
    """The uniform points behind normal ones."""
    return norm.cdf(z)


class TestEulerMaruyama:
    def test_without_noise_it_is_eulers_method(self):
        path = euler_maruyama(lambda s, t: -t * s, lambda s, t: 0.0, [S0, 2.0], TIMES, np.ones((4, 2)))
        factors = np.cumprod(1 - TIMES[:-1] * np.diff(TIMES))  # the drift is taken at the left end
        np.testing.assert_allclose(path[1:], np.outer(factors, [S0, 2.0]), rtol=1e-14)
        np.testing.assert_array_equal(path[0], [S0, 2.0])

    def test_with_a_constant_diffusion_alone_it_is_exact(self):
        dw = increments_of(TIMES, 5)
        path = euler_maruyama(lambda s, t: jnp.zeros_like(s), lambda s, t: SIGMA, S0, TIMES, dw)
        np.testing.assert_allclose(path[1:], S0 + SIGMA * np.cumsum(dw, axis=0), rtol=1e-13)

    # Kloeden & Platen 1992: strong order 1/2, but 1 where the diffusion does not depend on the state
    @pytest.mark.parametrize(
        "noise, mu, sigma, order", [("multiplicative", 0.1, 0.8, 0.5), ("additive", 0.8, 0.3, 1.0)]
    )
    def test_it_converges_strongly_at_the_expected_order(self, noise, mu, sigma, order):
        n_steps, n_paths = 4096, 500
        dw = increments_of(np.linspace(0, 1, n_steps + 1), n_paths)
        if noise == "multiplicative":
            exact = S0 * np.exp(mu - sigma**2 / 2 + sigma * dw.sum(axis=0))
        else:
            exact = np.exp(mu) * S0 + sigma * np.exp(mu * (1 - (np.arange(n_steps) + 0.5) / n_steps)) @ dw
        counts, errors = np.array([8, 32, 128]), []
        for count in counts:
            coarse = dw.reshape(count, -1, n_paths).sum(axis=1)
            path = euler_maruyama(
                lambda s, t: mu * s,
                lambda s, t: sigma * s if noise == "multiplicative" else sigma,
                S0,
                np.linspace(0, 1, count + 1),
                coarse,
            )
            errors.append(np.sqrt(np.mean((np.asarray(path)[-1] - exact) ** 2)))
        slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
        assert abs(slope - order) < 0.12


class TestExactBachelier:
    @pytest.mark.parametrize("mu", [MU, -1.5, 0.0])
    def test_mean_and_variance_are_the_exact_ones(self, mu):
        # the path is affine in the increments: S_k = e^{mu t} s0 + sum_j c_j dW_j, of variance sum_j c_j^2 dt_j
        def path(dw):
            return exact_bachelier(mu, SIGMA, S0, TIMES, dw[:, None])[:, 0]

        dw = jnp.zeros(4)
        variance = np.asarray(jax.jit(jax.jacobian(path))(dw)) ** 2 @ np.diff(TIMES)
        exact = SIGMA**2 * (TIMES if mu == 0 else np.expm1(2 * mu * TIMES) / (2 * mu))
        np.testing.assert_allclose(path(dw), S0 * np.exp(mu * TIMES), rtol=1e-14)
        np.testing.assert_allclose(variance, exact, rtol=1e-13)

    def test_sampled_mean_and_variance_agree_with_the_exact_ones(self):
        s = np.asarray(exact_bachelier(MU, SIGMA, S0, TIMES, increments_of(TIMES, 20_000)))
        mean = S0 * np.exp(MU * TIMES[1:])
        assert_unbiased(s[1:].T, mean)
        assert_unbiased((s[1:].T - mean) ** 2, SIGMA**2 * np.expm1(2 * MU * TIMES[1:]) / (2 * MU))

    def test_it_tends_to_brownian_motion_as_the_drift_vanishes(self):
        dw = increments_of(TIMES, 5)
        brownian = S0 + SIGMA * np.cumsum(dw, axis=0)
        np.testing.assert_allclose(exact_bachelier(0.0, SIGMA, S0, TIMES, dw)[1:], brownian, rtol=1e-13)
        for mu in (1e-4, -1e-8, 1e-300):
            path = exact_bachelier(mu, SIGMA, S0, TIMES, dw)
            np.testing.assert_allclose(path[1:], brownian, rtol=0, atol=10 * abs(mu) + 1e-14)

    def test_a_negative_volatility_is_refused(self):
        with pytest.raises(ValueError, match=r"volatility must not be negative, got -0\.2"):
            exact_bachelier(MU, -0.2, S0, TIMES, increments_of(TIMES, 3))

    def test_euler_has_the_same_law_in_the_limit_of_small_steps(self):
        times = np.linspace(0, 1, 401)
        dw = increments_of(times, 4000)
        euler = np.asarray(euler_maruyama(lambda s, t: MU * s, lambda s, t: SIGMA, S0, times, dw))[-1]
        exact = np.asarray(exact_bachelier(MU, SIGMA, S0, times, dw))[-1]
        np.testing.assert_allclose([euler.mean(), euler.std()], [exact.mean(), exact.std()], rtol=2e-3)
        assert 1 - np.corrcoef(euler, exact)[0, 1] < 1e-7


@pytest.mark.parametrize("method", ["euler", "exact"])
class TestPaths:
    @staticmethod
    def paths(method, s0, times, dw):
        if method == "exact":
            return exact_bachelier(MU, SIGMA, s0, times, dw)
        return euler_maruyama(lambda s, t: MU * s, lambda s, t: SIGMA, s0, times, dw)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_they_have_the_shape_and_dtype_of_the_increments(self, method, dtype):
        path = self.paths(method, S0, TIMES, jnp.asarray(increments_of(TIMES, 3), dtype))
        assert (path.shape, path.dtype) == ((5, 3), dtype)
        np.testing.assert_array_equal(path[0], np.full(3, S0, dtype))

    @pytest.mark.parametrize(
        "times", [[0, 1, 0.5], [0, 0.5, 0.5], [-0.5, 0, 1], [0, np.nan, 1], [0, 1, np.inf], [[0, 1, 2]], 1.0, []]
    )
    def test_times_that_make_no_sense_are_refused(self, method, times):
        with pytest.raises(ValueError, match="times must increase from 0 or later"):
            self.paths(method, S0, times, np.zeros((2, 3)))

    def test_times_that_do_not_match_the_increments_are_refused(self, method):
        with pytest.raises(ValueError, match=r"5 times need 4 increments, got shape \(5, 3\)"):
            self.paths(method, S0, TIMES, np.zeros((5, 3)))


class TestNormalPoints:
    @each_kind_of_points
    def test_each_point_is_standard_normal_over_the_keys(self, points):
        keys = jax.random.split(KEY, 3000)
        z = np.asarray(jax.jit(jax.vmap(lambda key: normal_points(key, 3, 2, points)))(keys))
        assert z.shape == (3000, 3, 2)
        assert_unbiased(z)
        assert_unbiased(z**2, 1)
        assert_unbiased(np.prod(z, axis=2))  # the two coordinates of a point are independent

    @each_kind_of_points
    def test_a_key_gives_one_set_and_another_key_another(self, points):
        one, same, other = (compiled_points(key, 64, 14, points) for key in (KEY, KEY, jax.random.key(1)))
        np.testing.assert_array_equal(one, same)
        assert (one != other).all()

    @pytest.mark.parametrize("m", [0, 6])
    def test_sobol_puts_one_point_in_each_dyadic_interval_of_each_dimension(self, m):
        cells = np.floor(uniform(compiled_points(KEY, 2**m, 14)) * 2**m)
        np.testing.assert_array_equal(np.sort(cells, axis=0), np.tile(np.arange(2**m)[:, None], 14))

    def test_the_first_two_sobol_dimensions_are_a_net(self):
        m = 6
        u = uniform(compiled_points(KEY, 2**m, 14))[:, :2]
        for a in range(m + 1):  # every elementary interval of 2^-a x 2^-(m - a) holds one point
            cells = np.floor(u * [2**a, 2 ** (m - a)])
            assert len(np.unique(cells, axis=0)) == 2**m

    def test_fewer_sobol_points_are_the_first_of_more(self):
        np.testing.assert_array_equal(compiled_points(KEY, 48, 14), compiled_points(KEY, 64, 14)[:48])

    @pytest.mark.parametrize("x64", [True, False])
    @pytest.mark.parametrize("bits", [0, 2**32 - 1])
    def test_the_extreme_points_are_finite(self, bits, x64, monkeypatch):
        monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype: jnp.full(shape, bits, dtype))
        with jax.enable_x64(x64):
            z = normal_points(KEY, 1, 1)
            assert z.dtype == (np.float64 if x64 else np.float32)
            np.testing.assert_allclose(z, np.sign(bits - 1) * -norm.ppf(2.0**-24), rtol=1e-3)

    def test_sobol_integrates_better_than_pseudo_random_points(self):
        keys = jax.random.split(KEY, 50)

        def mean_call(key, points):
            return call(normal_points(key, 256, 5, points).sum(axis=1) / 5**0.5, 0.5).mean()

        sobol, pseudo_random = (jax.jit(jax.vmap(partial(mean_call, points=kind)))(keys) for kind in POINTS)
        exact = norm.pdf(0.5) - 0.5 * norm.sf(0.5)
        assert_unbiased(sobol, exact)
        assert_unbiased(pseudo_random, exact)
        assert sobol.std() < pseudo_random.std() / 3

    def test_an_unknown_kind_is_refused(self):
        with pytest.raises(ValueError, match=r"unknown kind of points 'halton', expected one of \('sobol'"):
            normal_points(KEY, 8, 2, "halton")

    @pytest.mark.parametrize("n, dimension", [(0, 2), (-1, 2), (8, 0)])
    def test_counts_below_one_are_refused(self, n, dimension):
        with pytest.raises(ValueError, match=f"must be at least 1, got {min(n, dimension)}"):
            normal_points(KEY, n, dimension)


class TestLeastSquaresMonteCarlo:
    basket = random_basket(3)

    @each_kind_of_points
    @pytest.mark.parametrize("antithetic", [True, False])
    def test_labels_and_pathwise_deltas_are_unbiased(self, points, antithetic):
        model = LeastSquaresMonteCarlo(self.basket, call, points, antithetic)
        x, y, dydx = compiled_samples(model, 2**14)
        value, delta = map(np.asarray, (self.basket.value(x), self.basket.delta(x)))
        assert (x.shape, y.shape, dydx.shape) == ((2**14, 3), (2**14,), (2**14, 3))
        # with every weight of the spots, which is what makes the regression right, and not only on average
        for weight in (np.ones(2**14), x[:, 0], x @ self.basket.weights > self.basket.strike):
            assert_unbiased((y - value) * weight)
            assert_unbiased((dydx - delta) * weight[:, None])

    def test_spots_have_the_spread_covariance(self):
        basket = random_basket(3, exposure=0.5)
        x, _, _ = compiled_samples(LeastSquaresMonteCarlo(basket, call, "pseudo_random", spread=2.0), 2**14)
        assert_unbiased(x, 1)
        products = (x - 1)[:, :, None] * (x - 1)[:, None, :]
        assert_unbiased(products, 2.0**2 * 0.5 * basket.factor @ basket.factor.T)

    def test_the_first_two_coordinates_drive_the_basket(self):
        x, y, _ = compiled_samples(LeastSquaresMonteCarlo(self.basket, call, antithetic=False), 256)
        z = compiled_points(KEY, 256, 6)
        spot = 1 + 1.5 * self.basket.volatility * z[:, 0]
        np.testing.assert_allclose(x @ self.basket.weights, spot, rtol=1e-13)
        payoff = np.maximum(spot + self.basket.deviation * z[:, 1] - self.basket.strike, 0)
        np.testing.assert_allclose(y, payoff, atol=1e-14)

    @pytest.mark.parametrize("antithetic, shares", [(True, [0, 0.5, 1]), (False, [0, 1])])
    def test_a_pathwise_delta_of_a_call_is_the_share_of_paths_in_the_money(self, antithetic, shares):
        _, _, dydx = compiled_samples(LeastSquaresMonteCarlo(self.basket, call, antithetic=antithetic), 256)
        np.testing.assert_allclose(dydx / self.basket.weights, np.tile(dydx[:, :1] / self.basket.weights[0], 3))
        assert list(np.unique(np.round(dydx / self.basket.weights, 12))) == shares

    def test_an_antithetic_pair_varies_less_than_two_paths(self):
        def variances(antithetic):
            # at spread 0 every sample starts at the same spots
            model = LeastSquaresMonteCarlo(self.basket, call, "pseudo_random", antithetic, 0.0)
            x, y, dydx = compiled_samples(model, 4096)
            assert (x == 1).all()
            return np.append(dydx.var(axis=0), y.var())

        assert (variances(True) < 0.5 * variances(False)).all()

    def test_the_digital_has_no_pathwise_delta_and_smoothing_gives_it_one_of_shrinking_bias(self):
        d = (1 - self.basket.strike) / self.basket.deviation
        delta = norm.pdf(d) / self.basket.deviation  # of the digital at the initial spots, along the basket
        assert delta > 1

        def pathwise(payoff):
            _, _, dydx = compiled_samples(LeastSquaresMonteCarlo(self.basket, payoff, spread=0.0), 2**14)
            return dydx.sum(axis=1)

        assert (pathwise(digital) == 0).all()
        widths = (0.08, 0.04, 0.02)
        smoothed = [pathwise(lambda s, strike, w=w: smooth_digital(s, strike, w)) for w in widths]
        bias = np.array([abs(slope.mean() - delta) for slope in smoothed])
        assert (bias[1:] < bias[:-1] / 2.5).all()  # of second order in the width
        assert_unbiased(pathwise(lambda s, strike: smooth_digital(s, strike, 0.01)), delta)

    def test_compiled_or_not_it_samples_the_same(self):
        model = LeastSquaresMonteCarlo(self.basket, call)
        for compiled, eager in zip(compiled_samples(model, 256), model.sample(KEY, 256), strict=True):
            np.testing.assert_allclose(compiled, eager, rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize("spread", [-1, np.nan, np.inf])
    def test_a_spread_that_makes_no_sense_is_refused(self, spread):
        with pytest.raises(ValueError, match=f"finite and not negative, got {spread}"):
            LeastSquaresMonteCarlo(self.basket, call, spread=spread)

    def test_bad_points_are_refused(self):
        with pytest.raises(ValueError, match="unknown kind of points 'grid'"):
            LeastSquaresMonteCarlo(self.basket, call, "grid")
        with pytest.raises(ValueError, match="the number of points must be at least 1, got 0"):
            LeastSquaresMonteCarlo(self.basket, call).sample(KEY, 0)


class TestControlVariates:
    """A control changes no mean, and the variance the more the closer it is to the price."""

    BASKET = random_basket(3)
    N = 2**14

    def labels(self, antithetic, control):
        reference = LeastSquaresMonteCarlo(
            self.BASKET, partial(smooth_call, width=0.005), "pseudo_random", antithetic, control=control
        )
        return reference.sample(jax.random.key(5), self.N)

    @pytest.mark.parametrize("antithetic", [False, True])
    def test_labels_and_deltas_keep_their_means_and_vary_less(self, antithetic):
        plain, controlled = (self.labels(antithetic, control) for control in (None, self.BASKET.value))
        np.testing.assert_array_equal(plain.x, controlled.x)
        for name in ("y", "dydx"):
            truth = self.BASKET.value(plain.x) if name == "y" else self.BASKET.delta(plain.x)
            taken = np.asarray(getattr(plain, name) - getattr(controlled, name))
            assert (abs(taken.mean(axis=0)) < 5 * taken.std(axis=0) / np.sqrt(self.N)).all()
            noise = [np.std(getattr(samples, name) - truth) for samples in (controlled, plain)]
            assert noise[0] < (0.35 if name == "y" else 0.9) * noise[1]

    def test_the_control_variate_is_its_formula(self):
        def cubic(x):
            return jnp.sum(x**3, axis=-1) / 6

        plain, controlled = (self.labels(False, control) for control in (None, cubic))
        reference = LeastSquaresMonteCarlo(self.BASKET, call, "pseudo_random", False)
        x, p = reference.paths(jax.random.key(5), self.N)
        tau = self.BASKET.maturity - self.BASKET.exposure
        variances = tau * np.diag(self.BASKET.factor @ self.BASKET.factor.T)
        expected = np.sum(x**2 / 2 * p + x * (p**2 - variances) / 2, axis=1)
        np.testing.assert_allclose(plain.y - controlled.y, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize(
    "name, bad",
    [
        *(
            ("payoff", bad)
            for bad in (lambda s, k: jnp.float64(1), lambda s, k: s[:, None], lambda s, k: jnp.mean(s))
        ),
        *(("control", bad) for bad in (lambda x: x, lambda x: x.sum(), lambda x: x.sum(-1, keepdims=True))),
    ],
)
def test_a_payoff_or_control_is_a_number_for_each_row_and_is_not_broadcast(name, bad, antithetic):
    reference = LeastSquaresMonteCarlo(random_basket(3), **({"payoff": call} | {name: bad}), antithetic=antithetic)
    x = np.ones((5, 3))
    with pytest.raises(ValueError, match=rf"the {name} must give one number for each row of x, \(5,\), got "):
        reference.label(x, x)
