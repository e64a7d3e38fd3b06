"""What may be no number decides nothing: each value that a program has anywhere in the box is enclosed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from verify import METHODS

from sobolev_utils import intervals
from sobolev_utils.interval_arithmetic import Interval, bounds
from sobolev_utils.intervals import box

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
    "of its kind": lambda x: jnp.tanh(jnp.sqrt(x)) + 1,
    "moved": lambda x: jnp.sqrt(x)[::-1],
    "summed": lambda x: jnp.sqrt(x[:, None] * jnp.ones(2)).sum(axis=-1),
    "mixed": lambda x: jnp.diag(jnp.ones(4)) @ jnp.sqrt(x),
}
ASKED = {
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
    return {name: ASKED["gt"](f(x)) for name, f in PARTIAL.items()}


def all_asked(x):
    mixed = {name: ASKED["gt"](PARTIAL[name](x)) for name in ("moved", "summed", "mixed")}
    return mixed | {name: asked(jnp.sqrt(x)) for name, asked in ASKED.items()}


@pytest.mark.parametrize(
    "programs, enclose",
    [
        (of_each, partial(intervals.enclose, exact_ranges=False)),
        *((all_asked, method) for method in METHODS.values()),
    ],
    ids=["operations", *METHODS],
)
def test_what_is_asked_of_no_number_stays_open(programs, enclose):
    enclosures = jax.jit(enclose(programs))(box([-1.0] * 4, [1.0] * 4))
    x = np.random.default_rng(0).uniform(-1, 1, (500, 4))
    x[:3] = [[0.0] * 4, [-1.0] * 4, [1.0] * 4]
    values = jax.jit(jax.vmap(programs))(x)
    for name, y in enclosures.items():
        lower, upper = bounds(y) if isinstance(y, Interval) else (y, y)
        v = np.asarray(values[name])
        assert np.all(np.isnan(v) | (lower <= v) & (v <= upper)), name


@pytest.mark.parametrize("method", METHODS)
def test_what_is_a_number_is_decided(method):
    def decided(x):
        y = jnp.sqrt(x)
        return y >= 0, jnp.isfinite(jnp.log(y)), jnp.isnan(1 / y), y**-1.5 > 0, jnp.maximum(y, -jnp.inf) > 0

    y = jax.jit(METHODS[method](decided))(box([0.5], [2.0]))
    assert [bool(bounds(mask)[0]) for mask in y] == [True, True, False, True, True]
    assert [bool(bounds(mask)[1]) for mask in y] == [True, True, False, True, True]
