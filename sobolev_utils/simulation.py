"""Sample paths of an SDE, and least-squares Monte Carlo samples with pathwise derivatives.

A reference model is anything with `sample(key, n) -> Samples`; nothing above this module knows more of it.

A *path* is one payoff. A *label* is what a sample learns from: a payoff, or, antithetic, the mean of two.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from sobolev_utils.arrays import as_count, as_floats
from sobolev_utils.basket import GaussianBasket
from sobolev_utils.samples import CurvedSamples, Samples, StripSamples

__all__ = [
    "POINTS",
    "CurvedSamples",
    "LeastSquaresMonteCarlo",
    "Samples",
    "StripSamples",
    "euler_maruyama",
    "exact_bachelier",
    "normal_points",
]

POINTS = ("sobol", "pseudo_random")


def euler_maruyama(drift: Callable, diffusion: Callable, s0, times, increments) -> jax.Array:
    """Paths of dS = a(S, t) dt + b(S, t) dW by S_{k+1} = S_k + a dt_k + b dW_k (Euler-Maruyama).

    drift(s, t) has the shape of s, diffusion(s, t) the shape of s or broadcasts against it; s0 (n_paths, ...) or
    broadcasting to it; times (n_steps + 1,) in years; increments dW (n_steps, n_paths, ...), Gaussian of variance dt:
    systems have a trailing axis. Returns (n_steps + 1, n_paths, ...), in the type of the increments. Raises
    ValueError where times do not increase or do not match the increments.
    """
    increments = as_floats(increments, name="increments")
    times = _checked_times(times, increments)

    def step(s, inputs):
        t, dt, dw = inputs
        s = s + drift(s, t) * dt + diffusion(s, t) * dw
        return s, s

    s0 = _start(s0, increments)
    grid = jnp.asarray(times, increments.dtype)
    _, path = jax.lax.scan(step, s0, (grid[:-1], jnp.diff(grid), increments))
    return jnp.concatenate([s0[None], path])


def exact_bachelier(mu: float, sigma: float, s0, times, increments) -> jax.Array:
    """Paths of dS = mu S dt + sigma dW with the exact law at each time; arguments as for `euler_maruyama`.

    S_{k+1} = e^{mu dt} S_k + sigma sqrt((e^{2 mu dt} - 1) / (2 mu dt)) dW_k, an Ornstein-Uhlenbeck step: the noise
    is scaled to the variance of the integral of e^{mu (t - s)} dW_s. At mu = 0 it is S_k + sigma dW_k.
    """
    increments = as_floats(increments, name="increments")
    times = _checked_times(times, increments)
    mu, sigma = float(mu), float(sigma)
    if not sigma >= 0:
        raise ValueError(f"the volatility must not be negative, got {sigma}")
    growth = 2 * mu * np.diff(times)
    noise = sigma * np.sqrt(np.where(growth == 0, 1.0, np.expm1(growth) / np.where(growth == 0, 1.0, growth)))

    def step(s, inputs):
        factor, scale, dw = inputs
        s = factor * s + scale * dw
        return s, s

    s0 = _start(s0, increments)
    inputs = (jnp.asarray(np.exp(growth / 2), s0.dtype), jnp.asarray(noise, s0.dtype), increments)
    _, path = jax.lax.scan(step, s0, inputs)
    return jnp.concatenate([s0[None], path])


def _start(s0, increments) -> jax.Array:
    return jnp.broadcast_to(as_floats(s0, increments.dtype, name="the start"), increments.shape[1:])


def _checked_times(times, increments) -> np.ndarray:
    times = np.asarray(times, float)
    increasing = times.ndim == 1 and times.size and 0 <= times[0] <= times[-1] < np.inf and (np.diff(times) > 0).all()
    if not increasing:
        raise ValueError(f"times must increase from 0 or later, got {times}")
    if increments.shape[:1] != (times.size - 1,):
        raise ValueError(f"{times.size} times need {times.size - 1} increments, got shape {increments.shape}")
    return times


def normal_points(key: jax.Array, n: int, dimension: int, points: str = "sobol") -> jax.Array:
    """n standard normal points of shape (n, dimension), pseudo-random or from a digitally shifted Sobol sequence.

    The Sobol points (Joe & Kuo's direction numbers) get a random digital shift, an exclusive-or of all of them with
    the same random bits drawn from `key`, which makes each point uniform and keeps the net's balance (L'Ecuyer &
    Lemieux 2002); so they can be drawn afresh within a compiled program. The points of one key depend on each other,
    those of two keys do not. Raises ValueError for an unknown kind or a count below 1.
    """
    if points not in POINTS:
        raise ValueError(f"unknown kind of points {points!r}, expected one of {POINTS}")
    n, dimension = as_count(n, name="the number of points"), as_count(dimension, name="the dimension")
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


def _check_shape(name: str, values: object, x: jax.Array) -> None:
    if np.shape(values) != x.shape[:-1]:
        raise ValueError(f"the {name} must give one number for each row of x, {x.shape[:-1]}, got {np.shape(values)}")


@dataclass(frozen=True)
class LeastSquaresMonteCarlo:
    """Samples of a basket option: spots at exposure, labels of one or two payoffs at maturity, pathwise derivatives.

    Spots x = 1 + m F z sqrt(T1), with m the `spread` that fills the wings; payoffs y = v(w'(x + p)) with
    p = F z' sqrt(T2 - T1), or, `antithetic`, y = (v(w'(x + p)) + v(w'(x - p))) / 2; dydx by jax.vjp for fixed p.
    The labels are never averaged prices: the regression does the averaging (Longstaff & Schwartz 2001).

    payoff(s, strike) maps arrays elementwise. points: "sobol" or "pseudo_random". control: a function (..., n) ->
    (...) close to the price, such as a surrogate from a first fit; labels then are y - C with the control variate

        C = grad V(x)'p + (p'H(x)p - tr F'H(x)F tau) / 2,   E C = 0,   tau = T2 - T1

    of its delta and its Hessian H (in an antithetic pair the first term cancels): it varies less, its mean and that
    of dydx are the same. Raises ValueError for other points or a negative spread.
    """

    basket: GaussianBasket
    payoff: Callable[[jax.Array, float], jax.Array]
    points: str = "sobol"
    antithetic: bool = True
    spread: float = 1.5
    control: Callable[[jax.Array], jax.Array] | None = None

    def __post_init__(self):
        if self.points not in POINTS:
            raise ValueError(f"unknown kind of points {self.points!r}, expected one of {POINTS}")
        if not 0 <= self.spread < np.inf:
            raise ValueError(f"the spread must be finite and not negative, got {self.spread}")

    def sample(self, key: jax.Array, n: int) -> Samples:
        """n samples from `key`: x, y and dydx. Traceable. Raises ValueError as `normal_points` does."""
        return self.labelled(*self.paths(key, n))

    def labelled(self, x: jax.Array, p: jax.Array) -> Samples:
        """Labels at given spots x, (n, n_assets), and their derivatives for fixed increments p, (n, n_assets)."""
        x = self._vectors(x, "spots")
        y, pullback = jax.vjp(partial(self.label, p=p), x)
        return Samples(x, y, *pullback(jnp.ones_like(y)))

    def paths(self, key: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
        """Spots x at exposure, and increments p from then to maturity, of n labels: (n, n_assets) each."""
        z = normal_points(key, n, 2 * self.basket.n_assets, self.points)
        factor = jnp.asarray(self.basket.factor, z.dtype)
        # Coordinates alternate, so that spot and path of the first Brownian motion get the first two, most even ones.
        x = 1 + self.spread * self.basket.exposure**0.5 * z[:, 0::2] @ factor.T
        return x, self._tau**0.5 * z[:, 1::2] @ factor.T

    def label(self, x: jax.Array, p: jax.Array) -> jax.Array:
        """The labels (n,) at x for increments p, (n, n_assets), as a function of x to be differentiated.

        A payoff each, or, antithetic, the mean of those of x + p and x - p. Raises ValueError for arrays of other
        shapes, the payoff's and the control's among them.
        """
        x = self._vectors(x, "spots")
        p = self._vectors(p, "increments", x)
        paths = (p, -p) if self.antithetic else (p,)
        payoffs = [self.payoff(self.basket.underlying(x + p), self.basket.strike) for p in paths]
        _check_shape("payoff", payoffs[0], x)
        y = sum(payoffs) / len(paths)
        return y if self.control is None else y - self._control_variate(x, p)

    def _control_variate(self, x: jax.Array, p: jax.Array) -> jax.Array:
        def along(f, v):
            return lambda x: jax.jvp(f, (x,), (jnp.broadcast_to(v, x.shape),))[1]

        def curvature(v):
            return along(along(self.control, v), v)(x)

        _check_shape("control", jax.eval_shape(self.control, x), x)
        factor = jnp.asarray(self.basket.factor, x.dtype)
        square = (curvature(p) - self._tau * jax.vmap(curvature)(factor.T).sum(axis=0)) / 2
        return square if self.antithetic else square + along(self.control, p)(x)

    def _vectors(self, x: jax.Array, name: str, like: jax.Array | None = None) -> jax.Array:
        x = as_floats(x, None if like is None else like.dtype, name=name)
        expected = (*x.shape[:-1], self.basket.n_assets) if like is None else like.shape
        if x.shape != expected:
            raise ValueError(f"{name} must have shape {expected}, one row for each label, got {x.shape}")
        return x

    @property
    def _tau(self) -> float:
        return self.basket.maturity - self.basket.exposure
