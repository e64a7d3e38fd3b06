"""What training minimises: functions of a surrogate and a batch of samples, in the surrogate's normalised units."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sobolev_utils.network import Surrogate
from sobolev_utils.simulation import Samples

__all__ = ["Loss", "plain", "sobolev"]

Loss = Callable[[Surrogate, Samples], jax.Array]


def plain(model: Surrogate, samples: Samples) -> jax.Array:
    """Mean squared error of the values, E (y - f(x))^2 / s_y^2; a scalar. The derivatives are not looked at."""
    return jnp.mean(jnp.square((samples.y - model(samples.x)) / model.y_std[...]))


def sobolev(weight: float = 1.0) -> Loss:
    """The first-order Sobolev loss with weight lambda on the derivatives; a function (model, samples) -> scalar.

        (E (y - f)^2 / s_y^2 + lambda sum_i E (dy/dx_i - df/dx_i)^2 s_x^2 / s_y^2) / (1 + lambda n)

    n is the number of inputs; the division balances the two as in the authors' code (Czarnecki et al. 2017; Kichler
    et al. 2024). Raises ValueError for a weight that is negative or not finite.
    """
    if not 0 <= weight < float("inf"):
        raise ValueError(f"the weight of the derivatives must be finite and not negative, got {weight}")

    def loss(model: Surrogate, samples: Samples) -> jax.Array:
        y, dydx = model.value_and_delta(samples.x)
        values = jnp.square((samples.y - y) / model.y_std[...])
        scale = model.x_std[...] / model.y_std[...]
        derivatives = jnp.sum(jnp.square((samples.dydx - dydx) * scale), axis=-1)
        return jnp.mean(values + weight * derivatives) / (1 + weight * model.n_inputs)

    return loss
