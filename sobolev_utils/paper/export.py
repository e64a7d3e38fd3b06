"""A surrogate taken away: price, deltas and gamma as an ONNX model, which needs neither JAX nor this package.

Nothing is derived anew: the program that JAX runs at one spot, derivatives included, is walked in the domain of
tensors that hold a value for each of n spots, and leaves its operations behind as nodes.
"""

import json
from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike
from onnx import TensorProto, helper, numpy_helper

from sobolev_utils.arrays import as_numbers
from sobolev_utils.enclosures.elementwise import as_usual, is_array
from sobolev_utils.enclosures.jaxpr import walk
from sobolev_utils.learning.surrogate import NORMALISATION, Surrogate

__all__ = ["to_onnx"]

DTYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float64): TensorProto.DOUBLE}
OPSET, IR = 18, 8  # of 2022; later runtimes read them too


def to_onnx(
    model: Surrogate, dtype: DTypeLike, metadata: Mapping[str, object], direction: ArrayLike | None = None
) -> bytes:
    """An ONNX model from spots (n, n_inputs), for any n, to price (n,), deltas (n, n_inputs) and gamma (n,).

    The gamma is v'Hv along a direction v, (n_inputs,); None is (1, ..., 1), for inputs of one unit alone. All is
    computed in `dtype`, float32 or float64, with weights of that type. The `metadata`, text or JSON by name, go with
    it; so do the dtype, the activation, the widths, the direction if there is one, and the normalisation, which
    the model applies by itself. Same surrogate and metadata, same bytes. Raises ValueError for another dtype, for a
    surrogate of several outputs, which has no gradient, for weights or a direction that are not finite, and for
    inputs that were normalised each by itself where no direction is given.
    """
    dtype = np.dtype(dtype)
    if dtype not in DTYPES:
        raise ValueError(f"a surrogate is exported in float32 or float64, got {dtype}")
    arrays = model.arrays()
    weights = {name: array.astype(dtype) for name, array in arrays.items() if name != "activation"}
    if bad := [name for name, array in weights.items() if not np.isfinite(array).all()]:
        raise ValueError(f"weights must be finite in {dtype}, got others in {', '.join(bad)}")
    about = {"dtype": dtype.name, "activation": model.activation, "widths": model.widths}
    about |= {name: weights[name].tolist() for name in NORMALISATION}
    if direction is not None:
        direction = np.asarray(as_numbers(direction, name="the direction"), dtype)
        if not np.isfinite(direction).all():
            raise ValueError(f"the direction must be finite in {dtype}, got {direction}")
        about["direction"] = direction.tolist()

    graph = _Graph()
    rules = {primitive: partial(_evaluate, rule, graph) for primitive, rule in RULES.items()}
    with jax.enable_x64(dtype == np.float64):
        cast = Surrogate.from_arrays(arrays | weights)
        program = jax.make_jaxpr(lambda x: (*cast.value_and_delta(x), cast.gamma(x, direction)))(
            jnp.zeros(model.n_inputs, dtype)
        )
        price, deltas, gamma = walk(program.jaxpr, program.consts, ["spots"], rules)
    if is_array(gamma):  # the same at all spots: a piecewise linear surrogate has none
        gamma = graph.node("Expand", gamma, graph.node("Shape", "spots", end=1))
    nodes, constants = graph.leading_to({"price": price, "deltas": deltas, "gamma": gamma})

    shapes = {"spots": ["n", model.n_inputs], "price": ["n"], "deltas": ["n", model.n_inputs], "gamma": ["n"]}
    spots, *outputs = (helper.make_tensor_value_info(name, DTYPES[dtype], shape) for name, shape in shapes.items())
    made = helper.make_model(
        helper.make_graph(nodes, "surrogate", [spots], outputs, constants),
        producer_name="sobolev_utils",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
    )
    told = sorted({**metadata, **about}.items())
    helper.set_model_props(made, {name: x if isinstance(x, str) else json.dumps(x) for name, x in told})
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString(deterministic=True)


class _Graph:
    """Nodes in the order of their making, and constants: each but once, so that what is computed twice is shared.

    A tensor, values at n spots along its first axis, is known by its name.
    """

    def __init__(self):
        self.nodes, self.constants = {}, {}

    def node(self, operation: str, *inputs: str | np.ndarray, **attributes) -> str:
        names = tuple(x if isinstance(x, str) else self._constant(np.asarray(x)) for x in inputs)
        return self.nodes.setdefault((operation, names, tuple(attributes.items())), f"v{len(self.nodes)}")

    def _constant(self, array: np.ndarray) -> str:
        key = array.dtype.str, array.shape, array.tobytes()
        return self.constants.setdefault(key, (f"c{len(self.constants)}", array))[0]

    def leading_to(self, outputs: Mapping[str, str]) -> tuple[list, list]:
        """The nodes and constants that these outputs, tensors by their new names, need."""
        nodes = [helper.make_node("Identity", [tensor], [name]) for name, tensor in outputs.items()]
        wanted = set(outputs.values())
        for (operation, names, attributes), name in reversed(self.nodes.items()):
            if name in wanted:
                wanted.update(names)
                nodes.insert(0, helper.make_node(operation, names, [name], **dict(attributes)))
        return nodes, [numpy_helper.from_array(a, name) for name, a in self.constants.values() if name in wanted]


def _evaluate(rule, graph, eqn, *values):
    """The output of an equation: an array where all values are, else a node, or what its rule makes of it."""
    if all(map(is_array, values)):
        return as_usual(eqn, *values)
    if rule is None:
        raise NotImplementedError(f"'{eqn.primitive.name}' is exported of constants alone")
    return graph.node(rule, *values) if isinstance(rule, str) else rule(graph, eqn, *values)


def _dot(graph, eqn, a, b):
    """a'B or a'B' at each spot, for a constant matrix B."""
    (((left,), (right,)), batch) = eqn.params["dimension_numbers"]
    if not (isinstance(a, str) and is_array(b) and b.ndim == 2 and left == 0 and not any(batch)):
        raise NotImplementedError(f"only products of a vector and a constant matrix are exported, got {eqn}")
    return graph.node("Gemm", a, b, transB=right)


def _log1p(graph, eqn, x):
    return graph.node("Log", graph.node("Add", x, np.ones((), eqn.outvars[0].aval.dtype)))


def _one_minus_square(graph, eqn, x):
    """(1 + x) (1 - x), as JAX computes it: in the derivative of tanh, from 0.12 on."""
    one = np.ones((), eqn.outvars[0].aval.dtype)
    return graph.node("Mul", graph.node("Add", one, x), graph.node("Sub", one, x))


# By JAX's name of a primitive: an operation of ONNX, or a function that makes nodes; None of constants alone.
RULES = {name: name.capitalize() for name in ("add", "sub", "mul", "div", "neg", "abs", "max", "exp", "tanh")} | {
    "add_any": "Add",
    "logistic": "Sigmoid",
    "eq": "Equal",
    "gt": "Greater",
    "ne": lambda graph, eqn, a, b: graph.node("Not", graph.node("Equal", a, b)),
    "select_n": lambda graph, eqn, which, if_false, if_true: graph.node("Where", which, if_true, if_false),
    "log1p": _log1p,
    "one_minus_square": _one_minus_square,
    "squeeze": lambda graph, eqn, x: graph.node("Squeeze", x, np.int64(eqn.params["dimensions"]) + 1),
    "dot_general": _dot,
    "broadcast_in_dim": None,
    "convert_element_type": None,
}
