"""Programs made of the rules: activations and their derivatives, loops, normalisations, the closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb
from jax import lax
from jax.scipy.stats import norm
from oracles import exact, random_basket

from verify.case import Case, elementwise, of_one, of_two, pulled_back, rounding, slope
from verify.rules import largest, logistic, relu

__all__ = ["program_cases"]

exp, log, sqrt = (elementwise(function, 1) for function in (arb.exp, arb.log, arb.sqrt))


def program_cases(dtype):
    """All cases of this module by name, for boxes of this dtype."""
    weights = np.asarray([0.3, 2, -0.7, 1], dtype)
    vector = ((4,),)
    return {
        **{
            name: of_one(*pair, bits=200, around=EXTREMA.get(name, ()))
            for name, pair in (SMOOTH | with_constants(dtype)).items()
        },
        **{name: of_one(*pair, around=EXTREMA.get(name, ())) for name, pair in ALGEBRAIC.items()},
        **{name: of_two(dtype, *pair, bits=200) for name, pair in BINARY.items()},
        "scan": Case(*recurrence(weights), vector),
        "custom_vjp": Case(slope(doubled), lambda x: 4 * x, vector),
        "remat": Case(slope(jax.checkpoint(lambda x: x * x * x)), lambda x: 3 * x * x, vector),
        "norm": Case(jnp.linalg.norm, lambda x: sqrt((x * x).sum(-1)), vector, bits=1000),
        "layer norm": Case(*standardisation(dtype), vector, bits=1000),
        "softmax": Case(jax.nn.softmax, softmax, vector, bits=200),
        "logsumexp": Case(jax.nn.logsumexp, lambda x: log(exp(x).sum(-1)), vector, bits=200),
        "bachelier": Case(*bachelier(dtype), ((3,),), bits=200),
    }


def softplus(x):
    return relu(x) + (-abs(x)).exp().log1p()


def density(x, c):
    """The normal density, c being the rounding of constants."""
    return (-x * x / 2).exp() / c(2 * np.pi).sqrt()


def distribution(x, c):
    """The normal distribution function."""
    return (-c(np.sqrt(2)) * x / 2).erfc() / 2


SMOOTH = {
    "silu": (jax.nn.silu, lambda x: x * logistic(x)),
    "softplus": (jax.nn.softplus, softplus),
    "elu": (jax.nn.elu, lambda x: x if x > 0 else x.expm1()),
    "x exp(-x x)": (lambda x: x * jnp.exp(-x * x), lambda x: x * (-x * x).exp()),
    "log(1 + exp(x))": (lambda x: jnp.log(1 + jnp.exp(x)), softplus),
    "sqrt(1 + x x)": (lambda x: jnp.sqrt(1 + x * x), lambda x: (1 + x * x).sqrt()),
    "tanh(3 x - 1)": (lambda x: jnp.tanh(3 * x - 1), lambda x: (3 * x - 1).tanh()),
    "exp'": (slope(jnp.exp), arb.exp),
    "log'": (slope(jnp.log), lambda x: 1 / x if x > 0 else arb("nan")),
    "sqrt'": (slope(jnp.sqrt), lambda x: x.rsqrt() / 2),
    "tanh'": (slope(jnp.tanh), lambda x: x.sech() ** 2),
    "sigmoid'": (slope(jax.nn.sigmoid), lambda x: logistic(x) * logistic(-x)),
    "silu'": (slope(jax.nn.silu), lambda x: logistic(x) * (1 + x * logistic(-x))),
    "softplus'": (slope(jax.nn.softplus), logistic),
    "elu'": (slope(jax.nn.elu), lambda x: arb(1) if x > 0 else x.exp()),
    "(x exp(-x x))'": (slope(lambda x: x * jnp.exp(-x * x)), lambda x: (1 - 2 * x * x) * (-x * x).exp()),
}


def with_constants(dtype):
    """Functions with constants that are rounded."""
    c = rounding(dtype)
    gelu = functools.partial(jax.nn.gelu, approximate=False)
    half_root_two, two_over_root_pi, cubic = c(np.sqrt(2)) / 2, c(2 / np.sqrt(np.pi)), c(0.044715)

    def bell(scale, x):
        """The derivative of erf(scale x)."""
        return scale * two_over_root_pi * (-((scale * x) ** 2)).exp()

    def inner(x):
        return c(np.sqrt(2 / np.pi)) * (x + cubic * x * x * x)

    def tanh_gelu_slope(x):
        inner_slope = c(np.sqrt(2 / np.pi)) * (1 + 3 * cubic * x * x)
        return (1 + inner(x).tanh() + x * inner(x).sech() ** 2 * inner_slope) / 2

    def gelu_slope(x):
        return ((-c(np.sqrt(0.5)) * x).erfc() + x * bell(c(np.sqrt(0.5)), x)) / 2

    return {
        "gelu": (gelu, lambda x: x * (-c(np.sqrt(0.5)) * x).erfc() / 2),
        "gelu'": (slope(gelu), gelu_slope),
        "tanh gelu": (jax.nn.gelu, lambda x: x * (1 + inner(x).tanh()) / 2),
        "tanh gelu'": (slope(jax.nn.gelu), tanh_gelu_slope),
        "erf'": (slope(lax.erf), lambda x: bell(1, x)),
        "normal pdf": (norm.pdf, lambda x: density(x, c)),
        "normal pdf'": (slope(norm.pdf), lambda x: -x * density(x, c)),
        "normal cdf": (norm.cdf, lambda x: distribution(x, c)),
        "normal cdf'": (slope(norm.cdf), lambda x: bell(half_root_two, x) / 2),
    }


ALGEBRAIC = {
    "1 - x x": (lambda x: 1 - x * x, lambda x: 1 - x * x),
    "x x x - x": (lambda x: x * x * x - x, lambda x: x * x * x - x),
    "x / (1 + x x)": (lambda x: x / (1 + x * x), lambda x: x / (1 + x * x)),
    "(1 / x)'": (slope(lambda x: 1 / x), lambda x: -1 / (x * x)),
    "relu'": (slope(jax.nn.relu), lambda x: arb(x > 0)),
}

BINARY = {
    "logaddexp": (jnp.logaddexp, lambda x, y: arb.max(x, y) + (-abs(x - y)).exp().log1p()),
    "exp(x) y": (lambda x, y: jnp.exp(x) * y, lambda x, y: x.exp() * y),
    "relu'(x) y": (pulled_back(jax.nn.relu), lambda x, y: y if x > 0 else arb(0)),
    **{
        f"{name}(x) y": (pulled_back(f), lambda x, y, name=name: y * SMOOTH[name][1](x))
        for name, f in {"tanh'": jnp.tanh, "silu'": jax.nn.silu, "softplus'": jax.nn.softplus}.items()
    },
}

# of those above, but for those at zero
EXTREMA = {
    "silu": (-1.2784645427610735,),
    "silu'": (-2.3993572805154684, 2.3993572805154684),
    "gelu": (-0.7517915246935645,),
    "gelu'": (-np.sqrt(2), np.sqrt(2)),
    "tanh gelu": (-0.7524614220710163,),
    "tanh gelu'": (-1.4185040087908283, 1.4185040087908283),
    "x exp(-x x)": (-np.sqrt(0.5), np.sqrt(0.5)),
    "(x exp(-x x))'": (-np.sqrt(1.5), np.sqrt(1.5)),
    "normal pdf'": (-1, 1),
    "x x x - x": (-np.sqrt(1 / 3), np.sqrt(1 / 3)),
    "x / (1 + x x)": (-1, 1),
}


def recurrence(weights):
    """A scan, and the loop."""

    def scan(x):
        return lax.scan(lambda carry, w: (carry * w + x, carry[:2]), x, weights, reverse=True)

    def loop(x):
        carry, outputs = x, []
        for w in exact(weights[::-1]):
            outputs.append(carry[..., :2])
            carry = carry * w + x
        return carry, np.stack(outputs[::-1], -2)

    return scan, loop


@jax.custom_vjp
def doubled(x):
    return jnp.sum(x * x)


doubled.defvjp(lambda x: (doubled(x), x), lambda x, g: (4 * g * x,))


def standardisation(dtype):
    """Layer normalisation."""
    epsilon = dtype(1e-5)

    def by(sqrt, epsilon, x):
        centred = x - x.sum(-1, keepdims=True) / 4
        return centred / sqrt((centred * centred).sum(-1, keepdims=True) / 4 + epsilon)

    return functools.partial(by, jnp.sqrt, epsilon), functools.partial(by, sqrt, arb(float(epsilon)))


def softmax(x):
    e = exp(x - largest(x, axis=-1)[..., None])
    return e / e.sum(-1, keepdims=True)


def bachelier(dtype):
    """Value, deltas and gamma of the call on a basket: the closed form."""
    basket, c = random_basket(), rounding(dtype)
    deviation, weights = c(basket.deviation), exact(basket.weights.astype(dtype))
    pdf, cdf = (elementwise(lambda d, f=f: f(d, c), 1) for f in (density, distribution))

    def closed_form(x):
        d = (x @ weights - c(basket.strike)) / deviation
        return deviation * (d * cdf(d) + pdf(d)), cdf(d)[..., None] * weights, pdf(d) / deviation

    return lambda x: (basket.value(x), basket.delta(x), basket.gamma(x)), closed_form
