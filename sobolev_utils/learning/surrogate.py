"""The surrogate: a normalised multilayer perceptron with its derivatives."""

import functools
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sobolev_utils.arrays import as_count, as_floats, varies
from sobolev_utils.learning.hessian_products import checked_vectors

__all__ = ["ACTIVATIONS", "NORMALISATION", "Normalisation", "Surrogate"]

ACTIVATIONS = {
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "sigmoid": jax.nn.sigmoid,
    "relu": jax.nn.relu,
}
NORMALISATION = ("x_mean", "x_std", "y_mean", "y_std")


class Normalisation(nnx.Variable):
    """A mean or standard deviation of the data: kept with the model, never trained."""


def _compiled(method: Callable) -> Callable:
    """The method, compiled as a whole unless it is traced already: faster than one operation after another."""

    @functools.partial(jax.jit, static_argnums=0)
    def program(graph, state, arguments):
        return method(nnx.merge(graph, state), *arguments)

    @functools.wraps(method)
    def call(self, x, *others):
        arguments = as_floats(x, name="inputs"), *others
        graph, state = nnx.split(self)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((state, arguments))):
            return method(self, *arguments)
        return program(graph, state, arguments)

    return call


class Surrogate(nnx.Module):
    """A dense network R^n -> R, or R^m for m > 1 outputs, in normalised coordinates.

        f(x) = m_y + s_y g((x - m_x) / s_x),   g = W_L phi(... phi(W_0 u + b_0) ...) + b_L

    The means and deviations, 0 and 1 until `normalise` sets them, are scalars, or, of x, one for each input.
    Hidden layers, and nodes [n]_{l,i} in them, are counted from l = 1 as in the paper. `widths` may differ by layer.
    Raises ValueError for a count below 1 or an unknown activation.
    """

    def __init__(
        self, n_inputs: int, widths: Sequence[int], *, n_outputs: int = 1, activation: str = "silu", rngs: nnx.Rngs
    ):
        n_inputs, n_outputs = as_count(n_inputs, name="n_inputs"), as_count(n_outputs, name="n_outputs")
        widths = [as_count(width, name=f"the width of hidden layer {i}") for i, width in enumerate(widths, start=1)]
        if not widths:
            raise ValueError("a surrogate needs at least one hidden layer, got no widths")
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}, expected one of {sorted(ACTIVATIONS)}")
        sizes = [n_inputs, *widths, n_outputs]
        self.activation = activation
        self.layers = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairwise(sizes)])
        self.x_mean, self.x_std = Normalisation(jnp.zeros(())), Normalisation(jnp.ones(()))
        self.y_mean, self.y_std = Normalisation(jnp.zeros(())), Normalisation(jnp.ones(()))

    def normalise(self, x: jax.Array, y: jax.Array, *, by_input: bool = False) -> "Surrogate":
        """Set the means and standard deviations to those of inputs (n, n_inputs) and labels (n, ...); returns self.

        One for all inputs, as in the paper, or `by_input` one for each, (n_inputs,), as different units need. Raises
        ValueError for inputs or labels that vary by no more than their rounding, or are not finite.
        """
        x, y = as_floats(x, name="inputs"), as_floats(y, name="labels")
        if x.shape != (len(x), self.n_inputs) or y.shape[:1] != x.shape[:1] or not x.size:
            raise ValueError(f"need inputs (n, {self.n_inputs}) and labels (n, ...), got {x.shape} and {y.shape}")
        axis = 0 if by_input else None
        statistics = x.mean(axis), x.std(axis), y.mean(), y.std()
        got = f"got deviations of {statistics[1]} and {statistics[3]}"
        if not (varies(x, axis).all() and varies(y)):
            raise ValueError(f"inputs and labels must be finite and vary, {got}")
        finite = all(np.isfinite(value).all() for value in statistics)
        if not (finite and (statistics[1] > 0).all() and statistics[3] > 0):
            raise ValueError(
                f"inputs and labels must have means and deviations that {x.dtype} holds, {got}: choose other units"
            )
        for name, value in zip(NORMALISATION, statistics, strict=True):
            setattr(self, name, Normalisation(value))
        return self

    @property
    def n_inputs(self) -> int:
        return self.layers[0].in_features

    @property
    def n_outputs(self) -> int:
        return self.layers[-1].out_features

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of nodes in the hidden layers."""
        return tuple(layer.out_features for layer in self.layers)[:-1]

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases."""
        return sum(p.size for p in jax.tree.leaves(nnx.state(self, nnx.Param)))

    def nodes(
        self, x: jax.Array, change: Callable[[int, jax.Array], jax.Array] = lambda layer, values: values
    ) -> list[jax.Array]:
        """Values of [inputs, hidden layer 1, ..., output] for x (..., n_inputs); the output has shape (...),
        or (..., n_outputs) where there are several.

        All are computed in the floating-point type of x, whatever that of the weights. `change(layer, values)`
        replaces the values (..., width) of hidden layers 1, 2, ..., for instance to hold some of them constant.
        """
        x = as_floats(x, name="inputs")
        if x.shape[-1:] != (self.n_inputs,):
            raise ValueError(f"inputs must have shape (..., {self.n_inputs}), got {x.shape}")

        def at(variable):
            return variable[...].astype(x.dtype)

        phi = ACTIVATIONS[self.activation]
        values = [x]
        h = (x - at(self.x_mean)) / at(self.x_std)
        for i, layer in enumerate(self.layers):
            h = h @ at(layer.kernel) + at(layer.bias)
            if i < len(self.widths):
                h = change(i + 1, phi(h))
                values.append(h)
        y = h[..., 0] if self.n_outputs == 1 else h
        return [*values, at(self.y_mean) + at(self.y_std) * y]

    @_compiled
    def __call__(self, x: jax.Array) -> jax.Array:
        """f(x) for x (..., n_inputs); shape (...), or (..., n_outputs) where there are several.

        Raises ValueError for another number of inputs.
        """
        return self.nodes(x)[-1]

    @_compiled
    def value_and_delta(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """f(x), shape (...), and its gradient in the inputs, shape (..., n_inputs), in one reverse sweep.

        Raises ValueError where there are several outputs, and so no gradient.
        """
        if self.n_outputs > 1:
            raise ValueError(f"a gradient is of one output, got a surrogate with {self.n_outputs}: see value_and_vjp")
        y, pullback = jax.vjp(self, x)
        return y, *pullback(jnp.ones_like(y))

    def delta(self, x: jax.Array) -> jax.Array:
        """Gradient in the inputs, shape (..., n_inputs)."""
        return self.value_and_delta(x)[1]

    def value_and_vjp(self, x: jax.Array, cotangents: jax.Array) -> tuple[jax.Array, jax.Array]:
        """f(x), and u'J for each of k cotangents u, (n_samples, k, n_outputs), or (n_samples, k) of one output:
        (n_samples, k, n_inputs).

        A reverse sweep for each u. Raises ValueError for cotangents of another shape.
        """
        y, pullback = jax.vjp(self, as_floats(x, name="inputs"))
        cotangents = as_floats(cotangents, y.dtype, name="cotangents")
        if self.n_outputs == 1 and cotangents.ndim == 3 and cotangents.shape[2] == 1:
            cotangents = cotangents[..., 0]
        return y, *jax.vmap(pullback, in_axes=1, out_axes=1)(checked_vectors("cotangents", cotangents, y))

    def value_delta_and_hvp(self, x: jax.Array, directions: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """f(x), its gradient, and H v for each of k directions v; directions and H v are (n_samples, k, n_inputs).

        Forward over reverse: a tangent of the reverse sweep for each v. Raises ValueError for directions of another
        shape.
        """
        x = as_floats(x, name="inputs")
        directions = checked_vectors("directions", directions, x)
        (y, dydx), tangent = jax.linearize(self.value_and_delta, x)
        return y, dydx, jax.vmap(tangent, in_axes=1, out_axes=1)(directions)[1]

    @_compiled
    def hessian(self, x: jax.Array) -> jax.Array:
        """Second derivatives in the inputs, shape (..., n_inputs, n_inputs)."""
        return jnp.vectorize(jax.hessian(self), signature="(n)->(n,n)")(x)

    def gamma(self, x: jax.Array, direction: jax.Array | None = None) -> jax.Array:
        """v'Hv, the second derivative along a direction v (n_inputs,), shape (...).

        None is (1, ..., 1): d2V/dB2 of a basket whose weights sum to 1. Raises ValueError for another shape of v, and
        for None where inputs were normalised each by itself: second derivatives in different units have no sum.
        """
        x = as_floats(x, name="inputs")
        if direction is None and self.x_std[...].size > 1:
            raise ValueError("inputs with units of their own need a direction for gamma: give one entry per input")
        v = jnp.ones_like(x) if direction is None else as_floats(direction, x.dtype, name="the direction")
        if direction is not None and v.shape != (self.n_inputs,):
            raise ValueError(f"the direction must have shape {(self.n_inputs,)}, one per input, got {v.shape}")
        return self._second_derivative(x, v)

    @_compiled
    def _second_derivative(self, x, v):
        def along(f):
            return lambda x: jax.jvp(f, (x,), (jnp.broadcast_to(v, x.shape),))[1]

        return along(along(self))(x)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that defines the surrogate, by name: what `from_arrays` takes, fit to be saved."""
        named = {"activation": np.asarray(self.activation)}
        for i, layer in enumerate(self.layers):
            named |= {f"kernel_{i}": np.asarray(layer.kernel[...]), f"bias_{i}": np.asarray(layer.bias[...])}
        return named | {name: np.asarray(getattr(self, name)[...]) for name in NORMALISATION}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Surrogate":
        """The surrogate with these weights; hidden widths are read off the shapes of the biases.

        Raises ValueError where shapes do not fit each other.
        """
        arrays = {name: a if name == "activation" else as_floats(a, name=name) for name, a in arrays.items()}
        widths = [arrays[f"bias_{i}"].size for i in range(sum(name.startswith("bias_") for name in arrays))]
        options = {"n_outputs": widths[-1], "activation": str(arrays["activation"])}
        n_inputs = arrays["kernel_0"].shape[0]
        model = nnx.eval_shape(lambda: cls(n_inputs, widths[:-1], **options, rngs=nnx.Rngs(0)))
        for i, layer in enumerate(model.layers):
            for name in ("kernel", "bias"):
                if (array := arrays[f"{name}_{i}"]).shape != (shape := getattr(layer, name).shape):
                    raise ValueError(f"{name}_{i} must have shape {shape}, got {array.shape}")
                setattr(layer, name, nnx.Param(array))
        for name in NORMALISATION:
            if (array := arrays[name]).shape not in [(), (model.n_inputs,)][: 1 + name.startswith("x_")]:
                raise ValueError(f"{name} must be one number, or for inputs one each, got shape {array.shape}")
            setattr(model, name, Normalisation(array))
        return model
