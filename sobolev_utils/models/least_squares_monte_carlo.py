"""Least-squares Monte Carlo samples of a basket option, with pathwise derivatives.

A *path* gives one payoff. A *label* is what a surrogate is fitted to: a payoff, or, antithetic, the mean of two.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sobolev_utils.arrays import as_floats
from sobolev_utils.models.basket import GaussianBasket
from sobolev_utils.models.points import POINTS, normal_points
from sobolev_utils.models.samples import Samples

__all__ = ["LeastSquaresMonteCarlo"]


def _check_shape(name: str, values: object, x: jax.Array) -> None:
    if np.shape(values) != x.shape[:-1]:
        raise ValueError(f"the {name} must give one number for each row of x, {x.shape[:-1]}, got {np.shape(values)}")


@dataclass(frozen=True)
class LeastSquaresMonteCarlo:
    """Samples of a basket option: spots at exposure, payoffs at maturity, pathwise derivatives.

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
        x = as_floats(x, name="spots")
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

        Each is a payoff, or, antithetic, the mean of those of x + p and x - p. Raises ValueError for arrays of other
        shapes, those of the payoff and the control included.
        """
        x = as_floats(x, name="spots")
        self.basket.underlying(x)  # which refuses another number of assets
        p = as_floats(p, x.dtype, name="increments")
        if p.shape != x.shape:
            raise ValueError(f"increments must have shape {x.shape}, one row for each label, got {p.shape}")
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

    @property
    def _tau(self) -> float:
        return self.basket.maturity - self.basket.exposure
