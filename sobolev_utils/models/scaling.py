"""Bachelier's symmetries: one surrogate, trained for one strike and one volatility, serves all others exactly."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp

from sobolev_utils.arrays import as_floats
from sobolev_utils.models.basket import GaussianBasket

__all__ = ["equivalent", "moved", "sensitivities", "transported"]


def moved(basket: GaussianBasket, strike: float, volatility: float) -> GaussianBasket:
    """The basket with this strike, and all its volatilities scaled alike until its own is `volatility`.

    Raises ValueError for a volatility that is not positive.
    """
    _check(volatility)
    return replace(basket, strike=strike, factor=basket.factor * (volatility / basket.volatility))


def equivalent(basket: GaussianBasket, strike: float, volatility: float, spots: jax.Array) -> jax.Array:
    """Where the basket's own call has the moneyness that one of `moved` has at these spots, both (..., n_assets).

    With K and sigma the basket's own, s' = K + (s - strike) sigma / volatility, for each asset. Raises ValueError for
    a volatility that is not positive.
    """
    _check(volatility)
    return basket.strike + (as_floats(spots, name="spots") - strike) * (basket.volatility / volatility)


def transported(price: Callable, basket: GaussianBasket, strike: float, volatility: float) -> Callable:
    """The price of the call of `moved`, from a `price` of the basket's own, both spots (..., n_assets) to (...).

    Bachelier's price stays when spots and strike shift together, and scales with spots, strike and volatility:

        V(s; strike, volatility) = c V(s'; K, sigma),   c = volatility / sigma,   s' of `equivalent`.

    Raises ValueError for a volatility that is not positive.
    """
    _check(volatility)
    scale = volatility / basket.volatility
    return lambda spots: scale * price(equivalent(basket, strike, volatility, spots))


def sensitivities(price: Callable, spots: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Price (...), delta (..., n_assets) and gamma 1'H1 (...) at spots (..., n_assets), by AD."""

    def along(f):
        return lambda x: jax.jvp(f, (x,), (jnp.ones_like(x),))[1]

    spots = as_floats(spots, name="spots")
    value, pullback = jax.vjp(price, spots)
    return value, *pullback(jnp.ones_like(value)), along(along(price))(spots)


def _check(volatility) -> None:
    if not isinstance(volatility, jax.core.Tracer) and not 0 < volatility < float("inf"):
        raise ValueError(f"the volatility must be positive and finite, got {volatility}")
