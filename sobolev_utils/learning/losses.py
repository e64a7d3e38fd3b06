"""What training minimises: sums of squares of a surrogate's errors, in its normalised units.

A first-order optimiser takes a loss as a function (model, samples) -> scalar, Levenberg-Marquardt its residuals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.models.samples import Samples, as_samples

__all__ = ["Loss", "SumOfSquares", "plain", "sampled_sobolev", "second_order", "sobolev"]

Loss = Callable[[Surrogate, Samples], jax.Array]
# A weight, the number of entries that the errors stand for, and errors (n_samples,), (n_samples, d) or, along each
# of k directions, (n_samples, k, d).
Term = tuple[float, int, jax.Array]


@dataclass(frozen=True)
class SumOfSquares:
    """The loss E sum_t w_t |r_t|^2 / sum_t w_t d_t over terms t with weights w, errors r and numbers of entries d.

    Errors along several directions are averaged over them. needs: the derivatives that samples must have. Raises
    ValueError for samples without them, or of shapes that do not fit.
    """

    terms: Callable[[Surrogate, Samples], Sequence[Term]]
    needs: tuple[str, ...] = ()

    def __call__(self, model: Surrogate, samples: Samples) -> jax.Array:
        """The mean over the samples, a scalar."""
        terms, total = self._checked_terms(model, samples)
        return jnp.mean(sum(weight * _squared(errors) for weight, _, errors in terms)) / total

    def residuals(self, model: Surrogate, samples: Samples) -> jax.Array:
        """Residuals (n_samples, n): the loss is the mean over the samples of the sum of their squares."""
        terms, total = self._checked_terms(model, samples)
        scaled = []
        for weight, _, errors in terms:
            n_directions = errors.shape[1] if errors.ndim == 3 else 1
            scaled.append(np.sqrt(weight / total / n_directions) * errors.reshape(len(errors), -1))
        return jnp.concatenate(scaled, axis=1)

    def _checked_terms(self, model, samples):
        samples = as_samples(samples)
        given = [name for name, array in samples._asdict().items() if array is not None]
        if missing := ", ".join(name for name in self.needs if name not in given):
            raise ValueError(f"this loss needs samples with {missing}, got samples with {', '.join(given)}")
        terms = self.terms(model, samples)
        return terms, sum(weight * entries for weight, entries, _ in terms)


def _squared(errors):
    """Sums of squares by sample, (n_samples,); the mean over directions."""
    squares = jnp.square(errors)
    if squares.ndim > 1:
        squares = jnp.sum(squares, axis=-1)
    return jnp.mean(squares, axis=-1) if squares.ndim > 1 else squares


# Mean squared error of the values, E |y - f(x)|^2 / s_y^2; derivatives do not enter.
plain = SumOfSquares(lambda model, samples: [_values(model, samples, model(samples.x))])


def sobolev(weight: float = 1.0) -> SumOfSquares:
    """The first-order Sobolev loss with weight lambda on the derivatives.

        (E (y - f)^2 / s_y^2 + lambda sum_i E (dy/dx_i - df/dx_i)^2 s_x^2 / s_y^2) / (1 + lambda n)

    n is the number of inputs; the division balances the two as in the authors' code (Czarnecki et al. 2017; Kichler
    et al. 2024). Raises ValueError for a weight that is negative or not finite; the loss, for samples without dydx.
    """
    _check("derivatives", weight)

    def terms(model, samples):
        y, dydx = model.value_and_delta(samples.x)
        return [_values(model, samples, y), _deltas(model, samples, dydx, weight)]

    return SumOfSquares(terms, ("dydx",))


def second_order(weight: float = 1.0, curvature: float = 1.0) -> SumOfSquares:
    """The second-order Sobolev loss: `sobolev`, and Hessian-vector products along directions v, with weight mu.

        ( ... + mu E |H_y v - H_f v|^2 s_x^4 / s_y^2) / (1 + lambda n + mu n^2)

    Where E v v' = I the expectation over v is |H_y - H_f|^2, entry by entry (Frobenius), and no Hessian is formed;
    the samples bring directions (n_samples, k, n) and products hvp of the same shape (see `hessian_products`). Raises
    ValueError for a weight that is negative or not finite; the loss, for samples without dydx, directions or hvp and
    for a model normalised by input: H v is scaled from one side only.
    """
    _check("derivatives", weight)
    _check("second derivatives", curvature)

    def terms(model, samples):
        if model.x_std[...].ndim:
            raise ValueError("the second-order loss needs one deviation of all inputs: normalise not by_input")
        y, dydx, hvp = model.value_delta_and_hvp(samples.x, samples.directions)
        scale = jnp.square(model.x_std[...]) / model.y_std[...]
        products = curvature, model.n_inputs**2, _error(samples, "hvp", hvp) * scale
        return [_values(model, samples, y), _deltas(model, samples, dydx, weight), products]

    return SumOfSquares(terms, ("dydx", "directions", "hvp"))


def sampled_sobolev(weight: float = 1.0) -> SumOfSquares:
    """The Sobolev loss of a surrogate with m outputs, by vector-Jacobian products along cotangents u of its outputs.

        (E |y - f|^2 / s_y^2 + lambda E |u' J_y - u' J_f|^2 s_x^2 / s_y^2) / (m + lambda m n)

    Where E u u' = I the expectation over u is |J_y - J_f|^2, entry by entry, at the price of a reverse sweep for
    each u, however many outputs there are (Czarnecki et al. 2017); u = sqrt(m) e_1 ... sqrt(m) e_m give it without
    chance. The samples bring cotangents (n_samples, k, m) and products vjp (n_samples, k, n). Raises ValueError as
    `sobolev` does, the loss for samples without cotangents or vjp.
    """
    _check("derivatives", weight)

    def terms(model, samples):
        y, vjp = model.value_and_vjp(samples.x, samples.cotangents)
        entries = model.n_outputs * model.n_inputs
        products = weight, entries, _error(samples, "vjp", vjp) * (model.x_std[...] / model.y_std[...])
        return [_values(model, samples, y), products]

    return SumOfSquares(terms, ("cotangents", "vjp"))


def _values(model, samples, y) -> Term:
    return 1.0, model.n_outputs, _error(samples, "y", y) / model.y_std[...]


def _deltas(model, samples, dydx, weight) -> Term:
    return weight, model.n_inputs, _error(samples, "dydx", dydx) * (model.x_std[...] / model.y_std[...])


def _error(samples, name, found) -> jax.Array:
    """The samples' less the surrogate's; raises ValueError for shapes that differ, which would be broadcast."""
    if (wanted := getattr(samples, name)).shape != found.shape:
        raise ValueError(f"samples.{name} must have the shape of the surrogate's, {found.shape}, got {wanted.shape}")
    return wanted - found


def _check(what, weight):
    if not 0 <= weight < float("inf"):
        raise ValueError(f"the weight of the {what} must be finite and not negative, got {weight}")
