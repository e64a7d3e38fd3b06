"""Ranges and affine enclosures of functions of one variable, against dense samples of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax import lax
from jax.scipy.stats import norm
from verify.case import slope

from sobolev_utils.enclosures import zonotopes
from sobolev_utils.enclosures.elementwise import VARIABLE, Program
from sobolev_utils.enclosures.intervals import box, enclose
from sobolev_utils.enclosures.ranges import affine_enclosure

FUNCTIONS = {
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu by tanh": jax.nn.gelu,
    "elu": jax.nn.elu,
    "mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "density": lambda x: x * jnp.exp(-x * x),
    "polynomial": lambda x: x**2 - 0.25 * x**4,
    "-|x|": lambda x: -jnp.abs(x),
    "bump": lambda x: jnp.minimum(jnp.maximum(x, 0), 1) - jnp.maximum(x - 3, 0),
    "jump": lambda x: jnp.where(x > 1, x - 5, x) + 0 * x,
    "mask": lambda x: (x > 0) * (x - 5),
    "constant": lambda x: 0 * x + 3,
}
BOXES = [(-5, 5), (-1, 2), (-3, -2.5), (0.5, 0.75), (2, 4), (-1.5, -1.1), (1, 3)]
LOWER, UPPER = np.transpose(BOXES)


def sampled(f, n=20_001):
    x = LOWER + np.linspace(0, 1, n)[:, None] * (UPPER - LOWER)
    return x, np.asarray(jax.jit(f)(x))


CASES = {name: (f, 2e-4) for name, f in FUNCTIONS.items()} | {
    f"{name}'": (slope(FUNCTIONS[name]), 2e-4)
    for name in ("silu", "softplus", "tanh", "sigmoid", "gelu", "mish", "density")
}


@pytest.mark.parametrize("name", CASES)
def test_the_range_is_exact(name):
    f, slack = CASES[name]
    y, (_, points) = jax.jit(enclose(f))(box(LOWER, UPPER)), sampled(f)
    assert y.contains(points).all()
    low, high = points.min(axis=0), points.max(axis=0)
    slack = slack * (high - low) + 1e-12  # samples miss an extremum, and the value beside a jump
    exact = LOWER >= -2.6 if name == "gelu by tanh" else LOWER > -np.inf  # farther out its derivative cancels
    assert np.all((low - slack <= y.lower)[exact]) and np.all((y.upper <= high + slack)[exact])


def test_a_program_counts_as_one_operation_wherever_it_starts():
    x, g = box([-2.0], [3.0]), box([-1.0], [2.0])
    y = enclose(lambda x, g: jax.vjp(jax.nn.silu, x)[1](g)[0])(x, g)
    steepest = float(enclose(slope(jax.nn.silu))(x).upper[0])
    np.testing.assert_allclose([y.lower[0], y.upper[0]], [-steepest, 2 * steepest], rtol=1e-12)
    assert enclose(lambda x: (x + 1) * (x - 1))(x).lower[0] > -1.0001


def test_a_point_has_a_thin_range():
    x = np.concatenate([np.linspace(-40, 40, 801), [1e-300, -1e-30, 1e4, -1e4]])
    for name in ("silu", "gelu", "tanh", "sigmoid", "softplus"):
        for f in (FUNCTIONS[name], slope(FUNCTIONS[name])):
            y = jax.jit(enclose(f))(box(x, x))
            scale = np.maximum(np.abs(jax.jit(f)(x)), 1e-10 * np.maximum(1, np.abs(x)))
            assert np.all(y.width <= 1e-12 * np.maximum(1, np.abs(x)) * np.maximum(scale, 1)), name


@functools.cache
def affine(name):
    """The affine enclosure of a function over all boxes, compiled once."""
    program = Program(name, FUNCTIONS[name], (VARIABLE,))
    return jax.jit(lambda x: affine_enclosure(program, x)[:2])(box(LOWER, UPPER))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_affine_enclosures_hold(name):
    f = FUNCTIONS[name]
    chord, rest = affine(name)
    x, points = sampled(f)
    residual = points - chord * x
    slack = 1e-12 * (1 + np.abs(points))
    assert np.all(rest.lower <= residual + slack) and np.all(residual - slack <= rest.upper)


@pytest.mark.parametrize(
    "name, factor", {"silu": 2, "relu": 1, "gelu": 2, "polynomial": 2, "-|x|": 1, "softplus": 4}.items()
)
def test_affine_enclosures_are_nearly_the_best_for_their_slope(name, factor):
    f = FUNCTIONS[name]
    chord, rest = affine(name)
    x, points = sampled(f)
    least = np.ptp(points - chord * x, axis=0)
    assert np.all(rest.width <= 1.001 * factor * least + 1e-9)


def test_infinite_and_undefined_parts_do_no_harm():
    x = box([-1.0, 0.0, -4.0], [1.0, 1.0, -2.0])
    for f in (lambda x: jnp.log(x) + x, lambda x: jnp.sqrt(x) - x, lambda x: 1 / x + x, lambda x: lax.rsqrt(x) * x):
        y = jax.jit(enclose(f))(x)
        assert not np.isnan(y.lower).any() and not np.isnan(y.upper).any()
        points = np.linspace(0.01, 1, 100)
        assert np.all((y.lower[1] <= f(points)) & (f(points) <= y.upper[1]))


@pytest.mark.parametrize("method", [enclose, zonotopes.enclose])
def test_pieces_that_meet_at_a_kink_are_told_apart(method):
    """JAX's normal distribution has three pieces, and its derivative masks them; both are smooth where they meet."""
    slope = jax.vmap(jax.grad(lambda d: d * norm.cdf(d) + norm.pdf(d)))
    for kink in (-1.0, 0.0, 1.0):
        y = method(slope)(box([kink - 1e-4], [kink + 1e-4]))
        np.testing.assert_allclose([*y.lower, *y.upper], scipy.stats.norm.cdf(kink), atol=1e-4)


def test_numbers_computed_from_numbers_are_part_of_a_program():
    def f(x):
        return jnp.exp(x) * jnp.sqrt(2.0 * jnp.square(3.0)) - x * jnp.sqrt(2.0 * jnp.square(3.0))

    y = enclose(f)(box([-0.1], [0.1]))
    assert y.lower[0] <= 18**0.5 <= y.lower[0] + 1e-12
