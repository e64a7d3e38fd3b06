"""The surrogate against NumPy and finite differences, and what should leave it unchanged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import (
    DTYPES,
    TOLERANCE,
    finite_difference,
    forward,
    random_surrogate,
    second_difference,
    uniform_points,
)

from sobolev_utils.learning.losses import sobolev
from sobolev_utils.learning.surrogate import ACTIVATIONS, NORMALISATION, Surrogate
from sobolev_utils.models.samples import Samples

MODEL = random_surrogate()
X = uniform_points(6, 3)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_values_and_derivatives_of_every_activation(activation):
    model = random_surrogate(activation=activation)
    arrays = model.arrays()
    nodes, y, (same, delta) = jax.jit(lambda x: (model.nodes(x), model(x), model.value_and_delta(x)))(X)
    for node, expected in zip(nodes[1:], forward(arrays, X), strict=True):
        np.testing.assert_allclose(node, expected, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose([nodes[-1], same], [y, y], rtol=1e-14)
    difference = finite_difference(lambda x: forward(arrays, x)[-1], X, step=1e-6)
    np.testing.assert_allclose(delta, difference, rtol=1e-7, atol=1e-8)


def test_second_derivatives_are_differences_of_the_first():
    hessian, gamma = jax.jit(lambda x: (MODEL.hessian(x), MODEL.gamma(x)))(X)
    delta = jax.jit(MODEL.delta)
    differences = [finite_difference(lambda x, i=i: delta(x)[..., i], X) for i in range(3)]
    np.testing.assert_allclose(hessian, np.stack(differences, axis=-2), atol=1e-9)
    np.testing.assert_allclose(hessian, np.swapaxes(hessian, -1, -2), atol=1e-14)
    np.testing.assert_allclose(gamma, hessian.sum(axis=(-2, -1)), rtol=1e-11)
    along = second_difference(lambda x: forward(MODEL.arrays(), x)[-1], X, np.ones(3))
    np.testing.assert_allclose(gamma, along, atol=1e-6)
    assert abs(hessian).max() > 0.01


def test_the_gamma_along_a_direction():
    v = np.array([0.5, -2.0, 0.0])
    expected = jax.jit(MODEL.hessian)(X) @ v @ v
    np.testing.assert_allclose(MODEL.gamma(X, v), expected, rtol=1e-11)
    np.testing.assert_allclose(MODEL.gamma(X[0], v), expected[0], rtol=1e-11)
    for wrong in (np.ones(1), np.ones((6, 3)), np.ones(4)):
        with pytest.raises(ValueError, match=r"direction must have shape \(3,\), one per input, got \("):
            MODEL.gamma(X, wrong)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weights", DTYPES)
def test_shapes_and_the_dtype_follow_the_inputs(dtype, weights):
    model = random_surrogate(dtype=weights)
    for batch in ((), (6,), (2, 3)):
        x = jax.ShapeDtypeStruct((*batch, 3), dtype)
        outer = {model: (), model.delta: (3,), model.gamma: (), model.hessian: (3, 3)}
        for method, shape in outer.items():
            image = jax.eval_shape(method, x)
            assert (image.shape, image.dtype) == (batch + shape, dtype)
        assert {node.dtype for node in jax.eval_shape(model.nodes, x)} == {np.dtype(dtype)}


def test_float32_is_float64_rounded():
    for f in (jax.jit(MODEL), jax.jit(MODEL.gamma)):
        np.testing.assert_allclose(f(X.astype(np.float32)), f(X), rtol=0, atol=TOLERANCE[np.float32])


def test_each_sample_is_on_its_own():
    hessian = jax.jit(MODEL.hessian)
    together = hessian(X)
    np.testing.assert_allclose(hessian(X.reshape(2, 3, 3)), together.reshape(2, 3, 3, 3), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(hessian(X[4]), together[4], rtol=1e-12, atol=1e-14)


def test_normalise_takes_the_statistics_and_conjugates_the_network():
    bare = Surrogate(3, [5, 4], rngs=nnx.Rngs(0))
    assert [getattr(bare, name)[...] for name in NORMALISATION] == [0, 1, 0, 1]
    y = 3 + X[:, 0] ** 2
    model = nnx.clone(bare)
    assert model.normalise(X, y) is model
    expected = y.mean() + y.std() * bare((X - X.mean()) / X.std())
    np.testing.assert_allclose(model(X), expected, rtol=1e-13)
    assert bare.x_mean[...] == 0  # a clone is a copy


def test_by_input_the_units_of_each_do_not_matter():
    """A loss with derivatives, too: what is scaled up in x is scaled down in dy/dx."""
    y, dydx = MODEL.value_and_delta(X)
    units = np.array([1.0, 100.0, 1e-3])
    bare = Surrogate(3, [5, 4], rngs=nnx.Rngs(0))
    model = nnx.clone(bare).normalise(X, y, by_input=True)
    other = nnx.clone(bare).normalise(X * units, y, by_input=True)
    assert model.x_mean[...].shape == model.x_std[...].shape == (3,) and model.y_std[...].shape == ()
    np.testing.assert_allclose(model(X), y.mean() + y.std() * bare((X - X.mean(0)) / X.std(0)), rtol=1e-13)
    np.testing.assert_allclose(other(X * units), model(X), rtol=1e-12)
    losses = [
        sobolev()(each, Samples(X * unit, y, dydx / unit)) for each, unit in ((model, np.ones(3)), (other, units))
    ]
    np.testing.assert_allclose(*losses, rtol=1e-12)
    again = Surrogate.from_arrays(other.arrays())
    np.testing.assert_array_equal(again(X * units), other(X * units))


@pytest.mark.parametrize(
    "x, y, message",
    [
        (np.ones((6, 3)), X[:, 0], "finite and vary, got deviations of 0.0 and"),
        (X, np.zeros(6), "finite and vary, got deviations of .* and 0.0"),
        (X, np.full(6, np.nan), "and nan"),
    ],
)
def test_data_that_cannot_be_normalised_are_refused(x, y, message):
    model = random_surrogate()
    with pytest.raises(ValueError, match=message):
        model.normalise(x, y)
    assert float(model.x_mean[...]) == 1.1


# the published networks
@pytest.mark.parametrize("widths, n_parameters", [([128] * 6, 83_713), ([8] * 6, 433), ([3, 3], 40)])
def test_sizes(widths, n_parameters):
    model = nnx.eval_shape(lambda: Surrogate(7, widths, rngs=nnx.Rngs(0)))
    assert (model.n_inputs, model.widths, model.n_parameters) == (7, tuple(widths), n_parameters)


def test_the_seed_decides_the_weights():
    one, same, other = (Surrogate(3, [4], rngs=nnx.Rngs(seed)).arrays()["kernel_0"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).all()


def test_the_order_of_hidden_nodes_does_not_matter():
    arrays = MODEL.arrays()
    order = [3, 0, 4, 2, 1]
    for name in ("kernel_0", "bias_0"):
        arrays[name] = arrays[name][..., order]
    arrays["kernel_1"] = arrays["kernel_1"][order]
    permuted = Surrogate.from_arrays(arrays)
    np.testing.assert_allclose(permuted(X), MODEL(X), rtol=1e-14)
    np.testing.assert_allclose(permuted.delta(X), MODEL.delta(X), rtol=1e-12)
    np.testing.assert_array_equal(permuted.nodes(X)[1], MODEL.nodes(X)[1][:, np.array(order)])


def test_a_change_takes_the_place_of_the_hidden_values():
    held = forward(MODEL.arrays(), X, {(1, 2): 0.7})

    def change(layer, values):
        return values.at[:, 2].set(0.7) if layer == 1 else values

    for node, expected in zip(MODEL.nodes(X, change)[1:], held, strict=True):
        np.testing.assert_allclose(node, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["silu", "tanh"])
def test_arrays_make_the_same_surrogate_even_through_a_file(tmp_path, activation, dtype):
    model = random_surrogate(2, (6, 1, 3), activation, dtype=dtype)
    np.savez(tmp_path / "model.npz", **model.arrays())
    with np.load(tmp_path / "model.npz") as saved:
        back = Surrogate.from_arrays(saved)
    assert (back.widths, back.activation) == ((6, 1, 3), activation)
    assert model.arrays().keys() == back.arrays().keys()
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(back.arrays()[name], array, strict=True)


@pytest.mark.parametrize("shape", [(), (2,), (3, 4)])
def test_another_number_of_inputs_is_refused(shape):
    for method in (MODEL, MODEL.delta, MODEL.gamma):
        with pytest.raises(ValueError, match=r"inputs must have shape \(\.\.\., 3\), got"):
            method(jnp.ones(shape))


@pytest.mark.parametrize(
    "n_inputs, widths, n_outputs, message",
    [
        (0, [4], 1, "n_inputs must be at least 1, got 0"),
        (-1, [4], 1, "n_inputs must be at least 1, got -1"),
        (3, [], 1, "at least one hidden layer"),
        (3, [4, 0], 1, "the width of hidden layer 2 must be at least 1, got 0"),
        (3, [4], 0, "n_outputs must be at least 1, got 0"),
    ],
)
def test_counts_below_one_are_refused(n_inputs, widths, n_outputs, message):
    with pytest.raises(ValueError, match=message):
        Surrogate(n_inputs, widths, n_outputs=n_outputs, rngs=nnx.Rngs(0))


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match=r"unknown activation 'gelu', expected one of .*'silu'"):
        Surrogate(3, [4], activation="gelu", rngs=nnx.Rngs(0))


class TestSeveralOutputs:
    MODEL = Surrogate(3, [5, 4], n_outputs=2, rngs=nnx.Rngs(0))
    X = jnp.asarray(uniform_points(6, 3))

    def test_outputs_and_products_with_their_jacobian(self):
        jacobian = jax.vmap(jax.jacfwd(self.MODEL))(self.X)
        cotangents = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4, 2)))
        y, vjp = self.MODEL.value_and_vjp(self.X, cotangents)
        assert y.shape == (6, 2) == self.MODEL(self.X).shape
        np.testing.assert_allclose(vjp, cotangents @ jacobian, rtol=1e-6)

    def test_they_survive_saving(self):
        again = Surrogate.from_arrays(self.MODEL.arrays())
        assert again.n_outputs == 2
        np.testing.assert_array_equal(again(self.X), self.MODEL(self.X))

    def test_a_gradient_is_of_one_output(self):
        with pytest.raises(ValueError, match="a gradient is of one output, got a surrogate with 2"):
            self.MODEL.delta(self.X)
