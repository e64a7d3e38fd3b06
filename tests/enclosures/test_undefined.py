"""Comparisons of what may be nan stay undecided: each value that a program has anywhere in the box is enclosed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from verify import METHODS

from sobolev_utils.enclosures import intervals
from sobolev_utils.enclosures.interval import bounds
from sobolev_utils.enclosures.intervals import box

PARTIAL = {
    "sqrt": jnp.sqrt,
    "log": jnp.log,
    "rsqrt": lax.rsqrt,
    "log1p": lambda x: jnp.log1p(2 * x),
    "x / x": lambda x: x / x,
    "negative power": lambda x: x**-2 - x**-2,
    "real power": lambda x: x**0.5,
    "power of two": lambda x: x ** (x + 2),
    "infinite constant": lambda x: x * jnp.inf,
    "infinite case": lambda x: jnp.where(x > 0, x, jnp.inf) * 0,
    "larger than any": lambda x: jnp.maximum(x, jnp.inf) * 0,
    "inf - inf": lambda x: (x + jnp.inf) - (x + jnp.inf),
    "nan case": lambda x: jnp.where(x > 0, x, jnp.nan),
    "chosen nan": lambda x: jnp.where(np.arange(4) > 2, x, jnp.nan),
    "constant": lambda x: jnp.sqrt(-jnp.ones(4)) + x,
    "zero of zeros": lambda x: x * (jnp.zeros(4) / jnp.zeros(4)),
    "clamp": lambda x: lax.clamp(jnp.inf, x, jnp.inf) * 0,
    "filled in": lambda x: jnp.take(x, jnp.array([0, 7, 1, 9]), mode="fill"),
    "filled with inf": lambda x: jnp.take(x, jnp.array([0, 7, 1, 9]), mode="fill", fill_value=jnp.inf) * 0,
    "overflow on the way": lambda x: jnp.tanh(jnp.array([[1e300, -1e300]] * 4) @ (1e10 * x[:2])),
    "of its kind": lambda x: jnp.tanh(jnp.sqrt(x)) + 1,
    "moved": lambda x: jnp.sqrt(x)[::-1],
    "summed": lambda x: jnp.sqrt(x[:, None] * jnp.ones(2)).sum(axis=-1),
    "mixed": lambda x: jnp.diag(jnp.ones(4)) @ jnp.sqrt(x),
}
COMPARED = {
    "nan_to_num": jnp.nan_to_num,
    "fmax": lambda y: jnp.fmax(y, -5),
    "isnan": lambda y: jnp.where(jnp.isnan(y), 1.0, 2.0),
    "isfinite": lambda y: jnp.where(jnp.isfinite(y), 1.0, 2.0),
    "gt": lambda y: jnp.where(y > -7, 1.0, 2.0),
    "lt": lambda y: jnp.where(y < -7, 1.0, 2.0),
    "ne": lambda y: jnp.where(y != -7, 1.0, 2.0),
    "mask": lambda y: y >= y,
}


def of_each(x):
    return {name: COMPARED["gt"](f(x)) for name, f in PARTIAL.items()}


def all_compared(x):
    mixed = {name: COMPARED["gt"](PARTIAL[name](x)) for name in ("moved", "summed", "mixed", "constant", "filled in")}
    return mixed | {name: compared(jnp.sqrt(x)) for name, compared in COMPARED.items()}


@pytest.mark.parametrize(
    "programs, enclose",
    [
        (of_each, partial(intervals.enclose, exact_ranges=False)),
        *((all_compared, method) for method in METHODS.values()),
    ],
    ids=["operations", *METHODS],
)
def test_comparisons_of_what_may_be_nan_stay_undecided(programs, enclose):
    enclosures = jax.jit(enclose(programs))(box([-1.0] * 4, [1.0] * 4))
    x = np.random.default_rng(0).uniform(-1, 1, (500, 4))
    x[:3] = [[0.0] * 4, [-1.0] * 4, [1.0] * 4]
    values = jax.jit(jax.vmap(programs))(x)
    for name, y in enclosures.items():
        lower, upper = bounds(y)
        v = np.asarray(values[name])
        assert np.all(np.isnan(v) | (lower <= v) & (v <= upper)), name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_what_is_factored_out_may_be_infinite(method, sign):
    """g x - g is no number where g is infinite, which g (x - 1) is where x is not 1; so is p + p q, and p (1 + q)."""

    def f(u, x):
        g, p = (-jnp.log(u))[0], jnp.log(u[0])
        return jnp.where(sign * (g * x + sign * g) >= -9, 1.0, 2.0), jnp.where(p + p * u[0] <= 1, 1.0, 2.0)

    enclosed = jax.jit(METHODS[method](f))(box([0.0], [1.0]), box(0.0, 3.0))
    for u in (0.0, 0.5, 1.0):
        for x in (0.0, 2.0, 3.0):
            for y, value in zip(enclosed, f(jnp.array([u]), x), strict=True):
                assert y.lower <= value <= y.upper


def test_what_is_nan_far_out_leaves_the_range_nearby_tight():
    y = jax.jit(intervals.enclose(lambda x: jnp.maximum(jax.nn.silu(2 * x), -1.0)))(box(-1.0, 1.0))
    assert -0.2785 < y.lower < -0.278 and y.upper < 1.762


@pytest.mark.parametrize("method", METHODS)
def test_comparisons_of_numbers_are_decided(method):
    def decided(x):
        y = jnp.sqrt(x)
        return {
            "sqrt": y >= 0,
            "log": jnp.isfinite(jnp.log(y)),
            "reciprocal": ~jnp.isnan(1 / (y - 1)),
            "square": ~jnp.isnan((1 / (y - 1)) ** 2),
            "power": y**-1.5 > 0,
            "masked": jnp.where(np.array([True, False]), x, -jnp.inf).max() > 0,
            "norm": jnp.sqrt((x**2).sum()) >= 0,
            "taken": x[jnp.array([1, 0])] > 0,
        }

    for name, mask in jax.jit(METHODS[method](decided))(box([0.5, 0.5], [2.0, 2.0])).items():
        assert np.all(bounds(mask)[0]) and np.all(bounds(mask)[1]), name


@pytest.mark.parametrize("method", METHODS)
def test_a_traced_constant_may_be_infinite_or_nan(method):
    def f(x, c):
        return jnp.isnan(x * c), jnp.isnan(x + c), x + c

    enclosed = jax.jit(METHODS[method](f))
    for c in (0.0, 1.0, jnp.inf, jnp.nan):
        for y, values in zip(
            enclosed(box(-1.0, 1.0), c), zip(*(f(x, c) for x in (-1.0, 0.0, 1.0)), strict=True), strict=True
        ):
            lower, upper = bounds(y)
            assert all(jnp.isnan(v) | ((lower <= v) & (v <= upper)) for v in values), c


def test_zonotopes_keep_their_symbols_where_all_are_numbers():
    """Softplus has a logarithm that stays inside of its domain, which is known only when it runs."""
    w = np.random.default_rng(0).normal(size=(3, 2, 2))

    def f(x):
        for kernel in w:
            x = jax.nn.softplus(kernel @ x)
        return x

    x = box([-0.2, -0.2], [0.2, 0.2])
    natural, affine = (jax.jit(METHODS[method](f))(x).width for method in ("intervals", "zonotopes"))
    assert np.all(affine < 0.9 * natural) and np.any(affine < 0.5 * natural)


@pytest.mark.parametrize("method", METHODS)
def test_an_element_that_may_be_nan_leaves_the_others_decided(method):
    def f(x):
        return jnp.where(jnp.sqrt(x) + 1 > 0, 1.0, 2.0)

    y = METHODS[method](f)(box([-1.0, 1.0], [1.0, 2.0]))
    assert list(y.lower) == [1, 1] and list(y.upper) == [2, 1]
    for mixed in (lambda y: y[::-1], lambda y: jnp.array([[1.0, 1.0], [0.0, 1.0]]) @ y):
        compared = METHODS[method](lambda x, mixed=mixed: jnp.where(mixed(jnp.sqrt(x)) > -9, 1.0, 2.0))
        y = compared(box([-1.0, 1.0], [1.0, 2.0]))
        assert list(y.lower) == [1, 1] and list(y.upper) == [2, 2]
