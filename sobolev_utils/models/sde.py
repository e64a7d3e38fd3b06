"""Paths of stochastic differential equations on a grid of times, from given Brownian increments."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sobolev_utils.arrays import as_floats

__all__ = ["euler_maruyama", "exact_bachelier"]


def euler_maruyama(drift: Callable, diffusion: Callable, s0, times, increments) -> jax.Array:
    """Paths of dS = a(S, t) dt + b(S, t) dW by S_{k+1} = S_k + a dt_k + b dW_k (Euler-Maruyama).

    drift(s, t) has the shape of s, diffusion(s, t) the shape of s or broadcasts against it; s0 (n_paths, ...) or
    broadcasting to it; times (n_steps + 1,) in years; increments dW (n_steps, n_paths, ...), Gaussian of variance dt:
    systems have a trailing axis. Returns (n_steps + 1, n_paths, ...), in the type of the increments. Raises
    ValueError where times do not increase or do not match the increments.
    """
    times, increments = _checked(times, increments)
    grid = jnp.asarray(times, increments.dtype)

    def step(s, t, dt, dw):
        return s + drift(s, t) * dt + diffusion(s, t) * dw

    return _path(step, s0, grid[:-1], jnp.diff(grid), increments)


def exact_bachelier(mu: float, sigma: float, s0, times, increments) -> jax.Array:
    """Paths of dS = mu S dt + sigma dW with the exact law at each time; arguments as for `euler_maruyama`.

    S_{k+1} = e^{mu dt} S_k + sigma sqrt((e^{2 mu dt} - 1) / (2 mu dt)) dW_k, an Ornstein-Uhlenbeck step: the noise
    is scaled to the variance of the integral of e^{mu (t - s)} dW_s. At mu = 0 it is S_k + sigma dW_k.
    """
    times, increments = _checked(times, increments)
    mu, sigma = float(mu), float(sigma)
    if not sigma >= 0:
        raise ValueError(f"the volatility must not be negative, got {sigma}")
    growth = 2 * mu * np.diff(times)
    noise = sigma * np.sqrt(np.where(growth == 0, 1.0, np.expm1(growth) / np.where(growth == 0, 1.0, growth)))
    factors, scales = (jnp.asarray(a, increments.dtype) for a in (np.exp(growth / 2), noise))
    return _path(lambda s, factor, scale, dw: factor * s + scale * dw, s0, factors, scales, increments)


def _path(step: Callable, s0, *inputs: jax.Array) -> jax.Array:
    """The states s0, s1, ... with s_{k+1} = step(s_k, *row k of each input); the last input are the increments."""
    increments = inputs[-1]
    s0 = jnp.broadcast_to(as_floats(s0, increments.dtype, name="the start"), increments.shape[1:])

    def scanned(s, row):
        s = step(s, *row)
        return s, s

    _, path = jax.lax.scan(scanned, s0, inputs)
    return jnp.concatenate([s0[None], path])


def _checked(times, increments) -> tuple[np.ndarray, jax.Array]:
    times, increments = np.asarray(times, float), as_floats(increments, name="increments")
    increasing = times.ndim == 1 and times.size and 0 <= times[0] <= times[-1] < np.inf and (np.diff(times) > 0).all()
    if not increasing:
        raise ValueError(f"times must increase from 0 or later, got {times}")
    if increments.shape[:1] != (times.size - 1,):
        raise ValueError(f"{times.size} times need {times.size - 1} increments, got shape {increments.shape}")
    return times, increments
