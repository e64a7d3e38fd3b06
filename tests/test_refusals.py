"""What is not enclosed is refused, in both domains: open integers, what is not a number, other kinds of arguments."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from verify import METHODS
from verify.primitives import leaves

from sobolev_utils.enclosures.intervals import Interval, box

both_methods = pytest.mark.parametrize("enclose", METHODS.values(), ids=METHODS)
X = box([-1.0, 0.5, 0.2], [1.0, 2.0, 0.3])
TABLE = jnp.array([0.2, 0.05, 0.3])


@both_methods
def test_a_power_of_zero_jumps_where_its_exponent_is_zero(enclose):
    y = jax.jit(enclose(lambda x: 0.0**x + x))(box([0.0], [1.0]))
    assert y.lower <= 0.01 and 1 <= y.upper


@both_methods
def test_a_program_that_is_constant_is_its_number(enclose):
    y = jax.jit(enclose(lambda x: jnp.where(x == x, 7.0, 0.0)))(X)
    assert jnp.all(y.lower <= 7) and jnp.all(7 <= y.upper)


def test_a_traced_constant_need_not_equal_itself():
    def f(x, c):
        return x, jnp.isnan(c)

    assert jax.jit(METHODS["intervals"](f))(X, jnp.nan)[1]


def place(x):
    """An integer that the first interval leaves open."""
    return jnp.where(x[0] > 0.5, np.int32(2), jnp.where(x[0] > 0, np.int32(1), np.int32(0)))


def mask(x):
    return x > 0


OPEN = {
    "gather": lambda x: jnp.take(TABLE, place(x), mode="clip"),
    "gather ": lambda x: jnp.take(x, jnp.stack([place(x)]), mode="clip"),
    "dynamic_slice": lambda x: lax.dynamic_slice(TABLE, (place(x),), (1,), allow_negative_indices=False),
    "dynamic_slice ": lambda x: lax.dynamic_slice(x > 1, (place(x),), (1,), allow_negative_indices=False),
    "dynamic_update_slice": lambda x: lax.dynamic_update_slice(x, x[:1], (place(x),), allow_negative_indices=False),
    "scatter": lambda x: TABLE.at[place(x)].set(x[1], mode="promise_in_bounds", wrap_negative_indices=False),
    "add": lambda x: TABLE[place(x)],
    "and": lambda x: place(x) & 1,
    "or": lambda x: x * (place(x) | 1),
    "xor": lambda x: mask(x) ^ mask(-x),
    "shift_left": lambda x: place(x) << 1,
    "rem": lambda x: lax.rem(place(x), np.int32(2)),
    "neg": lambda x: -place(x),
    "abs": lambda x: abs(place(x)),
    "mul": lambda x: 3 * place(x),
    "div": lambda x: lax.div(place(x), np.int32(2)),
    "integer_pow": lambda x: place(x) ** 2,
    "reduce_sum": lambda x: mask(x).sum(),
    "reduce_prod": lambda x: mask(x).prod(),
    "cumsum": lambda x: jnp.cumsum(mask(x)),
    "sort": lambda x: jnp.sort(mask(x)),
    "argmax": jnp.argmax,
    "dot_general": lambda x: mask(x).astype(int) @ np.arange(3),
    "dot_general ": lambda x: jnp.dot(place(x)[None], np.arange(1), preferred_element_type=np.float64),
    "select_n": lambda x: lax.select_n(place(x), x[0], x[1], x[2]),
    "convert_element_type": lambda x: place(x).astype(np.int8),
    "convert_element_type ": lambda x: place(x).astype(bool),
    "convert_element_type  ": lambda x: jnp.floor(x).astype(int),
    "convert_element_type   ": lambda x: x.astype(jnp.float16),
    "cond": lambda x: lax.cond(mask(x)[0], lambda: 1.0, lambda: 2.0),
    "while": lambda x: lax.while_loop(lambda c: c[0], lambda c: ~c, mask(x)),
}


@both_methods
@pytest.mark.parametrize("name", OPEN)
def test_integers_that_are_open_are_refused_by_primitive_and_line(enclose, name):
    f = OPEN[name]
    line = rf"'{name.strip()}', used at {re.escape(__file__)}:{f.__code__.co_firstlineno}\b"
    line = line if f is not jnp.argmax else "'argmax', used at"
    with pytest.raises(NotImplementedError, match=line):
        jax.eval_shape(enclose(f), X)


NAN = np.array([np.nan, 1.0, 2.0])
HIDING = {
    "sum": lambda x, c: jnp.tanh(x + c),
    "product": lambda x, c: jnp.tanh(x * c),
    "matrix": lambda x, c: jax.nn.sigmoid(jnp.outer(c, c) @ x),
    "total": lambda x, c: jnp.tanh(x.sum() + c.sum()),
    "extremum": lambda x, c: jnp.tanh(jnp.maximum(x, c)),
    "comparison": lambda x, c: jnp.where(x <= c, 1.0, 2.0),
    "type": lambda x, c: jnp.tanh(x * c.astype(np.float32).astype(float)),
    "joined": lambda x, c: jnp.tanh(jnp.concatenate([x, c])),
    "function": lambda x, c: x * jnp.tanh(c),
}


@both_methods
@pytest.mark.parametrize("name", HIDING)
def test_a_constant_that_is_not_a_number_is_refused(enclose, name):
    f = HIDING[name]
    for program, *arguments in (
        (f, X, NAN),
        (functools.partial(f, c=NAN), X),
        (lambda x: f(x, np.full(3, np.nan)), X),
    ):
        with pytest.raises(ValueError, match=r"is not a number \(nan\).* by the primitive '\w+', used at .*:\d+"):
            enclose(program)(*arguments)


@both_methods
def test_where_it_is_traced_nothing_is_known(enclose):
    """So it is for a bound that is not a number."""

    def f(x, c):
        return [*(HIDING[name](x, c) for name in ("sum", "extremum", "comparison", "type")), place(x * c)]

    @jax.jit
    def enclosures(x, c):
        return enclose(f)(x, c), enclose(lambda x: f(x, c))(x)

    finite = leaves(enclosures(X, np.ones(3)))
    for broken in ((X, NAN), (Interval(X.lower * NAN, X.upper), np.ones(3))):
        for y, known in zip(leaves(enclosures(*broken)), finite, strict=True):
            info = jnp.iinfo(y.dtype) if y.dtype.kind == "i" else None
            least, most = (info.min, info.max) if info else (-np.inf, np.inf)
            assert np.all(y.lower == least) and np.all(y.upper == most)
            assert np.all(known.lower > least) and np.all(known.upper < most)


@both_methods
def test_what_is_not_a_number_may_be_left_out(enclose):
    def f(x):
        return jnp.where(x > -2, x, jnp.nan), jnp.where(x > 0, x, jnp.nan), jnp.take(x, np.array([1, 7]), mode="fill")

    inside, partly, filled = jax.jit(enclose(f))(X)
    assert np.allclose(inside.lower, X.lower) and np.allclose(inside.upper, X.upper)
    assert partly.lower[0] == -np.inf and partly.upper[0] == np.inf and np.isfinite(partly.width[1:]).all()
    assert np.allclose(filled.upper[0], 2) and filled.lower[1] == -np.inf and filled.upper[1] == np.inf


INFINITE = [
    lambda x, c: (x + c) - c,
    lambda x, c: (0 * x) * c,
    lambda x, c: x / c,
    lambda x, c: c / (3 + x),
    lambda x, c: jnp.tanh(x + c),
    lambda x, c: x < c,
    lambda x, c: (x + c).sum(),
    lambda x, c: x @ c,
]


@both_methods
def test_constants_may_be_infinite(enclose):
    """What is no number anywhere in a box, as zero times one of them, is the whole line."""

    def f(x, c):
        return [g(x, c) for g in INFINITE]

    extension, sample = jax.jit(enclose(f)), jax.jit(jax.vmap(f, (0, None)))
    points = X.lower + np.linspace(0, 1, 9)[:, None] * (X.upper - X.lower)
    for c in (np.array([np.inf, 1.0, -np.inf]), np.array([-np.inf, np.inf, 0.5])):
        for y, images in zip(extension(X, c), sample(points, c), strict=True):
            assert not np.isnan(y.lower).any() and not np.isnan(y.upper).any()
            is_none = np.isnan(images)
            assert ((y.lower <= images) & (images <= y.upper) | is_none).all()
            whole = (y.lower == -np.inf) & (y.upper == np.inf)
            assert np.all(whole | ~is_none.all(axis=0))


@both_methods
@pytest.mark.parametrize("arguments", [([-1.0, 1.0],), (np.zeros(3),), (1.0, 2.0), ()])
def test_a_point_is_no_box(enclose, arguments):
    with pytest.raises(TypeError, match=r"expected an Interval among the arguments, .* box\(lower, upper\)"):
        enclose(lambda *x: x)(*arguments)


@both_methods
@pytest.mark.parametrize(
    "lower, upper",
    [(0.0, 1.0), (np.array([0]), np.array([1])), (np.zeros(2), np.ones(1)), (np.zeros(1), np.ones(1, np.float32))],
)
def test_an_interval_of_other_numbers_is_refused(enclose, lower, upper):
    with pytest.raises(ValueError, match="expected bounds of one shape and dtype, float32 or float64, got"):
        enclose(lambda x: x)(Interval(lower, upper))


@both_methods
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_subnormal_constant_is_not_zero(enclose, dtype):
    """XLA takes it for zero, in comparisons, too."""
    smallest = np.finfo(dtype).smallest_subnormal
    c = np.array([smallest, -smallest, 0, -0.0, 1, -np.inf], dtype)

    def f(x, c):
        return c > 0, c >= 0, c < 0, c <= 0, c == 0, c != 0, c.astype(bool)

    for extension in (enclose(f), jax.jit(enclose(f))):
        for got, expected in zip(extension(X, c), f(X, c), strict=True):
            np.testing.assert_array_equal(got, expected)


@both_methods
def test_half_precision_has_no_rules(enclose):
    for f in (lambda x, c: x + c.astype(x.dtype), lambda x, c: x.astype(c.dtype)):
        with pytest.raises(NotImplementedError, match="intervals are of float32 or float64, got bfloat16"):
            jax.jit(enclose(f))(X, jnp.bfloat16(1.5))


@both_methods
def test_a_loop_of_no_steps_changes_nothing(enclose):
    carry, outputs = enclose(lambda x: lax.scan(lambda c, t: (c * t, (c, t)), x, jnp.ones((0, 3))))(X)
    assert jnp.all(carry.lower <= X.lower) and jnp.all(X.upper <= carry.upper) and outputs[0].shape == (0, 3)
