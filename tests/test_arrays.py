"""Every public function of models and learning takes what NumPy takes, and tells variation from rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import nnx
from oracles import labelled_by, random_basket, random_surrogate

from sobolev_utils.arrays import as_count, as_floats, varies
from sobolev_utils.learning import hessian_products, levenberg_marquardt, losses, metrics, training
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.models import least_squares_monte_carlo, payoffs, points, scaling, sde
from sobolev_utils.models.basket import GaussianBasket
from sobolev_utils.models.least_squares_monte_carlo import LeastSquaresMonteCarlo
from sobolev_utils.models.samples import CurvedSamples, Samples, StripSamples, as_samples
from sobolev_utils.pruning import baselines, nodes

KEY, MODEL, BASKET = jax.random.key(0), random_surrogate(widths=(2, 2)), random_basket(3)
STRIP = Surrogate(3, [2], n_outputs=2, rngs=nnx.Rngs(0))
LSMC = LeastSquaresMonteCarlo(BASKET, payoffs.call)
# whole numbers, so that they can come as integers
X = [[1, 0, 2], [2, 1, 1], [0, 3, 1], [1, 1, 4]]
Y, DYDX, YS = [1, 2, 0, 3], [[1, 0, 1], [0, 2, 1], [1, 1, 1], [3, 0, 0]], [[1, 2], [0, 1], [2, 2], [3, 1]]
V, U = [[[1, -1, 2]], [[1, 1, 1]], [[0, 1, 0]], [[2, 1, 0]]], [[[1, -1]], [[1, 1]], [[0, 1]], [[2, 1]]]
S, TIMES, DW = [1, 0, 2], [0, 1, 2], [[1, 0], [-1, 2]]
EYE = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]

KINDS = {
    "NumPy integers": np.asarray,
    "NumPy": lambda a: np.asarray(a, float),
    "NumPy, of the other byte order": lambda a: np.asarray(a, ">f8"),
    "JAX integers": jnp.asarray,
    "JAX": lambda a: jnp.asarray(a, float),
    "data frames": lambda a: pd.DataFrame(a) if np.ndim(a) == 2 else np.asarray(a),
}


def test_large_integers_do_not_wrap_around():
    with jax.enable_x64(False):
        np.testing.assert_allclose(as_floats(np.array([3_000_000_000, 2**40])), [3e9, 2.0**40], rtol=1e-6)
        np.testing.assert_allclose(as_floats([2**31, -(2**35)]), [2.0**31, -(2.0**35)], rtol=1e-6)


def curved(n):
    return CurvedSamples(n(X), n(Y), n(DYDX), n(V), n(V))


def trained(draw, **settings):
    model, history = training.fit(MODEL, draw, losses.sobolev(), key=KEY, epochs=1, **settings)
    return model(jnp.ones(3)), history


def field(basket):
    return basket.value(jnp.asarray(X, float)), basket.strike


# By module and name, with `n` what makes an array of one of the KINDS of lists
CALLS = {
    "Surrogate": lambda n: Surrogate(n(3), [n(2), n(2)], n_outputs=n(1), rngs=nnx.Rngs(0))(n(X)),
    "Surrogate.__call__": lambda n: MODEL(n(X)),
    "Surrogate.nodes": lambda n: MODEL.nodes(n(X)),
    "Surrogate.value_and_delta": lambda n: MODEL.value_and_delta(n(X)),
    "Surrogate.delta": lambda n: MODEL.delta(n(X)),
    "Surrogate.gamma": lambda n: (MODEL.gamma(n(X)), MODEL.gamma(n(X), n(S))),
    "Surrogate.hessian": lambda n: MODEL.hessian(n(X)),
    "Surrogate.value_and_vjp": lambda n: STRIP.value_and_vjp(n(X), n(U)),
    "Surrogate.value_delta_and_hvp": lambda n: MODEL.value_delta_and_hvp(n(X), n(V)),
    "Surrogate.normalise": lambda n: nnx.clone(MODEL).normalise(n(X), n(Y), by_input=True)(n(X)),
    "Surrogate.from_arrays": lambda n: Surrogate.from_arrays(
        {name: a if name == "activation" else n(np.round(a).astype(int) + 1) for name, a in MODEL.arrays().items()}
    )(n(X)),
    "GaussianBasket": lambda n: field(GaussianBasket(n([2, -1, 0]), n(EYE), n(1), n(0), n(2))),
    "GaussianBasket.from_correlation": lambda n: field(
        GaussianBasket.from_correlation(n([1, 1, 2]), n(EYE), n([1, 2, 1]), strike=n(1))
    ),
    "GaussianBasket.random": lambda n: field(GaussianBasket.random(n(3), n(3), n(1), strike=n(1))),
    "GaussianBasket.underlying": lambda n: BASKET.underlying(n(X)),
    "GaussianBasket.value": lambda n: BASKET.value(n(X)),
    "GaussianBasket.delta": lambda n: BASKET.delta(n(X)),
    "GaussianBasket.gamma": lambda n: BASKET.gamma(n(X)),
    "call": lambda n: payoffs.call(n(S), n(1)),
    "digital": lambda n: payoffs.digital(n(S), n(1)),
    "smooth_call": lambda n: payoffs.smooth_call(n(S), n(1), n(2)),
    "smooth_digital": lambda n: payoffs.smooth_digital(n(S), n(1), n(2)),
    "smooth_transition": lambda n: payoffs.smooth_transition(jnp.sin, jnp.cos, n(1), n(2))(n(S)),
    "equivalent": lambda n: scaling.equivalent(BASKET, n(1), n(2), n(X)),
    "moved": lambda n: field(scaling.moved(BASKET, n(1), n(2))),
    "transported": lambda n: scaling.transported(BASKET.value, BASKET, n(1), n(2))(n(X)),
    "sensitivities": lambda n: scaling.sensitivities(BASKET.value, n(X)),
    "euler_maruyama": lambda n: sde.euler_maruyama(lambda s, t: s, lambda s, t: 1, n(S[:2]), n(TIMES), n(DW)),
    "exact_bachelier": lambda n: sde.exact_bachelier(n(1), n(2), n(S[:2]), n(TIMES), n(DW)),
    "normal_points": lambda n: points.normal_points(KEY, n(4), n(2)),
    "LeastSquaresMonteCarlo": lambda n: LeastSquaresMonteCarlo(BASKET, payoffs.call, spread=n(1)).sample(KEY, n(4)),
    "LeastSquaresMonteCarlo.label": lambda n: LSMC.label(n(X), n(DYDX)),
    "LeastSquaresMonteCarlo.labelled": lambda n: LSMC.labelled(n(X), n(DYDX)),
    "LeastSquaresMonteCarlo.paths": lambda n: LSMC.paths(KEY, n(4)),
    "LeastSquaresMonteCarlo.sample": lambda n: LSMC.sample(KEY, n(4)),
    "as_samples": lambda n: as_samples(curved(n)),
    "SumOfSquares.residuals": lambda n: losses.sobolev().residuals(MODEL, curved(n)),
    "plain": lambda n: losses.plain(MODEL, Samples(n(X), n(Y))),
    "sobolev": lambda n: losses.sobolev(n(2))(MODEL, curved(n)),
    "second_order": lambda n: losses.second_order(n(1), n(2))(MODEL, curved(n)),
    "sampled_sobolev": lambda n: losses.sampled_sobolev(n(2))(STRIP, StripSamples(n(X), n(YS), n(U), n(V))),
    "shuffled": lambda n: training.shuffled(curved(n))(KEY),
    "fit": lambda n: trained(lambda key: curved(n), batch=n(4), learning_rate=n(1)),
    "levenberg_marquardt": lambda n: levenberg_marquardt.levenberg_marquardt(
        MODEL, curved(n), losses.second_order(), iterations=n(1)
    )[1],
    "all_directions": lambda n: hessian_products.all_directions(n(3)),
    "hvp": lambda n: hessian_products.hvp(BASKET.value, n(X), n(V)),
    "principal_directions": lambda n: hessian_products.principal_directions(n(DYDX), n(2)),
    "random_directions": lambda n: hessian_products.random_directions(KEY, n(4), n(1), n(3)),
    "with_hvp": lambda n: hessian_products.with_hvp(Samples(n(X), n(Y), n(DYDX)), BASKET.value, n(V)),
    "r2": lambda n: metrics.r2(n(X), n(DYDX)),
    "rmse": lambda n: metrics.rmse(n(X), n(DYDX)),
    "magnitude": lambda n: baselines.magnitude(MODEL),
    "mean_nodes": lambda n: nodes.mean_nodes(MODEL, n(X)),
    "most_significant": lambda n: nodes.most_significant([n([1, 2]), n([2, 1])], n(1)),
    "prune": lambda n: nodes.prune(MODEL, [[0], np.array([1])], [n([1, 2]), n([2, 1])])(n(X)),
    "random_scores": lambda n: baselines.random_scores(MODEL, KEY),
}
NOT_CALLED = {"Diverged", "Draw", "Loss", "POINTS", "Samples", "CurvedSamples", "StripSamples"}
METHODS = (Surrogate, GaussianBasket, LeastSquaresMonteCarlo)


def test_no_public_function_is_left_out():
    modules = (hessian_products, levenberg_marquardt, losses, metrics, payoffs, nodes, points, scaling, sde, training)
    modules += (least_squares_monte_carlo,)
    names = {name for module in modules for name in module.__all__} - NOT_CALLED
    for kind in METHODS:
        public = [name for name, member in vars(kind).items() if callable(member) or isinstance(member, classmethod)]
        names |= {f"{kind.__name__}.{name}" for name in public if not name.startswith("_")}
    assert names - set(CALLS) == {"Surrogate.arrays", "SumOfSquares"}


@pytest.mark.parametrize("name", CALLS)
def test_lists_integers_and_arrays_of_any_kind_give_the_same(name):
    def found(of):
        def number(a):
            if np.ndim(a):
                return of(a)
            return np.int64(a) if of is not as_list else a  # a count stays whole, whatever arrays are

        leaves = jax.tree.leaves(CALLS[name](number))
        assert all(np.asarray(leaf).dtype.kind in "fiu" for leaf in leaves)
        return leaves

    def as_list(a):
        return np.asarray(a).tolist()

    if name in ("fit", "levenberg_marquardt"):  # which are compiled anew each time, so one kind will do
        assert all(np.isfinite(leaf).all() for leaf in found(np.asarray))
        return
    expected = found(as_list)
    for kind in KINDS.values():
        for one, other in zip(found(kind), expected, strict=True):
            assert np.asarray(one).dtype == np.asarray(other).dtype
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "bad, message",
    [
        ("abc", "spots must be real numbers, got an array of <U3"),
        (None, "spots must be real numbers, got an array of object"),
        ([1j], "spots must be real numbers, got an array of complex128"),
        ([[1], [1, 2]], "spots must be an array of real numbers, got list"),
        (KEY, "spots must be real numbers, got an array of key"),
        (np.ma.array([1.0, 2.0], mask=[False, True]), "spots .* got MaskedArray: some of its entries are masked"),
    ],
)
def test_what_is_not_numbers_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        as_floats(bad, name="spots")
    with pytest.raises(ValueError, match="must be"):
        BASKET.value(bad)


def test_a_masked_array_without_masked_entries_is_an_array():
    np.testing.assert_array_equal(as_floats(np.ma.array([1.0, 2.0])), [1, 2])


def test_the_type_of_floating_point_numbers_is_kept():
    for dtype in (np.float16, np.float32, np.float64, jnp.bfloat16):
        assert as_floats(np.ones(2, dtype)).dtype == as_floats(jnp.ones(2, dtype)).dtype == dtype
    with jax.enable_x64(False):
        assert {as_floats(a).dtype for a in (np.ones(2), [1, 2], 1, np.ones(2, np.longdouble))} == {
            np.dtype("float32")
        }


@pytest.mark.parametrize(
    "bad, message", [(2.5, "whole number, got 2.5"), ("3", "whole number"), (0, "at least 1, got 0")]
)
def test_counts_that_are_none_are_refused(bad, message):
    with pytest.raises(ValueError, match=f"n must be .*{message}"):
        as_count(bad, name="n")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.05, 1 / 3, -1e6, 1e-30, 0.0])
@pytest.mark.parametrize("n", [1, 3, 10_000])
def test_a_constant_does_not_vary_though_its_deviation_is_not_zero(value, dtype, n):
    column = np.full(n, value, dtype)
    assert not varies(column) and not varies(column * dtype(3) / dtype(7) * dtype(7) / dtype(3) + 0 * column)
    rounded = column * (1 + np.finfo(dtype).eps * np.random.default_rng(0).integers(-2, 3, n).astype(dtype))
    assert not varies(rounded)
    if n > 1 and value:
        assert varies(column * np.linspace(1, 1 + 100 * np.finfo(dtype).eps, n, dtype=dtype))


class TestConstantsInDisguise:
    """Where a statistic of rounded numbers decides."""

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_constant_column_cannot_be_normalised(self, dtype):
        x = np.random.default_rng(0).uniform(size=(10_000, 3)).astype(dtype)
        x[:, 1] = 0.05
        with pytest.raises(ValueError, match=r"labels must be finite and vary, got deviations of \[.*\] and"):
            nnx.clone(MODEL).normalise(x, x[:, 0], by_input=True)
        with pytest.raises(ValueError, match="inputs and labels must be finite and vary"):
            nnx.clone(MODEL).normalise(x, x[:, 1])
        assert np.isfinite(nnx.clone(MODEL).normalise(x, x[:, 0])(x)).all()

    @pytest.mark.parametrize("unit", [1e-25, 1e25])
    def test_units_that_float32_has_no_deviation_for_are_refused(self, unit):
        x = np.random.default_rng(0).uniform(1, 2, size=(100, 3))
        with pytest.raises(ValueError, match=r"means and deviations that float32 holds, got .*: choose other units"):
            nnx.clone(MODEL).normalise(np.float32(x), np.float32(unit * x[:, 0]))
        assert np.isfinite(nnx.clone(MODEL).normalise(x, unit * x[:, 0])(x)).all()

    def test_r2_asks_the_numbers_that_are_given(self):
        truth = 1 + 1e-9 * np.arange(10)
        with jax.enable_x64(False):
            assert metrics.r2(truth, truth) == 1

    def test_a_basket_whose_covariance_cancels_but_for_rounding_has_no_volatility(self):
        factor = np.array([[0.1, 0.7], [0.1 / 3, 0.7 / 3]])
        assert np.linalg.norm(factor.T @ [-0.5, 1.5]) > 0
        with pytest.raises(ValueError, match="no volatility"):
            GaussianBasket([-0.5, 1.5], factor)

    def test_a_correlation_that_is_singular_but_for_rounding_is_refused(self):
        rows = np.random.default_rng(0).normal(size=(4, 3))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        correlation = rows @ rows.T  # of rank 3
        with pytest.raises(ValueError, match=r"positive definite, got a smallest eigenvalue of .*mix it"):
            GaussianBasket.from_correlation(np.ones(4), correlation, np.ones(4))


class TestShapesThatFitByAccident:
    @pytest.mark.parametrize("batch", [1, 4])
    def test_labels_are_those_of_the_outputs_exactly(self, batch):
        x = np.ones((batch, 3))
        three = Surrogate(3, [2], n_outputs=3, rngs=nnx.Rngs(0))
        with pytest.raises(ValueError, match=rf"samples.y must have the shape .* \({batch}, 3\), got \({batch},\)"):
            losses.plain(three, Samples(x, np.ones(batch)))
        with pytest.raises(ValueError, match=r"samples.y must have shape .* got \(\d, 1\)"):
            losses.plain(MODEL, Samples(x, np.ones((batch, 1))))
        with pytest.raises(ValueError, match=rf"samples.y must have the shape .* \({batch},\), got \({batch}, 2\)"):
            losses.plain(MODEL, Samples(x, np.ones((batch, 2))))

    @pytest.mark.parametrize("shape", [(4, 2, 2), (4, 3), (1, 1, 3), (4, 3, 1), (3,)])
    def test_directions(self, shape):
        with pytest.raises(ValueError, match=r"directions must have shape \(4, k, 3\), got"):
            MODEL.value_delta_and_hvp(X, np.ones(shape))
        with pytest.raises(ValueError, match="directions must have shape"):
            hessian_products.hvp(BASKET.value, X, np.ones(shape))

    @pytest.mark.parametrize("shape", [(4, 2), (4, 2, 1), (1, 1, 2), (2,)])
    def test_cotangents(self, shape):
        with pytest.raises(ValueError, match=r"cotangents must have shape \(4, k, 2\), got"):
            STRIP.value_and_vjp(X, np.ones(shape))

    def test_cotangents_of_one_output_may_leave_its_axis_out(self):
        (y, one), (_, other) = (MODEL.value_and_vjp(X, np.full(shape, 2.0)) for shape in ((4, 1), (4, 1, 1)))
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one[:, 0], 2 * MODEL.delta(X), rtol=1e-12)
        assert y.shape == (4,)

    @pytest.mark.parametrize(
        "changed, message",
        [
            ({"kernel_1": np.ones((3, 2))}, r"kernel_1 must have shape \(2, 2\), got \(3, 2\)"),
            ({"y_mean": np.zeros(4)}, r"y_mean must be one number, .* got shape \(4,\)"),
            ({"x_std": np.ones(2)}, r"x_std must be one number, or for inputs one each, got shape \(2,\)"),
        ],
    )
    def test_arrays_of_a_surrogate(self, changed, message):
        with pytest.raises(ValueError, match=message):
            Surrogate.from_arrays(MODEL.arrays() | changed)

    @pytest.mark.parametrize("x, y", [(np.ones((4, 2)), Y), (X, Y[:3]), (X[0], Y), (np.ones((0, 3)), [])])
    def test_data_to_normalise_by(self, x, y):
        with pytest.raises(ValueError, match=r"need inputs \(n, 3\) and labels \(n, ...\), got"):
            nnx.clone(MODEL).normalise(x, y)

    def test_increments_of_other_labels(self):
        with pytest.raises(
            ValueError, match=r"increments must have shape \(4, 3\), one row for each label, got \(1, 3\)"
        ):
            LSMC.labelled(X, np.ones((1, 3)))


def test_the_gamma_of_inputs_in_several_units_needs_a_direction():
    x = np.asarray(X, float)
    own = nnx.clone(MODEL).normalise(x, Y, by_input=True)
    with pytest.raises(ValueError, match="units of their own need a direction for gamma"):
        own.gamma(x)
    np.testing.assert_allclose(own.gamma(x, [0, 1, 0]), own.hessian(x)[:, 1, 1], rtol=1e-10, atol=1e-13)
    one = random_surrogate(1, (2,)).normalise(x[:, :1], Y, by_input=True)
    np.testing.assert_allclose(one.gamma(x[:, :1]), one.hessian(x[:, :1])[:, 0, 0], rtol=1e-10, atol=1e-13)


def test_samples_are_named_tuples_of_arrays():
    for bad in ((X, Y, DYDX), {"x": X}, None, X):
        with pytest.raises(ValueError, match="expected samples with x and y, such as Samples"):
            training.shuffled(bad)
    assert as_samples(labelled_by(MODEL, X)).y.shape == (4,)


@pytest.mark.parametrize("bad", [np.ma.array([1.0, 2.0], mask=[False, True]), ["1", "2"], np.array([1 + 5j, 2])])
@pytest.mark.parametrize("metric", [metrics.r2, metrics.rmse])
def test_metrics_refuse_what_is_not_numbers(metric, bad):
    for arguments, name in (((bad, [1, 2]), "truth"), (([1, 2], bad), "prediction")):
        with pytest.raises(ValueError, match=f"^{name} must be"):
            metric(*arguments)
