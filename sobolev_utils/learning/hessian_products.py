"""Directions v for Hessian-vector products, and the products: second derivatives without a Hessian.

For random v with E v v' = I, E (H v) v' = H and E |H v|^2 = |H|^2 (Frobenius). Of fixed directions those along which
gradients vary most are the most informative. The same holds for cotangents u, E u u' = I, of a Jacobian's outputs.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sobolev_utils.arrays import as_count, as_floats
from sobolev_utils.models.samples import CurvedSamples, Samples, as_samples

__all__ = ["all_directions", "hvp", "principal_directions", "random_directions", "with_hvp"]


def random_directions(key: jax.Array, n_samples: int, k: int, n: int) -> jax.Array:
    """k random directions (n_samples, k, n) for each sample, of independent signs +-1, so that E v v' = I.

    Of all such laws with independent entries, signs make E |H v|^2 vary least (Hutchinson 1989). Raises ValueError
    for a count below 1.
    """
    names = ("the number of samples", "the number of directions", "the number of inputs")
    shape = tuple(as_count(count, name=name) for count, name in zip((n_samples, k, n), names, strict=True))
    return jax.random.rademacher(key, shape, jnp.zeros(()).dtype)


def principal_directions(gradients: jax.Array, k: int) -> jax.Array:
    """The k leading principal components of gradients (n_samples, n), times sqrt(k): (k, n), for every sample.

    They are the eigenvectors of E g g' of largest eigenvalue (PCA about zero). So scaled, the mean over them of
    |H v|^2 is the part of |H|^2 in their span; for k = n it is |H|^2. Raises ValueError unless 1 <= k <= n.
    """
    gradients = as_floats(gradients, name="gradients")
    n, k = gradients.shape[-1], as_count(k, name="the number of principal components", least=0)
    if not 1 <= k <= n:
        raise ValueError(f"the number of principal components must be between 1 and {n}, got {k}")
    _, vectors = jnp.linalg.eigh(gradients.T @ gradients / len(gradients))
    return k**0.5 * vectors[:, ::-1][:, :k].T


def all_directions(n: int) -> jax.Array:
    """sqrt(n) e_1, ..., sqrt(n) e_n, (n, n): the mean over them of |H v|^2 is |H|^2, without chance."""
    n = as_count(n, name="the number of inputs")
    return n**0.5 * jnp.eye(n)


def hvp(f: Callable[[jax.Array], jax.Array], x: jax.Array, directions: jax.Array) -> jax.Array:
    """H v, (n_samples, k, n), for f: (n_samples, n) -> (n_samples,) sample by sample, x and directions v.

    Forward over reverse, a tangent of the reverse sweep for each direction (Pearlmutter 1994). In the type of x.
    Raises ValueError for directions of another shape.
    """
    x = as_floats(x, name="inputs")
    directions = checked_vectors("directions", directions, x)
    if x.ndim != 2:
        raise ValueError(f"inputs must have shape (n_samples, n), got {x.shape}")

    def gradient(x):
        y, pullback = jax.vjp(f, x)
        return pullback(jnp.ones_like(y))[0]

    _, tangent = jax.linearize(gradient, x)
    return jax.vmap(tangent, in_axes=1, out_axes=1)(directions)


def checked_vectors(name: str, vectors: jax.Array, like: jax.Array) -> jax.Array:
    """k vectors for each row of `like`, (n_samples, ...), as an array (n_samples, k, ...) of its type.

    Raises ValueError for another shape.
    """
    vectors = as_floats(vectors, like.dtype, name=name)
    shape = vectors.shape
    if len(shape) < 2 or shape[:1] + shape[2:] != like.shape or shape[1] == 0:
        expected = ", ".join(map(str, (*like.shape[:1], "k", *like.shape[1:])))
        raise ValueError(f"{name} must have shape ({expected}), got {shape}")
    return vectors


def with_hvp(samples: Samples, f: Callable[[jax.Array], jax.Array], directions: jax.Array) -> CurvedSamples:
    """The samples with the Hessian-vector products of f along directions, (n_samples, k, n) or (k, n) for all.

    Raises ValueError for directions of another shape.
    """
    samples = as_samples(samples)
    directions = as_floats(directions, samples.x.dtype, name="directions")
    if directions.ndim == 2:
        directions = jnp.broadcast_to(directions, (len(samples.x), *directions.shape))
    return CurvedSamples(*samples, directions, hvp(f, samples.x, directions))
