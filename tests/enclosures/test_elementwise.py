"""Which parts of a program count as one function of one variable."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sobolev_utils.enclosures import intervals, zonotopes
from sobolev_utils.enclosures.chains import LARGEST
from sobolev_utils.enclosures.elementwise import VARIABLE, Program, as_usual
from sobolev_utils.enclosures.intervals import INTERVAL_RULES, Interval, box, extension
from sobolev_utils.enclosures.jaxpr import walk

X = np.linspace(-3, 3, 61)
Z = np.random.default_rng(0).normal(size=30)


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


class Point:
    """An element of the domain of single numbers, in which a walk has to give what JAX gives."""

    def __init__(self, value):
        self.value = self.lower = self.upper = value
        self.shape, self.dtype = value.shape, value.dtype


def of_points(f, sizes=None):
    """f by the walker, with its chains, in the domain of points; `sizes` gets those of the programs gathered."""
    sizes = [] if sizes is None else sizes

    def rule(eqn, *values):
        values = [v.value if isinstance(v, Point) else v for v in values]
        return [Point(as_usual(eqn, *values) if eqn else jnp.multiply(*values))]

    def univariate(program, x):
        sizes.append(len(program.operations))
        return Point(program(x.value))

    rules = dict.fromkeys(INTERVAL_RULES, rule) | {"univariate": univariate}

    def walked(*arguments):
        closed = jax.make_jaxpr(f)(*arguments)
        (y,) = walk(closed.jaxpr, closed.consts, list(map(Point, arguments)), rules)
        return y.value

    return walked


UNARY = [
    jnp.negative,
    jnp.exp,
    jnp.tanh,
    jax.nn.sigmoid,
    jnp.square,
    lambda x: 2 * x,
    lambda x: x / 3,
    lambda x: 2 / x,
]
BINARY = [
    jnp.add,
    jnp.subtract,
    jnp.multiply,
    jnp.divide,
    jnp.maximum,
    lambda a, b: jnp.where(a > 1.07 * b, a * b, 0),
]


@pytest.mark.parametrize("seed", range(120))
def test_a_program_of_several_variables_stays_what_it_is(seed):
    """Random sums, products and quotients of few variables: the chains gathered on the way compute the same."""

    def f(*values):
        rng, values = np.random.default_rng(seed), list(values)

        def recent(n):
            return (values[i] for i in rng.integers(max(len(values) - 4, 0), len(values), size=n))

        for _ in range(rng.integers(3, 12)):
            if rng.random() < 0.35:
                values.append(UNARY[rng.integers(len(UNARY))](*recent(1)))
            else:
                values.append(BINARY[rng.integers(len(BINARY))](*recent(2)))
        return values[-1]

    arguments = [jnp.asarray(x) for x in np.random.default_rng([seed, 1]).uniform(0.6, 1.4, (2, 4))]
    expected = f(*arguments)
    finite = np.isfinite(expected)
    np.testing.assert_allclose(of_points(f)(*arguments)[finite], expected[finite], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("settles", [False, True])
def test_a_program_that_goes_on_and_on_is_cut(settles):
    """Steps of an SDE, by one path of normal numbers; or of a product, whose factors are as many variables."""

    def f(x, z):
        path = [x]
        for i in range(30):
            x = (
                x + 0.1 * jnp.tanh(1 - x) + 0.2 * jnp.sqrt(1 + x * x) * Z[i]
                if settles
                else x * jnp.tanh(z + i * x[0])
            )
            path.append(x)
        return jnp.stack(path)

    sizes, (x, z) = [], jnp.asarray(X[30:38]).reshape(2, 4)
    np.testing.assert_allclose(of_points(f, sizes)(x, z), f(x, z), rtol=1e-12)
    assert max(sizes) <= LARGEST and sum(sizes) < 30 * 2 * LARGEST


@pytest.mark.parametrize(
    "f, value",
    [
        (lambda x, g: x * g / g, lambda x, g: x),
        (lambda x, g: g * jnp.tanh(x) / g, lambda x, g: np.tanh(x)),
        (lambda x, g: (g * jnp.tanh(x)) / (g * jnp.exp(x)), lambda x, g: np.tanh(x) / np.exp(x)),
        (lambda x, g: (x * g) / (g * x), lambda x, g: np.ones_like(x)),
    ],
)
@pytest.mark.parametrize("enclose", [intervals.enclose, zonotopes.enclose])
def test_a_common_factor_of_a_quotient_is_no_common_scale(enclose, f, value):
    inputs = box([1.0], [1.2]), box([2.0], [3.0])
    for x, g in [(1.0, 2.0), (1.1, 2.5), (1.2, 3.0)]:
        assert enclose(f)(*inputs).contains(value(np.array([x]), np.array([g]))).all()


def test_a_function_of_the_users_may_have_any_name():
    @jax.custom_jvp
    def exp_neg_sq(x):
        return x + 1

    exp_neg_sq.defjvp(lambda x, t: (x[0] + 1, t[0]))
    y = intervals.enclose(exp_neg_sq)(box([1.0], [1.2]))
    assert y.contains(jnp.array([2.1])).all() and not y.contains(jnp.array([0.3])).any()
