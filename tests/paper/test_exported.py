"""Exported models read back as real functions, and what rounding adds, against onnxruntime and simulated rounding."""

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from oracles import DTYPES, random_surrogate

from sobolev_utils.enclosures import box
from sobolev_utils.learning.surrogate import ACTIVATIONS
from sobolev_utils.paper.export import to_onnx
from sobolev_utils.paper.exported import OPERATIONS, Exported
from sobolev_utils.paper.floating_point import ROUNDINGS, ranges, rounding_errors
from sobolev_utils.pruning.certificate import sections_across

OUTPUTS = ("price", "deltas", "gamma")
LOWER, UPPER = np.full(2, 0.4), np.full(2, 1.6)
SPOTS = np.random.default_rng(0).uniform(LOWER, UPPER, (2000, 2)).astype(np.float32)


def run(data, x):
    return onnxruntime.InferenceSession(data).run(None, {"spots": x})


def exact(model, x):
    """The outputs of the real function, in double precision."""
    functions = jax.jit(jax.vmap(lambda x: (model.value(x), model.delta(x), model.gamma(x))))
    return [np.asarray(y) for y in functions(x.astype(float))]


def roundings(exported, used=None):
    """Bounds for `exported`, in float64, as it is or computed with another model."""
    model = Exported(exported)
    with jax.enable_x64(True):
        sections = sections_across(model.value, box(LOWER, UPPER), 16)
    return rounding_errors(model, ranges(model, sections), used and Exported(used))


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_model_is_the_function_that_a_runtime_computes(activation):
    data = to_onnx(random_surrogate(2, (4, 4), activation), np.float64, {}, direction=[1.0, 2.0])
    model, spots = Exported(data), SPOTS.astype(float)
    for ours, theirs in zip(exact(model, spots), run(data, spots), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(model.direction, [1.0, 2.0])


def test_an_operation_that_is_not_exported_is_refused_by_name():
    model = onnx.load_from_string(to_onnx(random_surrogate(2, (4, 4)), np.float64, {}))
    model.graph.node[0].op_type = "Atan"
    with pytest.raises(NotImplementedError, match="Atan"):
        Exported(model.SerializeToString())


@pytest.mark.parametrize("activation", ["silu", "tanh", "softplus", "sigmoid"])
def test_rounding_stays_within_its_bounds(activation):
    """Of onnxruntime in both types, and of a computer that rounds each result as far as it may, at random."""
    surrogate = random_surrogate(2, (4, 4), activation, dtype=np.float32)
    models = {dtype: to_onnx(surrogate, dtype, {}) for dtype in DTYPES}
    truth = exact(Exported(models[np.float64]), SPOTS)
    single, double = roundings(models[np.float64], models[np.float32]), roundings(models[np.float64])
    computed = run(models[np.float32], SPOTS), simulated(Exported(models[np.float32]), SPOTS)
    for name, y, *single_precision, double_precision in zip(
        OUTPUTS, truth, *computed, run(models[np.float64], SPOTS.astype(float)), strict=True
    ):
        for each in single_precision:
            assert (abs(each - y) <= single[name]).all()
        assert (abs(double_precision - y) <= double[name] + 1e-14).all()
        assert (single[name] < 3e-4 * (1 + abs(y).max(axis=0))).all()
        assert (double[name] < 1e-8 * single[name]).all()
        # the simulation comes near the bound, which could not be much smaller
        assert abs(single_precision[1] - y).max() > 0.01 * single[name].max()


def simulated(model, x, seed=0):
    """Outputs where each node's result, computed in double precision, is off by up to k u of itself."""
    rng, u = np.random.default_rng(seed), 2.0**-24
    tensors = {"spots": x.astype(float)} | {
        name: c.astype(float) if c.dtype.kind == "f" else c for name, c in model.constants.items()
    }
    for node in model.nodes:
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        y = np.asarray(OPERATIONS[node.op_type](*(tensors[name] for name in node.input), **attributes))
        tensors[node.output[0]] = y
        k = ROUNDINGS.get(node.op_type, 1) if node.op_type != "Gemm" else 2
        size = 1 if node.op_type in ("Sigmoid", "Tanh") else abs(y)
        if k and y.dtype == float:
            tensors[node.output[0]] = y + k * u * size * rng.choice([-1, 1], y.shape)
    return [tensors[name] for name in OUTPUTS]


def test_a_relu_has_roundings_of_its_price_and_none_can_be_told_of_the_jump_of_its_deltas():
    surrogate = random_surrogate(2, (4, 4), "relu", dtype=np.float32)
    models = {dtype: to_onnx(surrogate, dtype, {}) for dtype in DTYPES}
    truth, bounds = exact(Exported(models[np.float64]), SPOTS), roundings(models[np.float64], models[np.float32])
    for name, y, computed in zip(OUTPUTS, truth, run(models[np.float32], SPOTS), strict=True):
        assert (abs(computed - y) <= bounds[name]).all()
    assert bounds["price"] < 1e-4 and (bounds["deltas"] > 1e-3).all()


def test_models_of_different_nodes_are_refused():
    models = [to_onnx(random_surrogate(2, widths), np.float64, {}) for widths in ((4, 4), (4, 4, 4))]
    with pytest.raises(ValueError, match="models of different nodes"):
        roundings(*models)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operation", ["Sigmoid", "Tanh", "Exp", "Log", "Div"])
def test_the_runtime_rounds_no_more_than_is_assumed(operation, dtype):
    """At half a million arguments each."""
    rng, unit = np.random.default_rng(0), float(np.finfo(dtype).epsneg)
    x = np.concatenate(
        [rng.uniform(-40, 40, 250_000), rng.normal(size=250_000) * np.exp(rng.uniform(-20, 3, 250_000))]
    )
    x = (np.exp(x) if operation == "Log" else x).astype(dtype)
    inputs = {"x": x, "one": np.ones(1, dtype)} if operation == "Div" else {"x": x}
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    values = [onnx.helper.make_tensor_value_info(name, element, ["n"]) for name in (*inputs, "y")]
    names = ["one", "x"] if operation == "Div" else ["x"]
    graph = onnx.helper.make_graph([onnx.helper.make_node(operation, names, ["y"])], "g", values[:-1], values[-1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    y = run_one(model.SerializeToString(), inputs)
    wide = x.astype(np.longdouble)
    truth = {
        "Sigmoid": lambda: 1 / (1 + np.exp(-wide)),
        "Tanh": lambda: np.tanh(wide),
        "Exp": lambda: np.exp(wide),
        "Log": lambda: np.log(wide),
        "Div": lambda: 1 / wide,
    }[operation]()
    size = np.ones_like(truth) if operation in ("Sigmoid", "Tanh") else abs(truth)
    usual = (size > np.finfo(dtype).smallest_normal) & (size < np.finfo(dtype).max)
    errors = abs(y - truth)[usual] / size[usual]
    assert 0 < errors.max() <= 0.75 * ROUNDINGS[operation] * unit


def run_one(data, inputs):
    return onnxruntime.InferenceSession(data).run(None, inputs)[0]
