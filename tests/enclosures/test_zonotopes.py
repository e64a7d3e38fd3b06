"""Affine arithmetic: its enclosures hold as those of intervals do, and are tighter where values depend on others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from oracles import random_surrogate
from verify.primitives import leaves

from sobolev_utils.enclosures import intervals, zonotopes
from sobolev_utils.enclosures.intervals import box

W = np.array([[1.0, -2.0, 0.5], [0.3, 0.7, -1.1], [2.0, 1.0, 1.0], [-0.4, 0.2, 0.9]])
PROGRAMS = {
    "linear": lambda x: W @ x + 1,
    "right factor": lambda x: x @ W.T,
    "layers": lambda x: jnp.tanh(W.T @ jax.nn.silu(W @ x)),
    "residual": lambda x: x + W.T @ jax.nn.relu(W @ x),
    "layer norm": lambda x: (x - x.mean()) * lax.rsqrt(x.var() + 0.1),
    "softmax": lambda x: jax.nn.softmax(W @ x),
    "product": lambda x: (W @ x) * (x[0] + W[:, 1]) * x[1],
    "square": lambda x: ((x - x[::-1]) ** 2, x * x - x),
    "quotient": lambda x: (x / (3 + x[0]), 1 / (4 + x), x / 3),
    "bilinear": lambda x: jnp.outer(x, x) @ (W.T @ x[:1].repeat(4)),
    "maximum": lambda x: (jnp.maximum(x, x[::-1]), jnp.minimum(x[0], x), jnp.clip(x, -0.1, 1.0)),
    "pieces": lambda x: (jnp.concatenate([x, W[0]]), jnp.stack([x, 2 * x]).T.reshape(-1)[1:5], *jnp.split(x, 3)),
    "choice": lambda x: jnp.where(x > 0.5, x * x[0], x - 1),
    "extrema": lambda x: (x.max(), x.min(), -x[::-1]),
    "scan": lambda x: lax.scan(lambda c, w: (jnp.tanh(c * w + x), c[0]), x, W),
    "gradient": jax.grad(lambda x: jnp.sum(jax.nn.gelu(W @ x))),
    "powers": lambda x: (jnp.abs(x) + 1) ** 1.5 + (x + 3) ** -2,
    "precision": lambda x: x.astype(jnp.float32) * 3,
    "steps": lambda x: jnp.floor(x) + jnp.sign(x),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_enclosed_at_least_as_tightly_as_by_intervals(name):
    f, rng = PROGRAMS[name], np.random.default_rng(1)
    extensions = [jax.jit(module.enclose(f)) for module in (zonotopes, intervals)]
    sample = jax.jit(jax.vmap(f))
    for width in (0, 1e-3, 1):
        lower = np.array([0.7, -0.4, 1.3])
        upper = lower + width * rng.uniform(size=3)
        x = lower + rng.uniform(size=(200, 3)) * (upper - lower)
        x[:2] = lower, upper
        affine, natural = (leaves(extension(box(lower, upper))) for extension in extensions)
        for z, y, points in zip(affine, natural, jax.tree.leaves(sample(x)), strict=True):
            slack = 1e-5 if z.dtype == np.float32 else 1e-13
            for enclosure in (z, y):
                assert jnp.all(enclosure.lower <= points + slack) and jnp.all(points - slack <= enclosure.upper)
            assert jnp.all(z.width <= y.width * (1 + 1e-6) + 1e-12)
            if width == 0 and name != "steps":
                assert jnp.all(z.width < 1e-11 + 20 * slack) and jnp.all(y.width < 1e-4)


def test_it_knows_what_two_values_have_in_common():
    x = box([-1.0, 2.0], [3.0, 5.0])
    difference = zonotopes.enclose(lambda x: x[0] + x[1] - (x[0] - x[1]) - 2 * x[1])(x)
    assert difference.width < 1e-12
    assert intervals.enclose(lambda x: x[0] + x[1] - (x[0] - x[1]) - 2 * x[1])(x).width > 19
    # a rotation and back
    c, s = np.cos(0.7), np.sin(0.7)
    turn = np.array([[c, -s], [s, c]])
    y = zonotopes.enclose(lambda x: turn.T @ (turn @ x))(x)
    np.testing.assert_allclose([y.lower, y.upper], [x.lower, x.upper], rtol=1e-13)


def test_its_error_is_of_second_order():
    def f(x):
        return jnp.sum(jax.nn.silu(W @ x)) - jnp.sum(jnp.tanh(W @ x))

    def excess(extension, h):
        lower, upper = np.full(3, 0.3 - h), np.full(3, 0.3 + h)
        x = lower + np.stack(np.meshgrid(*[np.linspace(0, 1, 15)] * 3)).reshape(3, -1).T * (upper - lower)
        return float(extension(box(lower, upper)).width) - np.ptp(jax.vmap(f)(jnp.asarray(x)))

    extensions = (jax.jit(module.enclose(f)) for module in (zonotopes, intervals))
    affine, natural = ([excess(extension, h) for h in (0.1, 0.05)] for extension in extensions)
    assert affine[1] < 0.3 * affine[0] and natural[1] > 0.4 * natural[0]
    assert affine[0] < 0.3 * natural[0]


def test_fewer_generators_are_wider_and_still_enclose():
    model = random_surrogate(widths=(4, 4))
    lower, upper = np.array([0.7, 0.9, 0.5]), np.array([1.2, 1.3, 0.6])
    points = model(jnp.asarray(lower + np.random.default_rng(2).uniform(size=(500, 3)) * (upper - lower)))
    extensions = [zonotopes.enclose(model, max_generators=limit) for limit in (None, 2)] + [intervals.enclose(model)]
    y = [jax.jit(f)(box(lower, upper)) for f in extensions]
    assert all(bool(z.contains(points).all()) for z in y)
    all_kept, two_kept, none = (float(z.width) for z in y)
    assert 1.01 * all_kept < two_kept <= 1.001 * none


def test_division_by_zero_and_overflow_give_the_whole_line():
    y = jax.jit(zonotopes.enclose(lambda x: (1 / x, x / x[0], jnp.exp(1000 * x) * x)))(box([-1.0, 1.0], [1.0, 2.0]))
    assert np.isinf(y[0].lower[0]) and np.isinf(y[0].upper[0]) and np.isfinite(y[0].width[1])
    assert np.isinf(y[1].width).all() and np.isinf(y[2].upper).all()
    assert not any(np.isnan(end).any() for z in leaves(y) for end in (z.lower, z.upper))
    unbounded = jax.jit(zonotopes.enclose(lambda x: 1 / jnp.exp(x).sum()))(box(np.zeros(2), np.array([0.0, 1e3])))
    assert unbounded.lower <= 0 and 0.5 <= unbounded.upper <= 0.6


def test_slopes_whose_sum_overflows_lose_no_error():
    """f(0) = 0; rise and fall of f are finite on the box, their sum is not."""
    c = np.float32(6e19)
    f = jax.jit(
        zonotopes.enclose(lambda x: (c * x) * (c * x) + np.float32(1e-30) * jax.nn.relu(x - np.float32(0.06)))
    )
    y = f(box(np.float32([-0.1]), np.float32([0.1])))
    assert y.lower <= 0 and y.upper >= 3.6e37


def test_constants_of_two_products_are_not_multiplied_first():
    """Their product is flushed to zero, and XLA would do so: the barriers between operations keep it from that."""

    def f(x):
        return (x * 1e-200) * 1e-200, x * 1e-300 / 1e300 * 1e300

    y, z = jax.jit(zonotopes.enclose(f))(box([1e300], [1e300]))
    assert y.lower <= 1e-100 <= y.upper and z.lower <= 1 <= z.upper


def test_what_fills_in_depends_on_no_symbol():
    def f(x):
        return jnp.take(x, np.array([9]), mode="fill", fill_value=5) - 5 * jnp.sum(2 * x - 1)

    y = jax.jit(zonotopes.enclose(f))(box(np.zeros(3), np.ones(3)))
    np.testing.assert_allclose([y.lower[0], y.upper[0]], [-10, 20], rtol=1e-12)
    assert y.lower <= -10 and 20 <= y.upper
