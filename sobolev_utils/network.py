"""The surrogate: a normalised multilayer perceptron with its derivatives."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

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
        if n_inputs < 1 or not widths or min(widths) < 1 or n_outputs < 1:
            raise ValueError(
                "need at least one input, one hidden layer and one node in each, and one output, "
                f"got {n_inputs}, {tuple(widths)} and {n_outputs}"
            )
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}, expected one of {sorted(ACTIVATIONS)}")
        sizes = [n_inputs, *widths, n_outputs]
        self.activation = activation
        self.layers = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairwise(sizes)])
        self.x_mean, self.x_std = Normalisation(jnp.zeros(())), Normalisation(jnp.ones(()))
        self.y_mean, self.y_std = Normalisation(jnp.zeros(())), Normalisation(jnp.ones(()))

    def normalise(self, x: jax.Array, y: jax.Array, *, by_input: bool = False) -> "Surrogate":
        """Takes means and standard deviations from inputs (n, n_inputs) and labels (n, ...); returns self.

        One for all inputs, as in the paper, or `by_input` one for each, (n_inputs,), as different units need. Raises
        ValueError for inputs or labels that do not vary, or are not finite.
        """
        axis = 0 if by_input else None
        statistics = [jnp.asarray(s) for s in (x.mean(axis), x.std(axis), y.mean(), y.std())]
        if not all(jnp.all((0 < s) & (s < jnp.inf)) for s in statistics[1::2]):
            raise ValueError(
                f"inputs and labels must be finite and vary, got deviations of {statistics[1]} and {statistics[3]}"
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

        All are computed in the floating-point type of x, whatever that of the weights. `change(layer, values)` takes
        the place of the values (..., width) of hidden layer 1, 2, ...: to add to them, or to hold some constant.
        """
        if x.shape[-1:] != (self.n_inputs,):
            raise ValueError(f"inputs must have shape (..., {self.n_inputs}), got {x.shape}")
        x = x.astype(jnp.result_type(x, float))

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

    def __call__(self, x: jax.Array) -> jax.Array:
        """f(x) for x (..., n_inputs); shape (...), or (..., n_outputs) where there are several.

        Raises ValueError for another number of inputs.
        """
        return self.nodes(x)[-1]

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
        """f(x), and u'J for each of k cotangents u, (n_samples, k, n_outputs), of the outputs: (n_samples, k,
        n_inputs).

        A reverse sweep for each u.
        """
        y, pullback = jax.vjp(self, x)
        return y, *jax.vmap(pullback, in_axes=1, out_axes=1)(cotangents.reshape(*cotangents.shape[:2], *y.shape[1:]))

    def value_delta_and_hvp(self, x: jax.Array, directions: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """f(x), its gradient, and H v for each of k directions v, (n_samples, k, n_inputs): a shape that H v has too.

        Forward over reverse: a tangent of the reverse sweep for each v.
        """
        (y, dydx), tangent = jax.linearize(self.value_and_delta, x)
        return y, dydx, jax.vmap(tangent, in_axes=1, out_axes=1)(directions)[1]

    def hessian(self, x: jax.Array) -> jax.Array:
        """Second derivatives in the inputs, shape (..., n_inputs, n_inputs)."""
        return jnp.vectorize(jax.hessian(self), signature="(n)->(n,n)")(x)

    def gamma(self, x: jax.Array, direction: jax.Array | None = None) -> jax.Array:
        """v'Hv, the second derivative along a direction v (n_inputs,), shape (...).

        None is (1, ..., 1): d2V/dB2 of a basket whose weights sum to 1. Raises ValueError for another shape of v.
        """
        v = jnp.ones_like(x) if direction is None else jnp.asarray(direction, x.dtype)
        if direction is not None and v.shape != (self.n_inputs,):
            raise ValueError(f"the direction must have shape {(self.n_inputs,)}, one per input, got {v.shape}")

        def along(f):
            return lambda x: jax.jvp(f, (x,), (jnp.broadcast_to(v, x.shape),))[1]

        return along(along(self))(x)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that defines the surrogate, by name: what `from_arrays` takes, fit to be saved."""
        named = {"activation": np.asarray(self.activation)}
        for i, layer in enumerate(self.layers):
            named[f"kernel_{i}"], named[f"bias_{i}"] = (
                np.asarray(layer.kernel[...]),
                np.asarray(layer.bias[...]),
            )
        return named | {name: np.asarray(getattr(self, name)[...]) for name in NORMALISATION}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Surrogate":
        """The surrogate with these weights; hidden widths are read off the shapes of the biases."""
        widths = [arrays[f"bias_{i}"].size for i in range(sum(name.startswith("bias_") for name in arrays))]
        activation = str(arrays["activation"])
        # the shapes are all that is needed of what is overwritten
        model = nnx.eval_shape(
            lambda: cls(
                arrays["kernel_0"].shape[0],
                widths[:-1],
                n_outputs=widths[-1],
                activation=activation,
                rngs=nnx.Rngs(0),
            )
        )
        for i, layer in enumerate(model.layers):
            layer.kernel, layer.bias = (nnx.Param(jnp.asarray(arrays[f"{name}_{i}"])) for name in ("kernel", "bias"))
        for name in NORMALISATION:
            setattr(model, name, Normalisation(jnp.asarray(arrays[name])))
        return model
