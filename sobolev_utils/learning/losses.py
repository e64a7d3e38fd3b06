"""What training minimises: sums of squares of a surrogate's errors, in its normalised units.

A first-order optimiser sees a loss as a function (model, samples) -> scalar, Levenberg-Marquardt its residuals.
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

    Errors along several directions are averaged over them. Raises ValueError for samples that make no sense.
    """

    terms: Callable[[Surrogate, Samples], Sequence[Term]]

    def __call__(self, model: Surrogate, samples: Samples) -> jax.Array:
        """The mean over the samples, a scalar."""
        terms = self.terms(model, as_samples(samples))
        return jnp.mean(sum(weight * _squared(errors) for weight, _, errors in terms)) / _total(terms)

    def residuals(self, model: Surrogate, samples: Samples) -> jax.Array:
        """The same as residuals (n_samples, n): the loss is the mean over the samples of the sum of their squares."""
        terms = self.terms(model, as_samples(samples))
        scaled = []
        for weight, _, errors in terms:
            n_directions = errors.shape[1] if errors.ndim == 3 else 1
            scale = np.sqrt(weight / _total(terms) / n_directions)
            scaled.append(scale * errors.reshape(len(errors), -1))
        return jnp.concatenate(scaled, axis=1)


def _squared(errors):
    """Sums of squares by sample, (n_samples,); the mean over directions."""
    squares = jnp.square(errors)
    if squares.ndim > 1:
        squares = jnp.sum(squares, axis=-1)
    return jnp.mean(squares, axis=-1) if squares.ndim > 1 else squares


def _total(terms):
    return sum(weight * entries for weight, entries, _ in terms)


# Mean squared error of the values, E |y - f(x)|^2 / s_y^2. The derivatives are not looked at.
plain = SumOfSquares(lambda model, samples: [_values(model, samples, model(samples.x))])


def sobolev(weight: float = 1.0) -> SumOfSquares:
    """The first-order Sobolev loss with weight lambda on the derivatives.

        (E (y - f)^2 / s_y^2 + lambda sum_i E (dy/dx_i - df/dx_i)^2 s_x^2 / s_y^2) / (1 + lambda n)

    n is the number of inputs; the division balances the two as in the authors' code (Czarnecki et al. 2017; Kichler
    et al. 2024). Raises ValueError for a weight that is negative or not finite; the loss, for samples without dydx.
    """
    _check("derivatives", weight)

    def terms(model, samples):
        needs(samples, "dydx")
        y, dydx = model.value_and_delta(samples.x)
        return [_values(model, samples, y), _deltas(model, samples, dydx, weight)]

    return SumOfSquares(terms)


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
        needs(samples, "dydx", "directions", "hvp")
        if model.x_std[...].ndim:
            raise ValueError("the second-order loss needs one deviation of all inputs: normalise not by_input")
        y, dydx, hvp = model.value_delta_and_hvp(samples.x, samples.directions)
        scale = jnp.square(model.x_std[...]) / model.y_std[...]
        products = curvature, model.n_inputs**2, _error(samples, "hvp", hvp) * scale
        return [_values(model, samples, y), _deltas(model, samples, dydx, weight), products]

    return SumOfSquares(terms)


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
        needs(samples, "cotangents", "vjp")
        y, vjp = model.value_and_vjp(samples.x, samples.cotangents)
        entries = model.n_outputs * model.n_inputs
        products = weight, entries, _error(samples, "vjp", vjp) * (model.x_std[...] / model.y_std[...])
        return [_values(model, samples, y), products]

    return SumOfSquares(terms)


def needs(samples: Samples, *names: str) -> None:
    """Raise ValueError unless the samples have these."""
    missing = [name for name in names if getattr(samples, name, None) is None]
    if missing:
        had = [name for name, array in samples._asdict().items() if array is not None]
        raise ValueError(f"this loss needs samples with {', '.join(missing)}, got samples with {', '.join(had)}")


def _values(model, samples, y) -> Term:
    return 1.0, model.n_outputs, _error(samples, "y", y) / model.y_std[...]


def _deltas(model, samples, dydx, weight) -> Term:
    return weight, model.n_inputs, _error(samples, "dydx", dydx) * (model.x_std[...] / model.y_std[...])


def _error(samples, name, found) -> jax.Array:
    """What the samples say less what the surrogate does; of the same shape, where others might be broadcast."""
    if (wanted := getattr(samples, name)).shape != found.shape:
        raise ValueError(f"samples.{name} must have the shape of the surrogate's, {found.shape}, got {wanted.shape}")
    return wanted - found


def _check(what, weight):
    if not 0 <= weight < float("inf"):
        raise ValueError(f"the weight of the {what} must be finite and not negative, got {weight}")
