"""Enclosures against exact arithmetic and samples; `test_rigour` tries every rule on every kind of number."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax import lax
from oracles import DTYPES, points_of, random_surrogate, rational
from verify import METHODS
from verify.primitives import leaves
from verify.programs import doubled

from sobolev_utils.enclosures.interval import bounds
from sobolev_utils.enclosures.interval_arithmetic import add, divide, multiply
from sobolev_utils.enclosures.intervals import Interval, box, enclose
from sobolev_utils.enclosures.rounding import ELEMENTARY
from sobolev_utils.pruning.significance import values_and_adjoints

both_dtypes = pytest.mark.parametrize("dtype", DTYPES)


def assert_encloses(enclosure, image):
    """No entry of `image` (points, *shape), rational numbers, is outside."""
    assert not np.isnan(enclosure.lower).any() and not np.isnan(enclosure.upper).any()
    ends = (np.broadcast_to(rational(end), image.shape).flat for end in (enclosure.lower, enclosure.upper))
    outside = [(y, low, high) for y, low, high in zip(image.flat, *ends, strict=True) if y < low or y > high]
    assert not outside, f"{len(outside)} outside, first {outside[0]}"


@pytest.mark.parametrize("name", ELEMENTARY)
def test_elementary_bounds_hold_on_dense_points(name):
    reference = {"logistic": scipy.special.expit, "erf": scipy.special.erf, "erfc": scipy.special.erfc}
    oracle = reference.get(name) or getattr(np, name, lambda x: 1 / np.sqrt(x))
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    x = np.concatenate([bits[np.isfinite(bits)], rng.uniform(-95, 95, 200_000), rng.normal(size=200_000)])
    x = x[x > max(ELEMENTARY[name][2], -1e38)].astype(np.float32)
    with np.errstate(over="ignore"):
        image = oracle(x.astype(np.float64))
    y = jax.jit(enclose(getattr(lax, name)))(box(x, x))
    assert np.all((np.asarray(y.lower, np.float64) <= image) & (image <= np.asarray(y.upper, np.float64)))


@both_dtypes
def test_points_have_thin_images(dtype):
    x = np.random.default_rng(4).uniform(0.1, 3, 500).astype(dtype)
    images = jax.jit(enclose(lambda x: {name: getattr(lax, name)(x) for name in ELEMENTARY}))(box(x, x))
    for name, y in images.items():
        steps = 2 * ELEMENTARY[name][dtype == np.float64] + 2
        assert np.all(np.asarray(y.width) <= steps * np.spacing(np.asarray(y.magnitude))), name


@both_dtypes
@pytest.mark.parametrize("n", [1, 2, 100])
def test_sums_and_products_against_rational_arithmetic(n, dtype):
    rng = np.random.default_rng(n)
    scale = float(np.finfo(dtype).max) ** 0.4

    def matrix(*shape):
        x = rng.normal(size=shape) * scale ** rng.uniform(-1, 1, shape) * (rng.uniform(size=shape) < 0.8)
        x = np.where(rng.uniform(size=shape) < 0.2, float(np.finfo(dtype).tiny) * rng.uniform(-2, 2, shape), x)
        y = x + rng.choice([0, 1e-6, 1], shape) * np.abs(x)
        return np.minimum(x, y).astype(dtype), np.maximum(x, y).astype(dtype)

    (al, au), (bl, bu) = matrix(2, n), matrix(n, 3)
    # products that cancel: only their rounding is left
    al[1, n // 2 :], bl[n // 2 :] = -al[1, : n - n // 2], bl[: n - n // 2]
    au, bu = np.maximum(al, au), np.maximum(bl, bu)
    a, b = points_of(rng, al, au, 4), points_of(rng, bl, bu, 4)
    products = np.stack([rational(x) @ rational(y) for x, y in zip(a, b, strict=True)])
    extension = jax.jit(enclose(lambda a, b, c, d: (a @ b, c @ b, a @ d, c @ d, b.sum(0))))
    both, left, right, constant, total = extension(box(al, au), box(bl, bu), al, bl)
    assert_encloses(both, products)
    assert_encloses(left, np.stack([rational(al) @ rational(y) for y in b]))
    assert_encloses(right, np.stack([rational(x) @ rational(bl) for x in a]))
    assert_encloses(constant, (rational(al) @ rational(bl))[None])
    assert_encloses(total, rational(b).sum(1))


@both_dtypes
def test_what_xla_flushes_is_enclosed(dtype):
    tiny, largest = np.finfo(dtype).smallest_normal, np.finfo(dtype).max
    x = dtype([1e30, 3])
    # XLA reads tiny / 4 as zero, x * tiny * tiny as x * 0, and x / c as x * (1 / c) with 1 / c as zero
    y = jax.jit(enclose(lambda x: (x * (tiny / 4), x @ np.full(2, tiny / 4), (x * tiny) * tiny / tiny)))(box(x, x))
    assert_encloses(y[0], rational(x)[None] * rational(tiny / 4))
    assert_encloses(y[1], rational(x).sum(keepdims=True) * rational(tiny / 4))
    assert_encloses(y[2], rational(x)[None] * rational(tiny))
    y = jax.jit(enclose(lambda x: x / largest))(box(largest / 2, largest))
    assert y.contains(dtype([0.5, 1])).all() and y.width < 0.51


@both_dtypes
def test_constant_matrix_maps_a_box_tightly(dtype):
    rng = np.random.default_rng(5)
    w, lower, width = rng.normal(size=(20, 30)), rng.normal(size=30), rng.uniform(0, 2, 30)
    w, lower, upper = (np.asarray(x, dtype) for x in (w, lower, lower + width))
    y = jax.jit(enclose(lambda x: w @ x))(box(lower, upper))
    plus, minus = (x.astype(np.float64) for x in (np.maximum(w, 0), np.minimum(w, 0)))
    assert np.allclose(y.lower, plus @ lower + minus @ upper, rtol=0, atol=1e4 * np.finfo(dtype).eps)
    assert np.allclose(y.upper, plus @ upper + minus @ lower, rtol=0, atol=1e4 * np.finfo(dtype).eps)


def test_batched_contractions_are_enclosed():
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(3, 4, 5)).astype(np.float32), rng.normal(size=(6, 3, 5)).astype(np.float32)
    y = jax.jit(enclose(lambda a, b: jnp.einsum("bij,kbj->ikb", a, b)))(box(a, a + 0.1), box(b, b + 0.1))
    for t in (0, 0.05, 0.1):
        points = np.clip(a + t, a, np.float32(a + 0.1)), np.clip(b + t, b, np.float32(b + 0.1))
        assert y.contains(np.einsum("bij,kbj->ikb", *(p.astype(np.float64) for p in points))).all()


def holds(enclosure, values):
    """Whether every leaf of `values`, a batch, lies in the enclosure."""
    return all(bool(x.contains(v).all()) for x, v in zip(leaves(enclosure), jax.tree.leaves(values), strict=True))


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-3), (np.float64, 2e-12)])
def test_a_point_reproduces_values_and_adjoints(dtype, tolerance):
    f = functools.partial(values_and_adjoints, random_surrogate(widths=(8, 8), dtype=dtype))
    x = np.random.default_rng(8).normal(size=3).astype(dtype)
    enclosure, values = jax.jit(enclose(f))(box(x, x)), jax.jit(f)(x)
    assert holds(enclosure, values)
    for y, value in zip(leaves(enclosure), jax.tree.leaves(values), strict=True):
        assert jnp.all(y.width < tolerance)
        # the bounds of rounding errors are wide, their midpoints are the values
        np.testing.assert_allclose(y.midpoint, value, rtol=0, atol=8 * np.spacing(np.abs(value).max()))


@pytest.mark.parametrize("activation", ["silu", "relu"])
def test_a_smaller_box_has_a_smaller_enclosure(activation):
    model = random_surrogate(widths=(8, 5), activation=activation, dtype=np.float32)
    extension = jax.jit(jax.vmap(enclose(functools.partial(values_and_adjoints, model))))
    rng = np.random.default_rng(9)
    lower, width = rng.normal(size=(50, 3)), rng.uniform(0, 2, (50, 3))
    a, b = np.sort(rng.uniform(0, 1, (2, 50, 3)), axis=0)
    inner = extension(box(np.float32(lower + a * width), np.float32(lower + b * width)))
    outer = extension(box(np.float32(lower), np.float32(lower + width)))
    for y, whole in zip(leaves(inner), leaves(outer), strict=True):
        slack = 1e-5 * (1 + whole.magnitude)  # the rounding of midpoints and radii is not monotone
        assert np.all(whole.lower <= y.lower + slack) and np.all(y.upper <= whole.upper + slack)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_jit_and_vmap_agree_with_the_plain_call(method, dtype, tolerance):
    rng = np.random.default_rng(10)
    w, lower = (rng.normal(size=(4, 3)).astype(dtype) for _ in range(2))
    x = box(lower, lower + dtype(0.3))
    extension = METHODS[method](lambda x: jnp.tanh(w @ x))
    plain = extension(Interval(x.lower[2], x.upper[2]))
    jitted = jax.jit(extension)(Interval(x.lower[2], x.upper[2]))
    batched = jax.tree.map(lambda end: end[2], jax.jit(jax.vmap(extension))(x))
    for result in (jitted, batched):
        for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(plain), strict=True):
            assert a.dtype == dtype and np.allclose(a, b, rtol=0, atol=tolerance)


WEIGHTS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
PROGRAMS = {
    "softmax": jax.nn.softmax,
    "logsumexp": jax.scipy.special.logsumexp,
    "norm": jnp.linalg.norm,
    "variance": lambda x: (x.mean(), x.var()),
    "indexing": lambda x: (x[1], x[jnp.array([2, 0])], x.at[1].set(5.0), jnp.pad(x, 1), jnp.tile(x, 2)),
    "extrema": lambda x: (x.max(), x.min(), -x[::-1]),
    "pieces": lambda x: (jnp.concatenate([x, WEIGHTS[0]]), jnp.stack([x, x]).T, *jnp.split(x, 3)),
    "scan": lambda x: lax.scan(lambda c, w: (jnp.tanh(c * w + x), c[0]), x, WEIGHTS),
    "reversed scan": lambda x: lax.scan(lambda c, a: (c * a + 1, c), x[0], x, reverse=True),
    "remat": jax.grad(jax.checkpoint(lambda x: jnp.sum(jnp.tanh(x) * x))),
    "custom_vjp": lambda x: (doubled(x), jax.grad(doubled)(x)),
    "jvp": lambda x: jax.jvp(lambda x: jnp.sum(jax.nn.silu(WEIGHTS @ x)), (x,), (jnp.ones_like(x),)),
    "vjp": lambda x: jax.vjp(lambda x: jax.nn.gelu(WEIGHTS @ x, approximate=False), x)[1](WEIGHTS[:, 0] + 0 * x[0]),
    "hessian": jax.hessian(lambda x: jnp.sum(jax.nn.silu(WEIGHTS @ x))),
    "detached": lambda x: lax.stop_gradient(x) * lax.optimization_barrier(x),
    "precision": lambda x: x.astype(jnp.float64) / 3,
    "counting": lambda x: x * jnp.arange(3, dtype=jnp.float32) + jnp.arange(3) % 2,
    "logic": lambda x: jnp.where(((x > 0) & ~(x > 1)) | (x == 3), x, 2 * x),
    "nan guard": lambda x: jnp.where(jnp.isnan(x) | ~jnp.isfinite(x), 0.0, x),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_enclosed(name):
    rng = np.random.default_rng(11)
    extension, sample = jax.jit(enclose(PROGRAMS[name])), jax.jit(jax.vmap(PROGRAMS[name]))
    for width in (0, 1e-3, 1):
        lower = np.float32([0.7, -0.4, 1.3])
        upper = (lower + width * rng.uniform(size=3)).astype(np.float32)
        points = points_of(rng, lower, upper, 50)
        y = extension(box(lower, upper))
        assert holds(y, sample(points.astype(np.float64)))
        if width == 0:
            assert all(np.all(z.width < 1e-4) for z in leaves(y))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factor", [[2.5, 0.3], [-2.5, -0.3], [1.5, -0.7], [0.0, 3.0], [0.0, 0.0], [1e-46, -1e-320]])
def test_known_numbers_are_what_intervals_of_them_are(dtype, factor):
    """Where the signs of a constant are known fewer products are computed, and comparisons none."""
    ends = [-np.inf, -3.7, -1e-30, 0.0, 1e-30, 1.1, np.inf]
    lower, upper = np.array([pair for pair in itertools.combinations_with_replacement(ends, 2)], dtype).T
    x = Interval(jnp.asarray(lower[:, None]) + jnp.zeros(2, dtype), jnp.asarray(upper[:, None]) + jnp.zeros(2, dtype))
    c = np.broadcast_to(np.asarray(factor, dtype), x.shape)
    for operation in (add, multiply, divide):
        for one, other in [(x, c), (c, x)]:
            known = operation(one, other)
            as_interval = operation(*(Interval(*bounds(y)) if y is c else y for y in (one, other)))
            np.testing.assert_array_equal(known.lower, as_interval.lower)
            np.testing.assert_array_equal(known.upper, as_interval.upper)


def test_an_infinite_constant_times_zero_is_unknown():
    infinite, zero = np.array([np.inf]), np.zeros(1)
    for one, other in [(infinite, zero), (zero, infinite)]:
        assert multiply(one, other).lower == -np.inf and multiply(one, other).upper == np.inf
        y = jax.jit(multiply)(one, other)
        assert y.lower == -np.inf and y.upper == np.inf
        for known, traced in [(one, other), (other, one)]:
            y = jax.jit(lambda x, known=known: multiply(x, known))(traced)
            assert y.lower == -np.inf and y.upper == np.inf


def test_division_by_zero_gives_the_whole_line():
    x = box(np.float32([-1, 0, 0, -1, 1]), np.float32([1, 0, 1, 0, 2]))
    y = enclose(lambda x: 1 / x)(x)
    assert np.array_equal(np.isinf(y.lower), [True] * 4 + [False])
    assert np.array_equal(np.isinf(y.upper), [True] * 4 + [False])
    z = jax.jit(enclose(lambda y: (jnp.tanh(y), y @ jnp.ones_like(y), 0 * y, 1 / y, y.sum())))(y)
    assert np.array_equal(z[0].magnitude[:4], [1, 1, 1, 1])
    assert not any(np.isnan(end).any() for y in leaves(z) for end in (y.lower, y.upper))


def test_outside_the_domain():
    x = box([-4.0, -4.0, 1.0], [-1.0, 4.0, 4.0])
    y = enclose(jnp.sqrt)(x)
    assert np.allclose(y.lower, [-np.inf, 0, 1]) and np.allclose(y.upper, [np.inf, 2, 2])


def test_undecided_comparisons_give_the_hull():
    x = box([-1.0, 1.0, -2.0], [1.0, 2.0, -1.0])
    y = enclose(lambda x: (x > 0, jnp.where(x > 0, 5.0, x - 3), jnp.sign(x), jax.vmap(jax.grad(jax.nn.relu))(x)))(x)
    expected = [
        [(0, 1), (1, 1), (0, 0)],
        [(-4, 5), (5, 5), (-5, -4)],
        [(-1, 1), (1, 1), (-1, -1)],
        [(0, 1), (1, 1), (0, 0)],
    ]
    for enclosure, ends in zip(y, expected, strict=True):
        lower, upper = np.transpose(ends)
        assert np.allclose(enclosure.lower, lower, atol=1e-9) and np.allclose(enclosure.upper, upper, atol=1e-9)


def test_a_variable_times_itself_is_a_square_but_equal_boxes_are_two_variables():
    x = box([-1.0], [2.0])
    assert enclose(lambda x: x * x)(x).lower == 0
    assert enclose(lambda x, y: x * y)(x, x).lower <= -2
    assert enclose(lambda x, y: x == y)(x, x).lower.tolist() == [False]


def test_argument_and_result_trees_keep_their_structure():
    x = box(np.float32([1, 2]), np.float32([2, 3]))
    y = enclose(lambda pair, *, scale: {"sum": pair[0] + scale * pair[1], "n": pair[0].size, "w": pair[1]})(
        (x, jnp.ones(2, jnp.float32)), scale=2.0
    )
    assert y["sum"].dtype == np.float32 and y["sum"].contains(np.float32([3.5, 4.5])).all()
    assert y["n"] == 2 and np.array_equal(y["w"].width, [0, 0])


def test_width_midpoint_and_magnitude():
    x = Interval(jnp.array([-3.0, 1.0, -np.inf]), jnp.array([1.0, 1.0, np.inf]))
    assert np.allclose(x.width, [4, 0, np.inf]) and x.width[1] == 0
    assert np.allclose(x.midpoint, [-1, 1, 0]) and np.array_equal(x.magnitude, [3, 1, np.inf])
    assert x.contains(jnp.array([0.0, 1.1, 1e300])).tolist() == [True, False, True]
    assert x.shape == (3,) and x.dtype == np.float64


def sorted_product(x):
    y = 2 * x
    return jnp.sort(y)  # the line below the one that doubles


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "f, name", [(sorted_product, "sort"), (jax.jit(sorted_product), "sort"), (lax.cumsum, "cumsum")]
)
def test_a_primitive_without_a_rule_is_named_with_its_line(f, name, method):
    with pytest.raises(NotImplementedError, match=f"'{name}'") as error:
        METHODS[method](f)(box([0.0, 1.0], [1.0, 2.0]))
    if f is sorted_product:
        assert f"{__file__}:{sorted_product.__code__.co_firstlineno + 2}" in str(error.value)


@pytest.mark.parametrize(
    "lower, upper, message",
    [
        ([0.0, 2.0], [1.0, 1.0], r"lower <= upper, got \[2.0, 1.0\] at index \(1,\)"),
        ([np.nan], [1.0], "finite bounds, got nan"),
        ([0.0], [np.inf], "finite bounds, got inf"),
        ([0.0], [1.0, 2.0], r"shapes \(1,\) and \(2,\)"),
        ([], [], "nonempty"),
        (np.float32([0]), np.float64([1]), "float32 and float64"),
        (np.float16([0]), np.float16([1]), "float16"),
        (["a"], ["b"], "float32 or float64"),
    ],
)
def test_bad_boxes_are_refused(lower, upper, message):
    with pytest.raises(ValueError, match=message):
        box(lower, upper)


@pytest.mark.parametrize("bounds", [([np.nan], [1.0]), ([2.0], [1.0]), ([0.0], [np.nan])])
def test_an_interval_that_is_none_is_refused_where_it_is_not_traced(bounds):
    with pytest.raises(ValueError, match=r"expected lower <= upper, got \["):
        enclose(jnp.tanh)(Interval(*map(jnp.asarray, bounds)))


def test_box_rounds_outward_what_float32_cannot_hold():
    with jax.enable_x64(False):
        x = box([0.1, -0.1, 1e-50, 3, 1e300], [0.1, -0.1, 1e-50, 3, 1e301])
        assert x.dtype == np.float32
    lower, upper = (np.asarray(end, np.float64) for end in (x.lower, x.upper))
    values = np.array([0.1, -0.1, 1e-50, 3, 1e300])
    assert np.all((lower <= values) & (values <= upper)) and np.isclose(lower[:4], upper[:4]).all()
    assert x.width[3] == 0 and np.isinf(upper[4])


@pytest.mark.parametrize("sign", [-1, 1])
def test_box_rounds_integers_outward_that_no_float_is(sign):
    exact = sign * (2**53 + 1)
    x = box(exact, exact)
    assert int(x.lower) < exact < int(x.upper) and x.contains(exact) and not x.contains(sign * (2**53 + 3))
    assert box(np.uint8(1), np.uint8(2)).contains([1, 2]).all()


def test_bounds_of_numpy_that_float32_cannot_hold_are_not_rounded_inward():
    third = np.float64(1 / 3)
    with jax.enable_x64(False):
        for x in (Interval(third, third), Interval(third[None], third[None])):
            y = enclose(lambda x: x)(x)
            assert y.contains(third) and y.dtype == np.float32
        inner = box(np.float32(0.25), np.float32(third))
        assert not inner.contains(np.nextafter(np.float64(inner.upper), 1)) and inner.contains(inner.upper)
