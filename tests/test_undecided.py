"""What the box leaves open: masks, integers and indices are enclosed or refused by name, in both domains; and what is
not a number is never made one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sobolev_utils import intervals, zonotopes
from sobolev_utils.chains import LARGEST
from sobolev_utils.intervals import INTERVAL_RULES, Interval, box

DOMAINS = pytest.mark.parametrize("enclose", [intervals.enclose, zonotopes.enclose], ids=["intervals", "zonotopes"])
TABLE = np.array([0.2, 0.05, 0.3])
LOWER, UPPER = np.array([-1.0, 0.2, 0.4]), np.array([1.0, 0.4, 3.0])


def which(x):
    """0, 1 or 2: an index that a box leaves open, as its middle value is not between the others of the table."""
    return jnp.where(x > 0.5, 2, jnp.where(x > 0, 1, 0))


def points(n=200):
    x = LOWER + np.random.default_rng(0).uniform(size=(n, 3)) * (UPPER - LOWER)
    x[:2] = LOWER, UPPER
    return x


BY_INDEX = {
    "gather": lambda x: jnp.take(TABLE, which(x), mode="clip"),
    "dynamic_slice": lambda x: lax.dynamic_slice(TABLE, (which(x[0]),), (1,)),
    "dynamic_update_slice": lambda x: lax.dynamic_update_slice(x, TABLE[:1], (which(x[0]),)),
    "scatter": lambda x: x.at[which(x[0])].set(5.0),
}


@DOMAINS
@pytest.mark.parametrize("name", BY_INDEX)
def test_what_an_undecided_index_looks_up_is_refused_with_its_line(enclose, name):
    with pytest.raises(NotImplementedError, match=r"primitive '\w+', used at .*test_undecided.py:\d+"):
        enclose(BY_INDEX[name])(box(LOWER, UPPER))


INTEGERS = {
    "add": lambda x: which(x) + 1,
    "mul": lambda x: which(x) * 3,
    "and": lambda x: which(x) & 1,
    "or": lambda x: which(x) | 1,
    "xor": lambda x: which(x) ^ 1,
    "not": lambda x: ~which(x),
    "shift_left": lambda x: which(x) << 1,
    "rem": lambda x: which(x) % 2,
    "neg": lambda x: -which(x),
    "reduce_sum": lambda x: which(x).sum(),
    "convert_element_type": lambda x: which(x).astype(jnp.uint8),
    "from floats": lambda x: jnp.floor(x).astype(int),
    "select_n": lambda x: lax.select_n(which(x), x, 2 * x, 3 * x),
    "max": lambda x: jnp.maximum(which(x), 1),
    "to floats": lambda x: which(x) * 0.5 + x,
    "sort": lambda x: jnp.sort(which(x)),
}
MASKS = {
    "broadcast": lambda x: jnp.where((x > 0)[:, None], 1.0, 2.0),
    "moved": lambda x: jnp.where(jnp.concatenate([x > 0, x > 1])[::-1].reshape(2, 3).T, x[:, None], 1 - x[:, None]),
    "stacked": lambda x: jnp.stack([x > 0, x < 1]),
    "and, or, not": lambda x: ((x > 0) & (x < 0.3), (x > 0) | ~(x > 1), ~(x > 0)),
    "xor": lambda x: (x > 0) ^ (x > 1),
    "any, all": lambda x: (jnp.any(x > 0), jnp.all(x > 0)),
    "counted": lambda x: jnp.sum(x > 0),
    "as numbers": lambda x: (x > 0) * x + (x > 1).astype(x.dtype),
    "sliced": lambda x: jnp.where((x > 0)[1:], x[1:], 0),
    "gathered": lambda x: jnp.where((x > 0)[np.array([2, 0])], 1.0, 2.0),
    "compared": lambda x: (x > 0) == (x > 1),
    "a mask of masks": lambda x: jnp.where(x > 0, x > 0.5, x < 3),
    "counted up": lambda x: jnp.cumsum(x > 0),
    "first": lambda x: jnp.argmax(x > 0),
    "of a mask": jax.grad(lambda x: jnp.sum(jnp.where(x > 0, x**2, -x))),
}


@DOMAINS
@pytest.mark.parametrize("name", [*INTEGERS, *MASKS])
def test_masks_and_integers_are_enclosed_or_refused_by_name(enclose, name):
    f = (INTEGERS | MASKS)[name]
    try:
        enclosed = enclose(f)(box(LOWER, UPPER))
    except NotImplementedError as error:
        assert "primitive '" in str(error) and "test_undecided.py:" in str(error)
        assert name not in ("broadcast", "moved", "and, or, not", "any, all", "as numbers", "max", "of a mask")
        return
    for y, images in zip(
        jax.tree.leaves(enclosed, is_leaf=lambda y: isinstance(y, Interval)),
        jax.tree.leaves(jax.vmap(f)(points())),
        strict=True,
    ):
        lower, upper = (y.lower, y.upper) if isinstance(y, Interval) else (y, y)
        assert np.all((lower <= images) & (images <= upper))


@DOMAINS
def test_what_lies_out_of_bounds_is_filled_in_with_what_is_not_a_number(enclose):
    outside = enclose(lambda x: x.at[np.array([1, 7])].get(mode="fill", fill_value=np.nan))(box(LOWER, UPPER))
    assert outside.contains(np.array([0.3, 1e300])).all() and np.isfinite(outside.width[0])


@DOMAINS
def test_what_is_not_a_number_is_an_error_or_the_whole_line(enclose):
    functions = [lambda x, c: jnp.tanh(x + c), lambda x, c: x * c, jnp.maximum]
    for f in functions:
        for constant in (np.nan, np.array([1.0, np.nan, 2.0])):
            with pytest.raises(ValueError, match="not a number"):
                enclose(lambda x, f=f, c=constant: f(x, c))(box(LOWER, UPPER))
    traced = jax.jit(enclose(functions[0]))
    assert np.isfinite(traced(box(LOWER, UPPER), 1.0).width).all()
    assert np.isinf(traced(box(LOWER, UPPER), np.nan).width).all()


@DOMAINS
def test_infinite_constants_are_numbers(enclose):
    y = enclose(lambda x: (jnp.minimum(x, jnp.inf), x + jnp.inf, jnp.inf * x))(box([-1.0, 1.0], [1.0, 2.0]))
    np.testing.assert_allclose([y[0].lower, y[0].upper], [[-1, 1], [1, 2]])
    assert (y[1].upper == np.inf).all() and (y[2].upper == np.inf).all() and y[2].lower[0] == -np.inf


@DOMAINS
@pytest.mark.parametrize("point", [[-1.0, 1.0], (np.zeros(2),), 3.0])
def test_a_point_is_no_box(enclose, point):
    with pytest.raises(TypeError, match=r"expected an Interval .* make one by box\(lower, upper\)"):
        enclose(lambda x: x)(point)


def test_a_long_program_is_gathered_in_pieces():
    """Of a hundred elementwise operations none is lost, and no piece is larger than the largest."""
    sizes = []

    def univariate(program, x):
        sizes.append(program.size)
        return Interval(x.lower, x.upper)

    def steps(x):
        for _ in range(25):
            x = jnp.tanh(x) + 0.1 * x
        return x

    intervals.extension(steps, lambda: (lambda x: x, INTERVAL_RULES | {"univariate": univariate}))(box([0.0], [1.0]))
    assert max(sizes) <= LARGEST and sum(sizes) >= 75
