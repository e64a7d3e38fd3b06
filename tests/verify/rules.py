"""The rules one by one: elementary functions, arithmetic, comparisons, reductions, products, moved elements."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from oracles import exact

from verify.case import Case, elementwise, of_one, of_two, rounding

__all__ = ["largest", "logistic", "relu", "rule_cases"]

largest, least = (elementwise(function, 2).reduce for function in (arb.max, arb.min))


def rule_cases(dtype):
    """All cases of this module by name, for boxes of this dtype."""
    return {
        **{name: of_one(*pair, bits=200) for name, pair in ELEMENTARY.items()},
        # in float64 XLA's is up to 128 floats from the truth
        "log1p": of_one(jnp.log1p, arb.log1p, bits=200, steps=2048),
        "x**-0.3": of_one(lambda x: x**-0.3, lambda x: (rounding(dtype)(-0.3) * x.log()).exp(), bits=200),
        "pow": of_two(dtype, jnp.power, lambda x, y: (y * x.log()).exp(), bits=200),
        **{name: of_one(*pair) for name, pair in ALGEBRAIC.items()},
        **{name: of_two(dtype, *pair) for name, pair in BINARY.items()},
        **of_arrays(dtype),
    }


def relu(x):
    return arb.max(x, arb(0))


def logistic(x):
    e = (-abs(x)).exp()
    return (1 if x >= 0 else e) / (1 + e)


ELEMENTARY = {
    "exp": (jnp.exp, arb.exp),
    "expm1": (jnp.expm1, arb.expm1),
    "log": (jnp.log, arb.log),
    "sqrt": (jnp.sqrt, arb.sqrt),
    "rsqrt": (lax.rsqrt, arb.rsqrt),
    "tanh": (jnp.tanh, arb.tanh),
    "logistic": (lax.logistic, logistic),
    "erf": (lax.erf, arb.erf),
    "erfc": (lax.erfc, arb.erfc),
    "x**1.5": (lambda x: x**1.5, lambda x: x.sqrt() ** 3),
    "2**x": (lambda x: 2.0**x, lambda x: (x * arb(2).log()).exp()),
}

ALGEBRAIC = {
    "neg": (operator.neg, operator.neg),
    "abs": (jnp.abs, abs),
    "sign": (jnp.sign, arb.sgn),
    "floor": (jnp.floor, arb.floor),
    "ceil": (jnp.ceil, arb.ceil),
    "clip": (lambda x: jnp.clip(x, -1, 2), lambda x: arb.max(arb.min(x, arb(2)), arb(-1))),
    "square": (jnp.square, lambda x: x * x),
    "x x": (lambda x: x * x, lambda x: x * x),
    "x**3": (lambda x: x**3, lambda x: x**3),
    "x**6": (lambda x: x**6, lambda x: x**6),
    "x**-1": (lambda x: x**-1, lambda x: 1 / x),
    "x**-2": (lambda x: x**-2, lambda x: 1 / (x * x)),
    "1 / x": (lambda x: 1 / x, lambda x: 1 / x),
    "x / 3": (lambda x: x / 3, lambda x: x / 3),
    "relu": (jax.nn.relu, relu),
    "where": (lambda x: jnp.where(x > 1, x, -x), lambda x: x if x > 1 else -x),
    "mask": (lambda x: (x > 0) * x, relu),
    "finite": (lambda x: ~jnp.isfinite(x) | (x < 1), lambda x: arb(x < 1)),
    "to float32": (lambda x: x.astype(np.float32), lambda x: x),
    "to float64": (lambda x: x.astype(np.float64), lambda x: x),
    "detached": (lambda x: lax.stop_gradient(x) + lax.optimization_barrier(x), lambda x: x + x),
    "placed": (lambda x: checkpoint_name(jax.device_put(x), "x"), lambda x: x),
}

BINARY = {
    "add": (operator.add, operator.add),
    "sub": (operator.sub, operator.sub),
    "mul": (operator.mul, operator.mul),
    "div": (operator.truediv, operator.truediv),
    "max": (jnp.maximum, arb.max),
    "min": (jnp.minimum, arb.min),
    "select": (lambda x, y: jnp.where(x > y, x, 2 * y), lambda x, y: x if x > y else 2 * y),
    "both": (lambda x, y: (x > 0) & (y > 0), lambda x, y: arb(x > 0 and y > 0)),
    **{
        name: (getattr(operator, name), lambda x, y, name=name: arb(getattr(operator, name)(x, y)))
        for name in ("gt", "ge", "lt", "le", "eq", "ne")
    },
}


def of_arrays(dtype):
    """Reductions, products and movements."""
    weights = np.asarray([[0.3, -1.2, np.finfo(dtype).tiny / 3], [2, 0, 1e3], [-0.7, 0.1, 1e-3], [1, 1, -1]], dtype)
    vector, matrices = ((4,),), ((2, 4), (4, 3))
    return {
        "sum": Case(lambda x: x.sum(), lambda x: x.sum(-1), ((9,),)),
        "reduce_max": Case(jnp.max, lambda x: largest(x, axis=-1), vector),
        "reduce_min": Case(jnp.min, lambda x: least(x, axis=-1), vector),
        "all": Case(lambda x: (x > 0).all(), lambda x: exact(least(x, axis=-1) > 0), vector),
        "any": Case(lambda x: (x > 0).any(), lambda x: exact(largest(x, axis=-1) > 0), vector),
        "clamp": Case(lax.clamp, elementwise(lambda a, x, b: arb.min(arb.max(a, x), b), 3), ((), (), ())),
        "x @ y": Case(operator.matmul, operator.matmul, matrices),
        "x @ w": Case(lambda x: x @ weights, lambda x: x @ exact(weights), vector),
        "w @ x": Case(lambda x: weights.T @ x, lambda x: x @ exact(weights), vector),
        "data @ x": Case(lambda y, x: x @ y, lambda y, x: x @ y, matrices[::-1], constants=1),
        "from int64": Case(*chosen_integers(dtype), vector),
        "moved": Case(functools.partial(moved, jnp), functools.partial(moved, np), vector),
        "scattered": Case(scattered, scattered_oracle, vector),
        "looked up": Case(looked_up, looked_up_oracle, ((4,), ()), constants=1),
        "masks": Case(functools.partial(masks, jnp), functools.partial(masks, np), vector),
        "integers": Case(functools.partial(integers, jnp), functools.partial(integers, np), vector),
    }


def moved(np, x):
    """Elements in other places."""
    pairs = np.swapaxes(np.stack([x, 2 * x], -1), -1, -2)
    y = np.concatenate([x[..., ::-1], pairs.reshape(*x.shape[:-1], 8), np.squeeze(x[..., None], -1)[..., 1:3]], -1)
    return np.concatenate([y[..., np.asarray([2, 0, 2])], np.tile(y, 2), *np.split(y, 2, -1)[::-1]], -1)


def scattered(x):
    x, two = x * lax.iota(x.dtype, 4), jnp.asarray(2)
    padded = lax.pad(x.at[1].set(5), x.dtype.type(7), [(1, 0, 0)])
    return lax.dynamic_update_slice(padded, lax.dynamic_slice(x, (two,), (2,)), (two,))


def scattered_oracle(x):
    x = x * exact(range(4))
    return np.stack([7 + x[..., 0], x[..., 0], x[..., 2], x[..., 3], x[..., 3]], -1)


def looked_up(x, c):
    """Elements named by an index that is known, in the bounds and beyond them."""
    i = jnp.clip(c.astype(np.int32), 0, 5)
    twice = jnp.concatenate([x, 2 * x])
    filled = jnp.take(twice, 2 * i, mode="fill", fill_value=5)
    pair = lax.dynamic_slice(x, (i,), (2,))
    return (
        jnp.take(x, i, mode="clip"),
        filled,
        pair,
        x.at[i].set(filled),
        lax.dynamic_update_slice(x, pair[::-1], (i,)),
    )


def looked_up_oracle(x, c):
    first = np.broadcast_to(np.minimum(np.maximum(np.vectorize(float)(c), 0), 5).astype(int), x.shape[:-1])
    n, start = np.minimum(first, 3)[..., None], np.minimum(first, 2)[..., None]

    def at(x, i):
        return np.take_along_axis(x, i, -1)

    twice = np.concatenate([x, 2 * x], -1)
    filled = np.where(first < 4, at(twice, np.minimum(2 * first, 7)[..., None])[..., 0], arb(5))
    places, pair = np.arange(4), np.concatenate([at(x, start), at(x, start + 1)], -1)
    updated = np.where(places == start, pair[..., 1:], np.where(places == start + 1, pair[..., :1], x))
    return at(x, n)[..., 0], filled, pair, np.where(places == first[..., None], filled[..., None], x), updated


def number_of(np):
    """Booleans and integers as the enclosure has them, or, for an oracle, as numbers."""
    return exact if np is not jnp else lambda x: x


def masks(np, x):
    """Comparisons that are moved, combined and chosen by, and numbers that they choose."""
    number, m = number_of(np), np.asarray(x > 0, bool)
    low, pairs = np.asarray(x < 1, bool), np.stack([m, ~m], -1)
    both = np.concatenate([m[..., ::-1], pairs.reshape(*m.shape[:-1], 8)], -1)
    chosen = np.where(m[..., None], np.stack([x, -x], -1), np.stack([0 * x, 2 * x], -1))
    return number(both), number(np.where(low, m, ~low)), number(pairs.all(-1)), number((m & low).any(-1)), chosen


def integers(np, x):
    """Integers that comparisons choose: moved, compared, and turned into numbers."""
    number = number_of(np)
    i = np.where(np.asarray(x > 1, bool), 2, np.where(np.asarray(x > 0, bool), 1, -3))
    few = np.concatenate([np.maximum(i, 0)[..., ::-1], np.sign(i), ~i], -1)
    return number(few), number(i.max(-1)), number(i == 1), np.where(i >= 1, x, -x), x * number(i.astype(np.int64))


def chosen_integers(dtype):
    """x where it is positive, and elsewhere integers that are no numbers of this type."""

    def f(x):
        return jnp.where(x > 0, x, (lax.iota(np.int64, 4) + (2**62 + 1)).astype(dtype))

    return f, lambda x: np.where(x > 0, x, [arb(2**62 + 1 + i) for i in range(4)])
