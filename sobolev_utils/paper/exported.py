"""An exported surrogate read back: the real function that its nodes stand for, as JAX functions of one spot."""

import json
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax import lax
from onnx import numpy_helper

__all__ = ["OPERATIONS", "Exported"]


class Exported:
    """An ONNX model of `to_onnx`, as the function of real numbers that its operations and constants make up.

    value (n_inputs,) -> (), delta (n_inputs,) -> (n_inputs,) and gamma (n_inputs,) -> (), along `direction`, are its
    three outputs, not derivatives of one another. Raises NotImplementedError for an operation that `to_onnx` does not
    write.
    """

    def __init__(self, model: bytes | str | Path):
        loaded = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
        self.nodes = list(loaded.graph.node)
        self.constants = {each.name: numpy_helper.to_array(each) for each in loaded.graph.initializer}
        self.metadata: Mapping[str, str] = {each.key: each.value for each in loaded.metadata_props}
        self.dtype = np.dtype(self.metadata["dtype"])
        self.n_inputs = loaded.graph.input[0].type.tensor_type.shape.dim[1].dim_value
        self.direction = np.array(json.loads(self.metadata.get("direction", str([1.0] * self.n_inputs))))
        if unknown := sorted({node.op_type for node in self.nodes} - set(OPERATIONS)):
            raise NotImplementedError(f"expected the operations {sorted(OPERATIONS)}, got {unknown}")

    def value(self, x: jax.Array) -> jax.Array:
        return self._output(x, "price")

    def delta(self, x: jax.Array) -> jax.Array:
        return self._output(x, "deltas")

    def gamma(self, x: jax.Array) -> jax.Array:
        return self._output(x, "gamma")

    def tensors(self, x: jax.Array, nodes: list | None = None) -> dict[str, jax.Array | np.ndarray]:
        """All tensors by name at a spot (n_inputs,), with an axis of length 1 for it; constants are of NumPy."""
        floats = {name: c.astype(x.dtype) if c.dtype.kind == "f" else c for name, c in self.constants.items()}
        tensors = {"spots": x[None], **floats}
        for node in self.nodes if nodes is None else nodes:
            attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
            inputs = (tensors[name] for name in node.input)
            tensors[node.output[0]] = OPERATIONS[node.op_type](*inputs, **attributes)
        return tensors

    def _output(self, x, name):
        wanted, nodes = {name}, []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                nodes.insert(0, node)
        return self.tensors(x, nodes)[name][0]


def _gemm(a, b, transB=0):
    return a @ (b.T if transB else b)


# As ONNX defines them, for what `to_onnx` writes.
OPERATIONS = {
    "Add": jnp.add,
    "Sub": jnp.subtract,
    "Mul": jnp.multiply,
    "Div": jnp.divide,
    "Neg": jnp.negative,
    "Abs": jnp.abs,
    "Max": jnp.maximum,
    "Exp": jnp.exp,
    "Log": jnp.log,
    "Tanh": jnp.tanh,
    "Sigmoid": lax.logistic,
    "Equal": jnp.equal,
    "Greater": jnp.greater,
    "Not": jnp.logical_not,
    "Where": jnp.where,
    "Identity": lambda x: x,
    "Gemm": _gemm,
    "Squeeze": lambda x, axes: jnp.squeeze(x, tuple(axes)),
    "Shape": lambda x, end: np.array(x.shape[:end]),
    "Expand": lambda x, shape: jnp.broadcast_to(x, np.broadcast_shapes(jnp.shape(x), tuple(shape))),
}
