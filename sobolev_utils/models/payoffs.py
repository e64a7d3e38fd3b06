"""Payoffs and their smoothing.

A payoff maps the terminal underlying to money, elementwise. `digital` jumps, so its pathwise derivative is zero
almost everywhere and carries no information; `smooth_transition` mends that at the price of a small bias.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sobolev_utils.arrays import as_floats

__all__ = ["call", "digital", "smooth_call", "smooth_digital", "smooth_transition"]

Function = Callable[[jax.Array], jax.Array]


def call(s: jax.Array, strike: float) -> jax.Array:
    """European call, v(s) = max(s - K, 0), in units of the spot; any shape."""
    return jnp.maximum(_above(s, strike), 0)


def digital(s: jax.Array, strike: float) -> jax.Array:
    """Digital call, v(s) = 1 where s > K, else 0; any shape."""
    s = as_floats(s, name="spots")
    return jnp.where(s > as_floats(strike, s.dtype, name="the strike"), jnp.ones_like(s), 0)


def smooth_transition(before: Function, after: Function, position: float, width: float) -> Function:
    """The smooth passage from `before` to `after` at `position` over a distance of about `width`.

    f(x) = (1 - s) f1(x) + s f2(x),  s = 1 / (1 + exp(-(x - p) / w))    (Kichler et al. 2024)

    Raises ValueError where `width` is not positive.
    """
    if not width > 0:
        raise ValueError(f"the smoothing width must be positive, got {width}")

    def smooth(x: jax.Array) -> jax.Array:
        x = as_floats(x, name="spots")
        s = jax.nn.sigmoid((x - position) / width)
        return (1 - s) * before(x) + s * after(x)

    return smooth


def smooth_call(s: jax.Array, strike: float, width: float) -> jax.Array:
    """Smoothed call, (s - K) sigmoid((s - K) / w); SiLU at K = 0, w = 1. Any shape."""
    return smooth_transition(jnp.zeros_like, lambda x: x, 0, width)(_above(s, strike))


def smooth_digital(s: jax.Array, strike: float, width: float) -> jax.Array:
    """Smoothed digital, sigmoid((s - K) / w). Any shape."""
    return smooth_transition(jnp.zeros_like, jnp.ones_like, 0, width)(_above(s, strike))


def _above(s, strike) -> jax.Array:
    """s - K, in the floating-point type of s."""
    s = as_floats(s, name="spots")
    return s - as_floats(strike, s.dtype, name="the strike")
