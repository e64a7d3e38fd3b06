"""The exported surrogate, run by onnxruntime, against JAX."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from flax import nnx
from oracles import DTYPES, random_surrogate, uniform_points

from sobolev_utils.learning.surrogate import ACTIVATIONS, NORMALISATION, Surrogate
from sobolev_utils.paper.export import to_onnx

OUTPUTS = ("price", "deltas", "gamma")
# of the largest magnitude of an output; two evaluations in float32 differ by some of its roundings
BARS = {np.float32: 3e-6, np.float64: 1e-12}


def run(exported, x):
    return onnxruntime.InferenceSession(exported).run(list(OUTPUTS), {"spots": x})


def by_jax(model, x):
    return [np.asarray(y) for y in jax.jit(lambda x: (*model.value_and_delta(x), model.gamma(x)))(x)]


def assert_agree(model, dtype, n):
    x = uniform_points(n, model.n_inputs).astype(dtype)
    for got, expected in zip(run(to_onnx(model, dtype, {}), x), by_jax(model, jnp.asarray(x)), strict=True):
        assert (got.shape, got.dtype) == (expected.shape, dtype)
        np.testing.assert_allclose(got, expected, rtol=0, atol=BARS[dtype] * abs(expected).max(initial=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation, dtype):
    assert_agree(random_surrogate(activation=activation), dtype, 50)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_inputs, widths", [(1, [1]), (1, [4]), (2, [3, 1, 2]), (7, [8] * 6), (7, [128, 128])])
def test_widths_depths_and_inputs(n_inputs, widths, dtype):
    assert_agree(random_surrogate(n_inputs, widths), dtype, 50)


@pytest.mark.parametrize("n", [0, 1, 2, 10_000])
def test_any_number_of_spots(n):
    assert_agree(random_surrogate(), np.float64, n)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("weights", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_dtype_asked_for_decides_whatever_those_of_jax_and_of_the_weights(dtype, weights, x64):
    model, x = random_surrogate(dtype=weights), uniform_points(5, 3).astype(dtype)
    with jax.enable_x64(x64):
        exported = to_onnx(model, dtype, {})
    assert exported == to_onnx(model, dtype, {})
    for got, expected in zip(run(exported, x), by_jax(model, x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=BARS[dtype] * abs(expected).max())


def test_a_spot_is_on_its_own():
    exported, x = to_onnx(random_surrogate(), np.float64, {}), uniform_points(6, 3)
    for together, alone in zip(run(exported, x), run(exported, x[4:5]), strict=True):
        np.testing.assert_allclose(together[4:5], alone, rtol=1e-13)


def test_a_normalisation_by_input_goes_along():
    by_input = {"x_mean": np.array([1.0, 0.9, 1.2]), "x_std": np.array([0.4, 0.3, 0.5])}
    model, along, x = Surrogate.from_arrays(random_surrogate().arrays() | by_input), [1, 0, -2], uniform_points(20, 3)
    exported = to_onnx(model, np.float64, {}, direction=along)
    expected = (*model.value_and_delta(x), model.hessian(x) @ jnp.array(along) @ jnp.array(along))
    for got, wanted in zip(run(exported, x), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)
    about = onnxruntime.InferenceSession(exported).get_modelmeta().custom_metadata_map
    assert json.loads(about["x_mean"]) == [1.0, 0.9, 1.2] and json.loads(about["direction"]) == along
    with pytest.raises(ValueError, match="units of their own need a direction for gamma"):
        to_onnx(model, np.float64, {})


def test_what_is_computed_twice_is_there_once():
    """Value, deltas and gamma share one sweep through the layers: each has one logistic function."""
    model = random_surrogate(widths=(5, 4, 3))
    operations = [node.op_type for node in onnx.load_from_string(to_onnx(model, np.float32, {})).graph.node]
    assert operations.count("Sigmoid") == 3
    # forward, tangent, second tangent and reverse, less what is constant or not needed
    assert operations.count("Gemm") == 4 + 2 + 3 + 3


def test_each_weight_is_there_once():
    model = random_surrogate(7, [64] * 3)
    for dtype in DTYPES:
        bare = model.n_parameters * np.dtype(dtype).itemsize
        assert bare < len(to_onnx(model, dtype, {})) < bare + 12_000


def test_what_is_told_of_it_goes_along():
    model = random_surrogate(activation="tanh")
    told = {"inputs": "spots", "lower": [0.3, 0.3, 0.25]}
    model_proto = onnx.load_from_string(to_onnx(model, np.float32, told))
    about = {entry.key: entry.value for entry in model_proto.metadata_props}
    assert (about["inputs"], json.loads(about["lower"])) == ("spots", [0.3, 0.3, 0.25])
    assert (about["dtype"], about["activation"], json.loads(about["widths"])) == ("float32", "tanh", [5, 4])
    arrays = model.arrays()
    assert [json.loads(about[name]) for name in NORMALISATION] == [np.float32(arrays[name]) for name in NORMALISATION]
    sizes = {
        tensor.name: [size.dim_param or size.dim_value for size in tensor.type.tensor_type.shape.dim]
        for tensor in (*model_proto.graph.input, *model_proto.graph.output)
    }
    assert sizes == {"spots": ["n", 3], "price": ["n"], "deltas": ["n", 3], "gamma": ["n"]}


def test_the_runtime_refuses_another_number_of_inputs():
    with pytest.raises(Exception, match="Got: 2 Expected: 3"):
        run(to_onnx(random_surrogate(), np.float64, {}), np.ones((5, 2)))


NOT_FINITE = Surrogate.from_arrays(random_surrogate().arrays() | {"bias_1": np.array([np.nan, 0, 0, 0])})
REFUSED = {
    "float16": (random_surrogate(), np.float16, None, "exported in float32 or float64, got float16"),
    "int32": (random_surrogate(), np.int32, None, "exported in float32 or float64, got int32"),
    "complex": (random_surrogate(), complex, None, "exported in float32 or float64, got complex128"),
    "two outputs": (
        Surrogate(3, [5], n_outputs=2, rngs=nnx.Rngs(0)),
        np.float32,
        None,
        "a gradient is of one output, got a surrogate with 2",
    ),
    "weights": (NOT_FINITE, np.float64, None, "must be finite in float64, got others in bias_1"),
    "direction": (random_surrogate(), np.float32, [1, np.inf, 1], "the direction must be finite in float32"),
}


@pytest.mark.parametrize("model, dtype, direction, message", REFUSED.values(), ids=REFUSED)
def test_refuses(model, dtype, direction, message):
    with pytest.raises(ValueError, match=message):
        to_onnx(model, dtype, {}, direction)


@pytest.mark.parametrize(
    "activation, message",
    [
        (jnp.sin, "no rule for the primitive 'sin', used at"),
        (lambda z: z + jnp.dot(z, z), "only products of a vector and a constant matrix"),
        (lambda z: z.astype(jnp.float16).astype(z.dtype), "'convert_element_type' is exported of constants alone"),
    ],
)
def test_an_operation_without_a_rule_is_named(monkeypatch, activation, message):
    monkeypatch.setitem(ACTIVATIONS, "silu", activation)
    with pytest.raises(NotImplementedError, match=message):
        to_onnx(random_surrogate(), np.float32, {})
