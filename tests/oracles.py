"""Independent answers that several test modules share, and small random problems to ask for them."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from flax import nnx
from flint import arb, fmpq

from sobolev_utils.enclosures.intervals import box
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.models.basket import GaussianBasket
from sobolev_utils.models.samples import Samples

# Relative and absolute error that a few dozen roundings of numbers around 1 may leave.
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}
DTYPES = list(TOLERANCE)

ACTIVATIONS = {
    "silu": lambda x: x * scipy.special.expit(x),
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(x, 0),
    "sigmoid": scipy.special.expit,
    "relu": lambda x: np.maximum(x, 0),
}


def finite_difference(f, x, directions=None, step=1e-5):
    """Central differences of f: (..., n) -> (...) along each axis, or each of `directions` (m, n): (..., m)."""
    directions = np.eye(x.shape[-1]) if directions is None else directions
    return np.stack([(f(x + step * v) - f(x - step * v)) / (2 * step) for v in directions], axis=-1)


def second_difference(f, x, direction, step=1e-4):
    """Second central difference of f: (..., n) -> (...) along a direction (n,)."""
    return (f(x + step * direction) - 2 * f(x) + f(x - step * direction)) / step**2


def assert_unbiased(estimates, truth=0.0, standard_errors=5):
    """The mean over the first axis is the truth, as far as the spread of independent estimates can tell."""
    errors = np.asarray(estimates, float) - truth
    limit = standard_errors * errors.std(axis=0, ddof=1) / np.sqrt(len(errors))
    assert (limit > 0).all()
    np.testing.assert_array_less(abs(errors.mean(axis=0)), limit)


def random_basket(n_assets=3, seed=0, **contract):
    return GaussianBasket.random(seed, n_assets, **contract)


def random_surrogate(n_inputs=3, widths=(5, 4), activation="silu", seed=0, dtype=np.float64):
    """A surrogate with biases and a normalisation that are not trivial, and weights of this dtype."""
    rng = np.random.default_rng(seed)
    arrays = Surrogate(n_inputs, widths, activation=activation, rngs=nnx.Rngs(seed)).arrays()
    for name, array in arrays.items():
        if name.startswith("kernel_"):
            arrays[name] = rng.normal(size=array.shape, scale=array.shape[0] ** -0.5).astype(dtype)
        elif name.startswith("bias_"):
            arrays[name] = rng.normal(size=array.shape, scale=0.3).astype(dtype)
    statistics = {"x_mean": 1.1, "x_std": 0.4, "y_mean": 0.2, "y_std": 0.3}
    return Surrogate.from_arrays(arrays | {name: np.asarray(value, dtype) for name, value in statistics.items()})


def forward(arrays, x, held=()):
    """Values of all nodes but the inputs, in NumPy, with the nodes `held`, {(layer, node): value}, at constants."""
    phi = ACTIVATIONS[str(arrays["activation"])]
    h, values = (x - arrays["x_mean"]) / arrays["x_std"], []
    n_layers = sum(name.startswith("bias_") for name in arrays)
    for i in range(n_layers):
        h = h @ arrays[f"kernel_{i}"] + arrays[f"bias_{i}"]
        if i < n_layers - 1:
            h = phi(h)
            for (layer, node), value in dict(held).items():
                if layer == i + 1:
                    h[..., node] = value
            values.append(h)
    return [*values, arrays["y_mean"] + arrays["y_std"] * h[..., 0]]


def ranges(analysis):
    """Those of all values, then of all adjoints, of a significance analysis."""
    return [*analysis.values, *analysis.adjoints]


def assert_within(inner, outer):
    """Each range of one analysis lies within that of another."""
    for a, b in zip(ranges(inner), ranges(outer), strict=True):
        assert a.shape == b.shape and jnp.all(b.lower <= a.lower) and jnp.all(a.upper <= b.upper)


def assert_encloses(analysis, points):
    """An analysis encloses values and adjoints at points."""
    for outer, inner in zip(ranges(analysis), [*points[0], *points[1]], strict=True):
        assert outer.contains(inner).all()


def uniform_points(n, dimension, seed=0, low=0.3, high=1.7):
    return np.random.default_rng(seed).uniform(low, high, (n, dimension))


def labelled_by(model, x):
    """Samples whose labels and derivatives are the model's own."""
    x = jnp.asarray(x)
    return Samples(x, *jax.jit(model.value_and_delta)(x))


def leaves(model):
    """The arrays of a model, copied."""
    return [np.array(leaf) for leaf in jax.tree.leaves(nnx.state(model))]


@np.vectorize(otypes=[object])
def exact(x):
    return arb(float(x))


@np.vectorize(otypes=[object])
def rational(x):
    return fmpq(*float(x).as_integer_ratio()) if np.isfinite(x) else fmpq(int(np.sign(x)) * 10**1000)


def numbers(rng, dtype, shape):
    """Moderate, whole, tiny, huge and subnormal numbers of both signs, and zeros."""
    info = np.finfo(dtype)
    exponents = np.log10([info.smallest_subnormal, info.tiny, info.max], dtype=float)
    magnitudes = [
        np.exp(rng.normal(size=shape)),
        rng.uniform(0, 100, shape),
        rng.integers(0, 5, shape),
        10.0 ** rng.uniform(exponents[1], exponents[2], shape),
        10.0 ** rng.uniform(exponents[0], exponents[1] + 1, shape),
        np.zeros(shape),
    ]
    chosen = np.choose(rng.integers(len(magnitudes), size=shape), magnitudes)
    return (rng.choice([-1, 1], shape) * chosen).astype(dtype)


def random_box(rng, dtype, shape, around=()):
    """Boxes that are points, thin, wide or hold zero, and points of them, (4, *shape), both ends included.

    Half of the boxes hold one of the numbers `around`, if there are any, and a point next to it.
    """
    x, y = numbers(rng, dtype, shape), numbers(rng, dtype, shape)
    with np.errstate(over="ignore"):
        thin = x * (1 + rng.normal(size=shape) * 10.0 ** rng.uniform(-16, -1, shape)).astype(dtype)
    y = np.choose(rng.integers(4, size=shape), [x, np.where(np.isfinite(thin), thin, 0), -x * dtype(0.5), y])
    lower, upper = np.minimum(x, y), np.maximum(x, y)
    points = points_of(rng, lower, upper, 4)
    if len(around):
        centre, chosen = rng.choice(around, shape), rng.uniform(size=shape) < 0.5
        near = (centre * (1 + np.finfo(dtype).eps * rng.integers(-3, 4, (3, *shape)))).astype(dtype)
        sides = (10.0 ** rng.uniform(-18, 1, (2, *shape))).astype(dtype)
        lower = np.where(chosen, np.minimum(near.min(0), centre - sides[0]).astype(dtype), lower)
        upper = np.where(chosen, np.maximum(near.max(0), centre + sides[1]).astype(dtype), upper)
        points = np.where(chosen, np.stack([lower, upper, *near[:2]]), points)
    return box(lower, upper), points


def points_of(rng, lower, upper, n):
    """The two ends of a box and n - 2 more points, each coordinate at an end or between them."""
    t = rng.uniform(size=(n, *lower.shape)).astype(lower.dtype)
    t = np.where(rng.uniform(size=t.shape) < 0.25, np.round(t), t)
    t[:2] = np.asarray([0, 1], lower.dtype).reshape(2, *[1] * lower.ndim)
    return np.clip((1 - t) * lower + t * upper, lower, upper)
