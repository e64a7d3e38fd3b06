"""Natural interval enclosures are inclusion monotone: a smaller box never has a wider result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax import lax

from sobolev_utils.enclosures.intervals import Interval, enclose

# Rounded the same way however wide the box is.
EXACTLY = {
    "neg": jnp.negative,
    "abs": jnp.abs,
    "add": jnp.add,
    "sub": jnp.subtract,
    "mul": jnp.multiply,
    "div": jnp.divide,
    "max": jnp.maximum,
    "min": jnp.minimum,
    "square": jnp.square,
    "cube": lambda x: x**3,
    "floor": jnp.floor,
    "sqrt": lambda x: jnp.sqrt(abs(x)),
    "select": lambda x, y: jnp.where(x > y, x, y),
    "greater": lambda x, y: x > y,
}
# XLA's own functions may be a step from monotone; midpoints and radii of a product are rounded as they fall.
TO_ROUNDING = {
    "exp": jnp.exp,
    "log": lambda x: jnp.log(1 + abs(x)),
    "tanh": jnp.tanh,
    "erf": lax.erf,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "silu": jax.nn.silu,
    "silu'": jax.vmap(jax.grad(jax.nn.silu)),
    "sum": jnp.sum,
    "product": lambda x, y: x @ y,
    "linear": lambda x: np.linspace(-1, 1, 18, dtype=np.float32).reshape(6, 3).T @ x,
}
OF_TWO = ("add", "sub", "mul", "div", "max", "min", "select", "greater", "product")
N = 6
NUMBERS = arrays(np.float32, (2, N), elements=st.floats(-(2.0**100), 2.0**100, width=32))
PLACES = arrays(np.float32, (2, N), elements=st.floats(0, 1, width=32))


@st.composite
def nested(draw):
    """A box within another."""
    low, high = np.sort(draw(NUMBERS), axis=0)
    first, last = np.sort([np.clip(low + t * (high - low), low, high) for t in draw(PLACES)], axis=0)
    return (first, last), (low, high)


def images(f, *boxes):
    """The bounds of the enclosures of f over the inner and over the outer boxes, in float64."""
    for which in (0, 1):
        y = enclose(f, exact_ranges=False)(*(Interval(*map(jnp.asarray, pair[which])) for pair in boxes))
        ends = (y.lower, y.upper) if isinstance(y, Interval) else (y, y)
        yield [np.asarray(end, np.float64) for end in ends]


@pytest.mark.parametrize("name", [*EXACTLY, *TO_ROUNDING])
def test_a_smaller_box_never_has_a_wider_result(name):
    f, slack = (EXACTLY[name], 0.0) if name in EXACTLY else (TO_ROUNDING[name], 1e-5)

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(nested(), nested())
    def check(x, y):
        (low, high), (lowest, highest) = images(f, x, y) if name in OF_TWO else images(f, x)
        sizes = [abs(np.float64(outer)).max() for _, outer in ((x, y) if name in OF_TWO else (x,))]
        with np.errstate(invalid="ignore"):
            # what is tiny may be flushed to zero before it is multiplied
            room = slack * (np.maximum(abs(lowest), abs(highest)) + np.prod(sizes) + 1e-30 * (1 + sum(sizes)))
            assert ((lowest <= low) | (lowest - low <= room)).all(), (lowest, low)
            assert ((high <= highest) | (high - highest <= room)).all(), (high, highest)

    check()
