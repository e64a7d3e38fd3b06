"""Checks and conversions of the arguments of public functions, which accept whatever NumPy takes for numbers."""

import operator

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["as_count", "as_floats", "as_numbers", "varies"]

ROUNDINGS = 8  # numbers that differ by no more roundings than these count as equal


def as_floats(x, dtype=None, *, name: str = "values") -> jax.Array:
    """x as a floating-point array, in `dtype` or else its own, or where it has none, JAX's default.

    x: an array of JAX, traced or not, or of NumPy, a data frame, a number, or nested lists of numbers. Raises
    ValueError, with the `name`, for what is not real numbers.
    """
    x = as_numbers(x, name=name)
    if isinstance(x, np.ndarray) and (x.dtype.kind in "iub" or x.dtype.itemsize > 8 or not x.dtype.isnative):
        x = x.astype(dtype or float)  # JAX would wrap integers around, and has no such floating-point types
    x = jnp.asarray(x)
    if dtype is None and jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return x.astype(jnp.result_type(x, float) if dtype is None else dtype)


def as_numbers(x, *, name: str = "values") -> jax.Array | np.ndarray:
    """x as an array of JAX, if any of it is one, or else of NumPy. Raises ValueError as `as_floats` does."""
    try:
        if np.ma.is_masked(x):
            raise TypeError("some of its entries are masked")
        of_jax = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(x))
        x = jnp.asarray(x) if of_jax else np.asarray(x)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of real numbers, got {type(x).__name__}: {error}") from None
    if not any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise ValueError(f"{name} must be real numbers, got an array of {x.dtype}")
    return x


def as_count(n, *, name: str, least: int = 1) -> int:
    """n as an int. Raises ValueError, with the `name`, for what is not whole, or is below `least`."""
    try:
        count = operator.index(n)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, got {n!r}") from None
    if count < least:
        raise ValueError(f"{name} must be at least {least}, got {count}")
    return count


def varies(x, axis: int | None = None) -> np.ndarray:
    """Whether the entries of a floating-point array differ along an axis by more than some roundings.

    The range is exact, while rounding gives a constant array a standard deviation: 7e-9 for 10,000 times 0.05. False
    where an entry is not finite.
    """
    x = np.asarray(x)
    with np.errstate(invalid="ignore"):
        return np.ptp(x, axis) > ROUNDINGS * jnp.finfo(x.dtype).eps * abs(x).max(axis)
