"""Which parts of a program count as one function of one variable."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sobolev_utils.chains import VARIABLE, Program
from sobolev_utils.intervals import INTERVAL_RULES, Interval, box, extension

X = np.linspace(-3, 3, 61)


def programs(f, *arguments):
    """The programs that are gathered from f, and the intervals it gives."""
    gathered = []

    def univariate(program, x):
        gathered.append(program)
        return INTERVAL_RULES["univariate"](program, x)

    y = extension(f, lambda: (lambda x: x, INTERVAL_RULES | {"univariate": univariate}))(*arguments)
    return gathered, y


@pytest.mark.parametrize("activation", [jax.nn.silu, jax.nn.gelu, jax.nn.elu, jax.nn.relu, jnp.tanh])
def test_an_activation_and_its_derivative_are_one_program_each(activation):
    def f(x, g):
        y, pullback = jax.vjp(activation, x)
        return y, pullback(g)[0]

    (value, slope), _ = programs(f, box(X, X + 0.1), box(X - 1, X))
    np.testing.assert_allclose(value(X), activation(X), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(slope(X), jax.vmap(jax.grad(activation))(X), rtol=1e-9, atol=1e-12)


def test_a_product_of_two_variables_may_start_from_either():
    x, g = box(X, X + 0.1), box(X - 1, X)
    for product in (lambda x, g: 2 * (g * x) * jnp.tanh(x), lambda x, g: 2 * (x * g) * jnp.tanh(x)):
        (program,), _ = programs(product, x, g)
        np.testing.assert_allclose(program(X), 2 * X * np.tanh(X), rtol=1e-12)


def test_different_variables_are_not_merged():
    gathered, _ = programs(lambda x, y: jnp.exp(x) + jnp.tanh(y), box(X, X), box(X, X))
    assert len(gathered) == 2
    gathered, y = programs(lambda x, y: x + y, box([0.0], [1.0]), box([2.0], [3.0]))
    assert not gathered and y.lower <= 2 and y.upper >= 4
    # the sum of a scaled chain and another
    gathered, y = programs(lambda x, y: jnp.tanh(x) * y + jnp.exp(x), box([0.0], [1.0]), box([2.0], [3.0]))
    assert y.lower <= 1 and y.upper >= np.tanh(1) * 3 + np.e


def test_a_shared_part_is_computed_once():
    def f(x):
        for _ in range(10):
            x = x * x - 0.5 * x
        return x

    (program,), _ = programs(f, box(X[:3] / 9, X[:3] / 9))
    assert len(jax.make_jaxpr(program)(X).eqns) < 60
    np.testing.assert_allclose(program(X / 9), f(X / 9))


def test_the_form_tells_what_is_affine():
    (affine,), _ = programs(lambda x: -(2 * x - 1) / 4 + 3, box(X, X))
    (square,), _ = programs(lambda x: x * x + 1, box(X, X))
    (inverse,), _ = programs(lambda x: 1 / x + 1, box(X + 9, X + 9))
    assert affine.is_affine and not square.is_affine and not inverse.is_affine
    assert not affine.is_multiple and VARIABLE.is_multiple
    assert Program("div", jnp.divide, (VARIABLE, np.float64(2))).is_multiple
    assert not Program("div", jnp.divide, (np.float64(2), VARIABLE)).is_multiple


def test_a_boolean_program_stays_a_comparison():
    y = programs(lambda x: 2 * x > 1, box([0.0, 1.0, -1.0], [0.1, 2.0, 1.0]))[1]
    assert isinstance(y, Interval) and y.lower.tolist() == [False, True, False]
    assert y.upper.tolist() == [False, True, True]
