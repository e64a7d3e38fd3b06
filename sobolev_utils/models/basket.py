"""The case study: a call on a basket of jointly Gaussian assets, with its closed form.

The assets follow the driftless Bachelier model dS = F dW with a constant matrix F. The basket B = w'S is then
Gaussian as well, with volatility |F'w|, and the price of the call is Bachelier's, whatever the number of assets.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

from sobolev_utils.arrays import ROUNDINGS, as_count, as_floats

__all__ = ["GaussianBasket"]


@dataclass(frozen=True, eq=False)
class GaussianBasket:
    """A call on the basket B = sum_i w_i S_i of Gaussian assets.

    With d = (B - K) / (sigma sqrt(tau)), tau = maturity - exposure (Bachelier 1900):

        V = sigma sqrt(tau) (d N(d) + n(d)),   dV/dS_i = N(d) w_i,   d2V/dB2 = n(d) / (sigma sqrt(tau))

    weights: (n_assets,), sum to 1; factor: (n_assets, n_assets), F of dS = F dW, so that F F' is the covariance
    per year; strike in units of the initial spot; exposure, the time at which the spots are seen, and maturity in
    years. Build it with `from_correlation` or `random`. Raises ValueError for weights, factor or times that make
    no sense.
    """

    weights: np.ndarray
    factor: np.ndarray
    strike: float = 1.10
    exposure: float = 1.0
    maturity: float = 2.0

    def __post_init__(self):
        weights, factor = np.asarray(self.weights, float), np.asarray(self.factor, float)
        contract = {name: float(getattr(self, name)) for name in ("strike", "exposure", "maturity")}
        for name, value in {"weights": weights, "factor": factor, **contract}.items():
            object.__setattr__(self, name, value)
        if weights.ndim != 1 or weights.size == 0 or not np.isfinite(weights).all():
            raise ValueError(f"weights must be a finite vector with an entry per asset, got {self.weights!r}")
        if not np.isclose(weights.sum(), 1):
            raise ValueError(f"weights must sum to 1, got a sum of {weights.sum():g}")
        square = (weights.size, weights.size)
        if factor.shape != square or not np.isfinite(factor).all():
            raise ValueError(f"factor must be a finite matrix of shape {square}, got shape {factor.shape}")
        if not np.isfinite(self.strike):
            raise ValueError(f"the strike must be finite, got {self.strike}")
        if not 0 <= self.exposure < self.maturity < np.inf:
            raise ValueError(
                f"times must obey 0 <= exposure < maturity, got {self.exposure} and {self.maturity} years"
            )
        largest = np.linalg.norm(abs(factor).T @ abs(weights))
        if not self.volatility > ROUNDINGS * np.finfo(float).eps * largest:
            raise ValueError(
                f"the basket has no volatility: weights {weights} lie in the kernel of the covariance, choose others"
            )

    @classmethod
    def from_correlation(cls, weights, correlation, volatilities, **contract) -> "GaussianBasket":
        """The basket with this correlation (n, n) and these volatilities (n,) per square root of a year.

        The weights are normalised to sum to 1. F is that square root of the covariance whose first Brownian motion
        alone drives the basket, dB = sigma dW_1: the law is the same as with the Cholesky factor, but the payoff then
        depends on the first, most even, coordinates of a Sobol sequence (the linear transformation of Imai & Tan
        2004). Raises ValueError where the shapes differ, the weights sum to zero, a volatility is not positive, or
        the correlation is not a positive definite matrix with a unit diagonal.
        """
        weights, correlation, volatilities = (np.asarray(a, float) for a in (weights, correlation, volatilities))
        n = weights.size
        if n < 1 or weights.shape != (n,):
            raise ValueError(f"a basket needs at least one asset and a vector of weights, got shape {weights.shape}")
        if volatilities.shape != (n,) or correlation.shape != (n, n):
            raise ValueError(
                f"{n} weights need volatilities of shape {(n,)} and a correlation of shape {(n, n)}, "
                f"got {volatilities.shape} and {correlation.shape}"
            )
        if not ((volatilities > 0) & np.isfinite(volatilities)).all():
            raise ValueError(f"volatilities must be positive, got {volatilities}")
        if not np.isfinite(weights).all():
            raise ValueError(f"weights must be finite, got {weights}")
        if not abs(weights.sum()) > 1e-12 * abs(weights).sum():
            raise ValueError(f"weights must not sum to zero, got {weights}")
        if not (np.allclose(np.diag(correlation), 1) and np.allclose(correlation, correlation.T)):
            raise ValueError(f"a correlation must be symmetric with a unit diagonal, got {correlation}")
        smallest = np.linalg.eigvalsh(correlation)[0]
        if not smallest > ROUNDINGS * n * np.finfo(float).eps:
            raise ValueError(
                f"the correlation must be positive definite, got a smallest eigenvalue of {smallest:.3g}: "
                "mix it with the identity"
            )
        weights = weights / weights.sum()
        return cls(weights, _turned(volatilities[:, None] * np.linalg.cholesky(correlation), weights), **contract)

    @classmethod
    def random(cls, seed: int, n_assets: int = 7, volatility: float = 0.2, **contract) -> "GaussianBasket":
        """A random basket of given volatility, drawn as in the paper's published code.

        The correlation is that of U'U with U ~ U(-1, 1) of shape (2n, n); weights are U(1, 10), normalised;
        volatilities are U(5, 50), scaled to the basket's. Raises ValueError for fewer than one asset or a
        volatility that is not positive.
        """
        n_assets = as_count(n_assets, name="n_assets")
        if not 0 < volatility < np.inf:
            raise ValueError(f"the basket's volatility must be positive, got {volatility}")
        rng = np.random.default_rng(seed)
        u = rng.uniform(-1, 1, (2 * n_assets, n_assets))
        covariance = u.T @ u
        scale = np.sqrt(np.diag(covariance))
        weights, volatilities = rng.uniform(1, 10, n_assets), rng.uniform(5, 50, n_assets)
        basket = cls.from_correlation(weights, covariance / np.outer(scale, scale), volatilities, **contract)
        return cls(basket.weights, basket.factor * (volatility / basket.volatility), **contract)

    @property
    def n_assets(self) -> int:
        return self.weights.size

    @property
    def volatility(self) -> float:
        """sigma = |F'w|, the basket's volatility per square root of a year."""
        return float(np.linalg.norm(self.factor.T @ self.weights))

    @property
    def deviation(self) -> float:
        """sigma sqrt(tau), the standard deviation of the basket between exposure and maturity."""
        return self.volatility * float(np.sqrt(self.maturity - self.exposure))

    @property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper spots (n_assets,) of the input box, 1 -+ a/2 with a = 1 + sqrt((n - 1)/12)/2.

        The box grows with n so that a uniform point still moves the basket: [0.323, 1.677] for n = 7.
        """
        half_widths = np.full(self.n_assets, 0.5 * (1 + 0.5 * np.sqrt((self.n_assets - 1) / 12)))
        return 1 - half_widths, 1 + half_widths

    def underlying(self, x: jax.Array) -> jax.Array:
        """B = w'S for spots (..., n_assets); shape (...). Raises ValueError for another number of assets."""
        x = as_floats(x, name="spots")
        if x.shape[-1:] != (self.n_assets,):
            raise ValueError(f"spots must have shape (..., {self.n_assets}), got {x.shape}")
        return x @ jnp.asarray(self.weights, x.dtype)

    def _d(self, x: jax.Array) -> jax.Array:
        return (self.underlying(x) - self.strike) / self.deviation

    def value(self, x: jax.Array) -> jax.Array:
        """Price of the call for spots (..., n_assets); shape (...), in units of the initial spot."""
        d = self._d(x)
        return self.deviation * (d * norm.cdf(d) + norm.pdf(d))

    def delta(self, x: jax.Array) -> jax.Array:
        """dV/dS_i, shape (..., n_assets)."""
        d = self._d(x)
        return norm.cdf(d)[..., None] * jnp.asarray(self.weights, d.dtype)

    def gamma(self, x: jax.Array) -> jax.Array:
        """d2V/dB2 = 1'H1 with H the Hessian in the spots, shape (...), per unit of spot."""
        return norm.pdf(self._d(x)) / self.deviation


def _turned(factor: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """F Q with Q orthogonal and (F Q)'w = |F'w| e_1: the reflection of F'w onto the first axis (Householder)."""
    u = factor.T @ weights
    first = np.eye(u.size)[0]
    sign = 1.0 if u[0] >= 0 else -1.0
    v = u + sign * np.linalg.norm(u) * first
    turned = factor - 2 * np.outer(factor @ v, v) / (v @ v)
    turned[:, 0] *= -sign
    return turned
