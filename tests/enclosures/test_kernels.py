"""Kernels compute the same by NumPy and by XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sobolev_utils.enclosures import kernels

RNG = np.random.default_rng(0)


@kernels.kernel(static="power")
def scaled_power(xp, x, factor, *, power):
    return {"y": factor * xp.abs(x) ** power, "with": xp.asarray(xp is np)}


def test_numpy_computes_known_numbers_and_xla_what_is_traced():
    x = np.linspace(-1, 1, 5)
    known = scaled_power(jnp.asarray(x), 2.0, power=3)
    assert all(isinstance(y, np.ndarray) for y in known.values()) and known["with"]
    for transformed in (jax.jit, jax.vmap):
        traced = transformed(lambda x: scaled_power(x, 2.0, power=3))(x)
        assert not np.any(traced["with"])
        np.testing.assert_allclose(traced["y"], known["y"], rtol=1e-6)


def test_arithmetic_of_known_numbers_warns_of_nothing():
    with np.errstate(all="raise"):
        assert np.isinf(scaled_power(np.array([1e300]), 1e300, power=2)["y"]).all()


@pytest.mark.parametrize(
    "shapes, dimensions",
    [
        (((3,), (3,)), (((0,), (0,)), ((), ()))),
        (((4, 3), (3, 5)), (((1,), (0,)), ((), ()))),
        (((3, 4), (5, 3)), (((0,), (1,)), ((), ()))),
        (((2, 3), (4,)), (((), ()), ((), ()))),
        (((2, 4, 3), (3, 2, 5)), (((2,), (0,)), ((0,), (1,)))),
        (((6, 2, 4, 3), (3, 6, 4, 2)), (((2, 3), (2, 0)), ((0, 1), (1, 3)))),
        (((0, 3), (3, 2)), (((1,), (0,)), ((), ()))),
    ],
)
def test_products_are_those_of_lax(shapes, dimensions):
    x, y = (RNG.normal(size=shape) for shape in shapes)
    expected = lax.dot_general(x, y, dimensions)
    np.testing.assert_allclose(kernels.dot(x, y, dimensions), expected, atol=1e-5)
    several = [RNG.normal(size=(7, *z.shape)) for z in (x, y)]
    for many, in_axes in ((0, (0, None)), (1, (None, 0))):
        pair = [s if i == many else z for i, (s, z) in enumerate(zip(several, (x, y), strict=True))]
        expected = jax.vmap(lambda x, y: lax.dot_general(x, y, dimensions), in_axes)(*pair)
        for product in (kernels.dot, jax.jit(kernels.dot, static_argnums=(2, 3))):
            np.testing.assert_allclose(product(*pair, dimensions, many), expected, atol=1e-5)
