"""Sample paths of an SDE, and least-squares Monte Carlo samples with pathwise derivatives.

A reference model is anything with `sample(key, n) -> Samples`; nothing above this module knows more of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from sobolev_utils.basket import GaussianBasket

__all__ = [
    "POINTS",
    "LeastSquaresMonteCarlo",
    "Samples",
    "euler_maruyama",
    "exact_bachelier",
    "normal_points",
]

POINTS = ("sobol", "pseudo_random")


class Samples(NamedTuple):
    """Inputs x (n_samples, n_inputs), labels y (n_samples,), derivatives dydx (n_samples, n_inputs)."""

    x: jax.Array
    y: jax.Array
    dydx: jax.Array


def euler_maruyama(drift: Callable, diffusion: Callable, s0, times, increments) -> jax.Array:
    """Paths of dS = a(S, t) dt + b(S, t) dW by S_{k+1} = S_k + a dt_k + b dW_k (Euler-Maruyama).

    drift(s, t) has the shape of s, diffusion(s, t) the shape of s or broadcasts against it; s0 (n_paths,) or
    broadcasting to it; times (n_steps + 1,) in years; increments dW (n_steps, n_paths), Gaussian of variance dt.
    Returns (n_steps + 1, n_paths). Raises ValueError where times do not increase or do not match the increments.
    """
    times = _checked_times(times, increments)

    def step(s, inputs):
        t, dt, dw = inputs
        s = s + drift(s, t) * dt + diffusion(s, t) * dw
        return s, s

    s0 = jnp.broadcast_to(jnp.asarray(s0, increments.dtype), increments.shape[1:])
    grid = jnp.asarray(times, increments.dtype)
    _, path = jax.lax.scan(step, s0, (grid[:-1], jnp.diff(grid), increments))
    return jnp.concatenate([s0[None], path])


def exact_bachelier(mu: float, sigma: float, s0, times, increments) -> jax.Array:
    """Paths of dS = mu S dt + sigma dW with the exact law at each time; arguments as for `euler_maruyama`.

    S_{k+1} = e^{mu dt} S_k + sigma sqrt((e^{2 mu dt} - 1) / (2 mu dt)) dW_k, an Ornstein-Uhlenbeck step: the noise
    is scaled to the variance of the integral of e^{mu (t - s)} dW_s. At mu = 0 it is S_k + sigma dW_k.
    """
    times = _checked_times(times, increments)
    if not sigma >= 0:
        raise ValueError(f"the volatility must not be negative, got {sigma}")
    growth = 2 * mu * np.diff(times)
    noise = sigma * np.sqrt(np.where(growth == 0, 1.0, np.expm1(growth) / np.where(growth == 0, 1.0, growth)))

    def step(s, inputs):
        factor, scale, dw = inputs
        s = factor * s + scale * dw
        return s, s

    s0 = jnp.broadcast_to(jnp.asarray(s0, increments.dtype), increments.shape[1:])
    inputs = (jnp.asarray(np.exp(growth / 2), s0.dtype), jnp.asarray(noise, s0.dtype), increments)
    _, path = jax.lax.scan(step, s0, inputs)
    return jnp.concatenate([s0[None], path])


def _checked_times(times, increments) -> np.ndarray:
    times = np.asarray(times, float)
    increasing = times.ndim == 1 and times.size and 0 <= times[0] <= times[-1] < np.inf and (np.diff(times) > 0).all()
    if not increasing:
        raise ValueError(f"times must increase from 0 or later, got {times}")
    if increments.shape[:1] != (times.size - 1,):
        raise ValueError(f"{times.size} times need {times.size - 1} increments, got shape {increments.shape}")
    return times


def normal_points(key: jax.Array, n: int, dimension: int, points: str = "sobol") -> jax.Array:
    """n standard normal points of shape (n, dimension), pseudo-random or from a scrambled Sobol sequence.

    The Sobol points (Joe & Kuo's direction numbers) get a random digital shift, an exclusive-or with random bits
    drawn from `key`, which makes each point uniform and keeps the net's balance (L'Ecuyer & Lemieux 2002); so they
    can be drawn afresh within a compiled program. Raises ValueError for an unknown kind or a count below 1.
    """
    if points not in POINTS:
        raise ValueError(f"unknown kind of points {points!r}, expected one of {POINTS}")
    if n < 1 or dimension < 1:
        raise ValueError(f"need at least one point and one dimension, got n = {n}, dimension = {dimension}")
    if points == "pseudo_random":
        return jax.random.normal(key, (n, dimension))
    net = jnp.asarray(_sobol_integers(n, dimension)) ^ jax.random.bits(key, (dimension,), jnp.uint32)
    dtype = jnp.zeros(()).dtype
    # 23 bits and a half: the largest uniform is 1 - 2^-24, so that the normal quantile is finite in float32
    uniform = ((net >> 9).astype(dtype) + 0.5) * 2**-23
    return jax.scipy.special.ndtri(uniform)


def _sobol_integers(n: int, dimension: int) -> np.ndarray:
    engine = qmc.Sobol(dimension, scramble=False, bits=32)
    return (engine.random_base2(max(n - 1, 0).bit_length())[:n] * 2.0**32).astype(np.uint32)


@dataclass(frozen=True)
class LeastSquaresMonteCarlo:
    """Single-path samples of a basket option: spots at exposure, payoffs at maturity, pathwise derivatives.

    Spots x = 1 + m F z sqrt(T1), with m the `spread` that fills the wings; payoffs y = v(w'(x + p)) with
    p = F z' sqrt(T2 - T1), or, `antithetic`, y = (v(w'(x + p)) + v(w'(x - p))) / 2; dydx by jax.vjp for fixed p.
    The labels are never averaged prices: the regression does the averaging (Longstaff & Schwartz 2001).

    payoff(s, strike) maps arrays elementwise. points: "sobol" or "pseudo_random". Raises ValueError for other points
    or a negative spread.
    """

    basket: GaussianBasket
    payoff: Callable[[jax.Array, float], jax.Array]
    points: str = "sobol"
    antithetic: bool = True
    spread: float = 1.5

    def __post_init__(self):
        if self.points not in POINTS:
            raise ValueError(f"unknown kind of points {self.points!r}, expected one of {POINTS}")
        if not 0 <= self.spread < np.inf:
            raise ValueError(f"the spread must be finite and not negative, got {self.spread}")

    def sample(self, key: jax.Array, n: int) -> Samples:
        """n samples from `key`; shapes as in `Samples`. Traceable. Raises ValueError as `normal_points` does."""
        basket, n_assets = self.basket, self.basket.n_assets
        z = normal_points(key, n, 2 * n_assets, self.points)
        factor = jnp.asarray(basket.factor, z.dtype)
        # Coordinates alternate, so that spot and path of the first Brownian motion get the first two, most even ones.
        x = 1 + self.spread * basket.exposure**0.5 * z[:, 0::2] @ factor.T
        p = (basket.maturity - basket.exposure) ** 0.5 * z[:, 1::2] @ factor.T
        y, pullback = jax.vjp(partial(self._label, p=p), x)
        return Samples(x, y, *pullback(jnp.ones_like(y)))

    def _label(self, x: jax.Array, p: jax.Array) -> jax.Array:
        up = self.payoff(self.basket.underlying(x + p), self.basket.strike)
        if not self.antithetic:
            return up
        return (up + self.payoff(self.basket.underlying(x - p), self.basket.strike)) / 2
