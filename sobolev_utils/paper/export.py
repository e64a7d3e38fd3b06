"""A surrogate taken away: price, deltas and gamma as an ONNX model, which needs neither JAX nor this package.

Nothing is derived anew: the program that JAX runs at one spot, derivatives included, is walked in the domain of
tensors that hold a value for each of n spots, and leaves its operations behind as nodes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sobolev_utils.arrays import as_numbers
from sobolev_utils.enclosures.elementwise import as_usual, is_array
from sobolev_utils.enclosures.jaxpr import walk
from sobolev_utils.learning.surrogate import NORMALISATION, Surrogate

__all__ = ["to_onnx"]

DTYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float64): TensorProto.DOUBLE}
OPSET, IR = 18, 8  # of 2022; later runtimes read them too


def to_onnx(
    model: Surrogate,
    dtype: np.typing.DTypeLike,
    metadata: Mapping[str, object],
    direction: np.typing.ArrayLike | None = None,
) -> bytes:
    """An ONNX model from spots (n, n_inputs), for any n, to price (n,), deltas (n, n_inputs) and gamma (n,).

    The gamma is v'Hv along a direction v, (n_inputs,); None is (1, ..., 1), for inputs of one unit alone. All is
    computed in `dtype`, float32 or float64, with weights of that type. The `metadata`, text or JSON by name, go with
    it; so do the dtype, the activation, the widths, the direction if there is one, and the normalisation, which
    the model applies by itself. Same surrogate and metadata, same bytes. Raises ValueError for another dtype, for a
    surrogate of several outputs, which has no gradient, for weights or a direction that are not finite, and for
    inputs that were normalised each by itself where no direction is given.
    """
    dtype, n_inputs = np.dtype(dtype), model.n_inputs
    if dtype not in DTYPES:
        raise ValueError(f"a surrogate is exported in float32 or float64, got {dtype}")
    arrays = {name: a.astype(dtype) if a.dtype.kind == "f" else a for name, a in model.arrays().items()}
    if bad := [name for name, a in arrays.items() if a.dtype.kind == "f" and not np.isfinite(a).all()]:
        raise ValueError(f"weights must be finite in {dtype}, got others in {', '.join(bad)}")
    if direction is not None:
        direction = np.asarray(as_numbers(direction, name="the direction"), dtype)
        if not np.isfinite(direction).all():
            raise ValueError(f"the direction must be finite in {dtype}, got {direction}")
    graph, spots = _Graph(), _Batch("spots")
    rules = {primitive: partial(_evaluate, rule, graph) for primitive, rule in RULES.items()}
    with jax.enable_x64(dtype == np.float64):
        cast = Surrogate.from_arrays(arrays)
        program = jax.make_jaxpr(lambda x: (*cast.value_and_delta(x), cast.gamma(x, direction)))(
            jnp.zeros(n_inputs, dtype)
        )
        price, deltas, gamma = walk(program.jaxpr, program.consts, [spots], rules)
    if is_array(gamma):  # the same at all spots: a piecewise linear surrogate has none
        gamma = graph.node("Expand", gamma, graph.node("Shape", spots, end=1))

    def tensor(name, *shape):
        return helper.make_tensor_value_info(name, DTYPES[dtype], ["n", *shape])

    outputs = {"price": price, "deltas": deltas, "gamma": gamma}
    nodes, constants = graph.leading_to(outputs)
    signature = [tensor("spots", n_inputs)], [tensor("price"), tensor("deltas", n_inputs), tensor("gamma")]
    made = helper.make_model(
        helper.make_graph(nodes, "surrogate", *signature, constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="sobolev_utils",
    )
    about = {"dtype": dtype.name, "activation": model.activation, "widths": model.widths}
    about |= {name: arrays[name].tolist() for name in NORMALISATION}
    if direction is not None:
        about["direction"] = direction.tolist()
    texts = {name: x if isinstance(x, str) else json.dumps(x) for name, x in {**metadata, **about}.items()}
    helper.set_model_props(made, dict(sorted(texts.items())))
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString(deterministic=True)


@dataclass(frozen=True)
class _Batch:
    """The tensor of this name: values at n spots, along its first axis."""

    name: str


class _Graph:
    """Nodes in the order of their making, and constants: each but once, so that what is computed twice is shared."""

    def __init__(self):
        self.nodes, self.constants = {}, {}

    def node(self, operation: str, *inputs: _Batch | np.ndarray, **attributes) -> _Batch:
        names = tuple(x.name if isinstance(x, _Batch) else self._constant(np.asarray(x)) for x in inputs)
        key = operation, names, tuple(attributes.items())
        return _Batch(self.nodes.setdefault(key, f"v{len(self.nodes)}"))

    def _constant(self, array: np.ndarray) -> str:
        key = array.dtype.str, array.shape, array.tobytes()
        return self.constants.setdefault(key, (f"c{len(self.constants)}", array))[0]

    def leading_to(self, outputs: Mapping[str, _Batch]) -> tuple[list, list]:
        """The nodes and constants that these outputs need, which get their names."""
        nodes = [helper.make_node("Identity", [value.name], [name]) for name, value in outputs.items()]
        wanted = {value.name for value in outputs.values()}
        for (operation, names, attributes), name in reversed(self.nodes.items()):
            if name in wanted:
                wanted.update(names)
                nodes.insert(0, helper.make_node(operation, names, [name], **dict(attributes)))
        return nodes, [numpy_helper.from_array(a, name) for name, a in self.constants.values() if name in wanted]


def _evaluate(rule, graph: _Graph, eqn, *values):
    """The output of an equation: an array where all values are, else a node, or what its rule makes of it."""
    if all(map(is_array, values)):
        return as_usual(eqn, *values)
    return graph.node(rule, *values) if isinstance(rule, str) else rule(graph, eqn, *values)


def _dot(graph, eqn, a, b):
    """a'B or a'B' at each spot, for a constant matrix B."""
    (((left,), (right,)), batch) = eqn.params["dimension_numbers"]
    if not (isinstance(a, _Batch) and is_array(b) and b.ndim == 2 and left == 0 and not any(batch)):
        raise NotImplementedError(f"only products of a vector and a constant matrix are exported, got {eqn}")
    return graph.node("Gemm", a, b, transB=right)


def _squeeze(graph, eqn, x):
    return graph.node("Squeeze", x, np.asarray(eqn.params["dimensions"], np.int64) + 1)


def _log1p(graph, eqn, x):
    return graph.node("Log", graph.node("Add", x, np.ones((), eqn.outvars[0].aval.dtype)))


def _one_minus_square(graph, eqn, x):
    """As JAX computes it, which writes the derivative of tanh so from 0.12 on."""
    one = np.ones((), eqn.outvars[0].aval.dtype)
    return graph.node("Mul", graph.node("Add", one, x), graph.node("Sub", one, x))


def _constant_alone(graph, eqn, *values):
    raise NotImplementedError(f"'{eqn.primitive.name}' is exported of constants alone")


RULES = {
    "add": "Add",
    "add_any": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "neg": "Neg",
    "abs": "Abs",
    "max": "Max",
    "exp": "Exp",
    "tanh": "Tanh",
    "logistic": "Sigmoid",
    "eq": "Equal",
    "gt": "Greater",
    "ne": lambda graph, eqn, a, b: graph.node("Not", graph.node("Equal", a, b)),
    "select_n": lambda graph, eqn, which, if_false, if_true: graph.node("Where", which, if_true, if_false),
    "log1p": _log1p,
    "one_minus_square": _one_minus_square,
    "dot_general": _dot,
    "squeeze": _squeeze,
    "broadcast_in_dim": _constant_alone,
    "convert_element_type": _constant_alone,
}
