"""Affine arithmetic for any JAX function: enclosures that remember what the nodes of a layer have in common.

A zonotope is a value c + sum_k e_k g_k + r with symbols e_k in [-1, 1], which it shares with other values, and an
error of its own, of at most the radius r (Comba & Stolfi 1993; Stolfi & de Figueiredo 1997). Linear maps are exact.
A function of one variable becomes a slope and an error (see `univariate`), a product loses what is quadratic in
the symbols. Before values are mixed, by a matrix or a sum, their own errors become symbols.

The walker is that of `intervals`. Operations without a rule here go through their interval equivalent, which keeps
the range and forgets the symbols. All rounding goes into r (see `rounding`).
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sobolev_utils import intervals
from sobolev_utils.chains import VARIABLE, Program, as_usual, is_array
from sobolev_utils.interval_rules import MOVING, NATURAL_RULES, UNCHANGED, Interval, add, bounds, divide, multiply
from sobolev_utils.rounding import dot_bounds, gamma, round_down, round_up, sum_down
from sobolev_utils.univariate import affine_enclosure, exact_range
from sobolev_utils.walker import walk

__all__ = ["Zonotope", "enclose"]


def enclose(f, *, max_generators=None):
    """The affine extension of f: F(X) encloses {f(x): x in X}, rounding included, as `intervals.enclose` does.

    F takes and returns what that of `intervals.enclose` does; each entry of an `Interval` among its arguments is a
    symbol. With `max_generators`, a value that has more symbols gives up its oldest, those of the arguments last.

    Raises NotImplementedError, naming the primitive and its source line, for an operation without a rule.
    """
    return intervals.extension(f, lambda: _domain(max_generators))


class Zonotope:
    """c + sum_k e_k g_k + r: a centre, generators (n, *shape), and a radius.

    `layout` names the symbols: pairs of the number of a block and its size, in the order of the generators.
    """

    def __init__(self, centre, generators, radius, layout):
        # XLA must not see two operations at once: it would reorder their constants
        self.centre, self.generators, self.radius = lax.optimization_barrier((centre, generators, radius))
        self.shape, self.dtype, self.layout = centre.shape, centre.dtype, layout
        self.mixed = self.range = None

    @functools.cached_property
    def spread(self):
        """sum_k |g_k| + r, rounded up."""
        total = jnp.abs(self.generators).sum(axis=0) + self.radius
        return total * (1 + 2 * gamma(len(self.generators) + 1, self.dtype))

    @property
    def reach(self):
        """|c| + spread, which bounds whatever is rounded."""
        return jnp.abs(self.centre) + self.spread

    @functools.cached_property
    def interval(self):
        """What the symbols allow, within `range`, what interval arithmetic has found."""
        bad = ~jnp.isfinite(self.centre + self.spread)
        lower, upper = round_down(self.centre - self.spread, 2), round_up(self.centre + self.spread, 2)
        lower, upper = jnp.where(bad, -jnp.inf, lower), jnp.where(bad, jnp.inf, upper)
        if self.range is None:
            return Interval(lower, upper)
        return Interval(jnp.maximum(lower, self.range.lower), jnp.minimum(upper, self.range.upper))

    lower = property(lambda self: self.interval.lower)
    upper = property(lambda self: self.interval.upper)


def _domain(limit):
    """The lift of an interval into affine arithmetic, and the rules, for one evaluation."""
    symbols = _Symbols(limit)
    affine = {
        **dict.fromkeys(MOVING, _moving),
        "neg": lambda eqn, x: _negative(x),
        "add": lambda eqn, a, b: _add(a, b),
        "add_any": lambda eqn, a, b: _add(a, b),
        "sub": lambda eqn, a, b: _add(a, _negative(b)),
        "mul": lambda eqn, a, b: _bilinear(jnp.multiply, 1, a, b),
        "div": lambda eqn, a, b: _bilinear(jnp.multiply, 1, a, _reciprocal(b, rules)),
        "max": lambda eqn, a, b: _add(b, _positive_part(_add(a, _negative(b)), rules)),
        "min": lambda eqn, a, b: _add(b, _negative(_positive_part(_add(b, _negative(a)), rules))),
        "select_n": _select,
        "convert_element_type": _convert,
        "reduce_sum": lambda eqn, x: _sum(symbols.mix(x), eqn.params["axes"]),
        "dot_general": lambda eqn, a, b: _dot(symbols.mix(a), symbols.mix(b), eqn.params["dimension_numbers"]),
        "univariate": lambda program, x: _univariate(program, x, rules),
    }
    rules = dict.fromkeys(NATURAL_RULES, _by_intervals)
    rules |= {name: _within_range(rule, intervals.INTERVAL_RULES[name]) for name, rule in affine.items()}
    rules |= dict.fromkeys(UNCHANGED, lambda eqn, *args: args)
    return symbols.of, rules


def _within_range(affine, natural):
    """A rule of affine arithmetic with the range that interval arithmetic finds: neither is always the tighter."""

    def rule(eqn, *values):
        outputs = affine(eqn, *values)
        ranges = natural(eqn, *map(_range, values))
        for y, range_ in zip(*(v if isinstance(v, list | tuple) else [v] for v in (outputs, ranges)), strict=True):
            if isinstance(y, Zonotope) and y.range is None:
                y.range = range_ if isinstance(range_, Interval) else Interval(*bounds(range_))
        return outputs

    return rule


def _range(x):
    return x.interval if isinstance(x, Zonotope) else x


class _Symbols:
    """Numbers for the blocks of symbols of one evaluation, and the bound of how many a value may have."""

    def __init__(self, limit):
        self.limit, self.numbers, self.arguments = limit, itertools.count(), 0

    def of(self, interval):
        """An argument, each entry a symbol."""
        self.arguments += 1
        return self.mix(_ball(interval))

    def mix(self, x):
        """The same value with its own errors turned into symbols, the same ones each time."""
        if not isinstance(x, Zonotope):
            return x
        if x.mixed is None:
            size, layout, radius = math.prod(x.shape), x.layout, x.radius
            for block in sorted(layout, key=lambda block: (block[0] < self.arguments, block)):
                if self.limit is not None and sum(n for _, n in layout) + size > self.limit:
                    radius = radius + jnp.abs(_laid_out(x, (block,))).sum(axis=0) * (1 + 2 * gamma(size, x.dtype))
                    layout = tuple(other for other in layout if other != block)
            generators = _laid_out(x, layout)
            if self.limit is None or size <= self.limit:
                own = jnp.diag(_computed_once(_up(radius, 1))[0].ravel()).reshape(size, *x.shape)
                generators, layout = jnp.concatenate([generators, own]), (*layout, (next(self.numbers), size))
                radius = jnp.zeros_like(radius)
            x.mixed = Zonotope(x.centre, generators, radius, layout)
            x.mixed.mixed, x.mixed.range = x.mixed, x.interval
        return x.mixed


def _laid_out(x, layout):
    """The generators of x for the blocks of another layout, zero for those it has not."""
    if x.layout == layout:
        return x.generators
    places = itertools.accumulate((n for _, n in x.layout), initial=0)
    parts = {block: x.generators[place : place + block[1]] for block, place in zip(x.layout, places, strict=False)}
    zeros = [parts.get(block, jnp.zeros((block[1], *x.shape), x.dtype)) for block in layout]
    return jnp.concatenate([x.generators[:0], *zeros])


def _common(*values):
    """The layout of all symbols of some zonotopes."""
    return tuple(sorted({block for x in values for block in x.layout}))


def _ball(interval):
    """An interval as a midpoint and a radius."""
    middle = interval.midpoint
    half = jnp.maximum(round_up(interval.upper - middle), round_up(middle - interval.lower))
    return _without_symbols(middle, jnp.where(interval.lower == interval.upper, 0, half))


def _point(x):
    """A constant as a zonotope; XLA reads what is subnormal as zero."""
    smallest = jnp.finfo(x.dtype).smallest_normal
    lower, upper = bounds(x)
    return _without_symbols(jnp.where(lower == upper, lower, 0), jnp.where(lower == upper, 0, smallest))


def _without_symbols(centre, radius):
    return Zonotope(centre, jnp.zeros((0, *centre.shape), centre.dtype), radius, ())


def _up(radius, n):
    """A radius that n operations have computed and underflow has diminished, rounded up."""
    info = jnp.finfo(radius.dtype)
    return round_up(radius * (1 + 16 * info.epsneg) + 8 * (n + 1) * info.smallest_normal)


def _computed_once(*arrays):
    """The same arrays. XLA would work them out anew for each generator that they multiply, and drops its own barriers
    before it does; a loop that never turns stays.
    """

    def without_nan(arrays):
        return [jnp.where(jnp.isnan(x), jnp.inf, x) for x in arrays]

    return lax.while_loop(lambda arrays: jnp.isnan(arrays[0]).any(), without_nan, list(arrays))


def _negative(x):
    return Zonotope(-x.centre, -x.generators, x.radius, x.layout) if isinstance(x, Zonotope) else -x


def _add(a, b):
    if is_array(a) and is_array(b):
        return _ball(add(a, b))
    a, b = (_point(x) if is_array(x) else x for x in (a, b))
    layout = _common(a, b)
    # in a jaxpr a scalar may be added to an array
    generators = jax.vmap(jnp.add)(_laid_out(a, layout), _laid_out(b, layout))
    error = 4 * jnp.finfo(a.dtype).epsneg * (a.reach + b.reach)
    return Zonotope(a.centre + b.centre, generators, _up(a.radius + b.radius + error, len(generators)), layout)


def _bilinear(product, n, a, b):
    """A product that sums n terms, of zonotopes or constants: (c + d)(p + q) = c p + c q + d p + d q.

    c p is the centre, c q + d p are the generators; d q, quadratic in the symbols, goes into the radius, at most
    the product of the spreads.
    """
    if is_array(a) and is_array(b):
        return _ball(multiply(a, b))
    if is_array(a):
        return _bilinear(lambda x, y: product(y, x), n, b, a)
    g, smallest = gamma(n + 8, a.dtype), jnp.finfo(a.dtype).smallest_normal
    on_a, on_b = jax.vmap(product, (0, None)), jax.vmap(product, (None, 0))
    if is_array(b):
        # smallest / g, times the g beside it, makes up for subnormal constants that XLA reads as zero
        radius = product(a.radius + (g * a.reach + smallest), jnp.abs(b) + smallest / g)
        radius = _up(radius * (1 + 2 * g), n * len(a.generators))
        return Zonotope(product(a.centre, b), on_a(a.generators, b), radius, a.layout)
    layout = _common(a, b)
    generators = on_a(_laid_out(a, layout), b.centre) + on_b(a.centre, _laid_out(b, layout))
    radius = product(a.radius, jnp.abs(b.centre)) + product(jnp.abs(a.centre), b.radius)
    radius = radius + product(a.spread, b.spread) + 2 * g * product(a.reach, b.reach)
    radius = _up(radius * (1 + 2 * g), n * len(generators))
    return Zonotope(product(a.centre, b.centre), generators, radius, layout)


def _dot(a, b, dimensions):
    if is_array(a) and is_array(b):
        return _ball(Interval(*dot_bounds(a, bounds(b), dimensions)))
    a, b = (x.astype(jnp.result_type(a, b)) if is_array(x) else x for x in (a, b))
    n = math.prod(a.shape[axis] for axis in dimensions[0][0])
    return _bilinear(lambda x, y: lax.dot_general(x, y, dimensions, precision=lax.Precision.HIGHEST), n, a, b)


def _sum(x, axes):
    if is_array(x):
        return _ball(Interval(sum_down(x, axes), -sum_down(-x, axes)))
    n = math.prod(x.shape[axis] for axis in axes)
    generators = x.generators.sum(axis=tuple(axis + 1 for axis in axes))
    g = gamma(n + 8, x.dtype)
    radius = (x.radius + g * x.reach).sum(axis=axes) * (1 + 2 * g)
    return Zonotope(x.centre.sum(axis=axes), generators, _up(radius, n * len(generators)), x.layout)


def _univariate(program, x, rules):
    """slope * x + offset, or the steps of the program one by one where they are affine."""
    point = jax.ShapeDtypeStruct(x.shape, x.dtype)
    if not jnp.issubdtype(jax.eval_shape(program, point).dtype, jnp.floating):
        return exact_range(program, x.interval)
    if program.is_affine:
        closed = jax.make_jaxpr(program)(point)
        steps = {name: rule for name, rule in rules.items() if name != "univariate"}
        return walk(closed.jaxpr, closed.consts, [x], steps)[0]
    slope, offset = affine_enclosure(program, x.interval)
    constant = _ball(offset)
    slope, centre, radius = _computed_once(slope, constant.centre, constant.radius)

    def scaled(value, by=slope):
        return jnp.where(by == 0, 0, by * value)

    error = 4 * jnp.finfo(x.dtype).epsneg * (scaled(x.reach, jnp.abs(slope)) + jnp.abs(centre))
    radius = _up(scaled(x.radius, jnp.abs(slope)) + radius + error, len(x.generators))
    return Zonotope(scaled(x.centre) + centre, scaled(x.generators), radius, x.layout)


def _positive_part(x, rules):
    return _univariate(Program("max", jnp.maximum, (VARIABLE, np.zeros((), x.dtype))), x, rules)


def _reciprocal(x, rules):
    one = np.ones((), x.dtype)
    return _ball(divide(one, x)) if is_array(x) else _univariate(Program("div", lax.div, (one, VARIABLE)), x, rules)


def _by_intervals(eqn, *values):
    """An operation on the ranges of its operands, which forgets the symbols."""
    outputs = NATURAL_RULES[eqn.primitive.name](eqn, *map(_range, values))
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    return [_ball(y) if isinstance(y, Interval) and jnp.issubdtype(y.dtype, jnp.floating) else y for y in outputs]


def _moving(eqn, *values):
    """Elements copied to other places: so are the centres, the generators and the radii."""
    if all(map(is_array, values)):
        return as_usual(eqn, *values)
    values = [_point(x) if is_array(x) and jnp.issubdtype(x.dtype, jnp.floating) else x for x in values]
    is_moved = [isinstance(x, Zonotope) for x in values]

    def move(*parts):
        moved = as_usual(eqn, *(part if m else x for part, x, m in zip(parts, values, is_moved, strict=True)))
        return list(moved) if eqn.primitive.multiple_results else [moved]

    layout = _common(*(x for x, m in zip(values, is_moved, strict=True) if m))
    centres = move(*(getattr(x, "centre", 0) for x in values))
    radii = move(*(getattr(x, "radius", 0) for x in values))
    generators = jax.vmap(move, [0 if m else None for m in is_moved], axis_size=sum(n for _, n in layout))(
        *(_laid_out(x, layout) if m else 0 for x, m in zip(values, is_moved, strict=True))
    )
    outputs = [Zonotope(*parts, layout) for parts in zip(centres, generators, radii, strict=True)]
    return outputs if eqn.primitive.multiple_results else outputs[0]


def _select(eqn, which, *cases):
    """The case that `which` names; the hull of the ranges where it is undecided."""
    if is_array(which):
        return _moving(eqn, which, *cases)
    decided = which.lower == which.upper
    hull = _ball(NATURAL_RULES["select_n"](eqn, which, *(Interval(*bounds(x)) for x in cases)))
    chosen = _moving(eqn, which.lower, *(_point(x) if is_array(x) else x for x in cases))
    centre = jnp.where(decided, chosen.centre, hull.centre)
    radius = jnp.where(decided, chosen.radius, hull.radius)
    return Zonotope(centre, jnp.where(decided, chosen.generators, 0), radius, chosen.layout)


def _convert(eqn, x):
    new = np.dtype(eqn.params["new_dtype"])
    if not isinstance(x, Zonotope) or not jnp.issubdtype(new, jnp.floating):
        return _by_intervals(eqn, x)
    if new == x.dtype:
        return x
    error = 4 * jnp.finfo(new).epsneg * x.reach
    radius = _up((x.radius + error).astype(new), len(x.generators))
    return Zonotope(x.centre.astype(new), x.generators.astype(new), radius, x.layout)
