"""The affine extension of JAX functions: enclosures that remember what the nodes of a layer have in common.

Before values are mixed, by a matrix or a sum, their own errors become symbols. A function of one variable becomes a
slope and an error (see `ranges`). Operations without a rule here have the range that interval arithmetic finds.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sobolev_utils.enclosures import affine, intervals
from sobolev_utils.enclosures.elementwise import VARIABLE, Program, as_usual, is_array, listed
from sobolev_utils.enclosures.interval import Interval, bounds, is_floating
from sobolev_utils.enclosures.interval_arithmetic import converted, divide
from sobolev_utils.enclosures.interval_rules import MOVING, NATURAL_RULES, UNCHANGED
from sobolev_utils.enclosures.jaxpr import walk
from sobolev_utils.enclosures.kernels import known, namespace
from sobolev_utils.enclosures.ranges import affine_enclosure, exact_range
from sobolev_utils.enclosures.zonotope import Symbols, Zonotope, ball, point

__all__ = ["enclose"]


def enclose(f, *, max_generators=None):
    """The affine extension of f: F(X) encloses {f(x): x in X}, rounding included, as `intervals.enclose` does.

    Arguments, results and Raises are those of `intervals.enclose`; each entry of an `Interval` argument is a symbol.
    A value that is mixed keeps at most `max_generators` symbols, if given: the oldest go first, the arguments' last.
    """
    return intervals.extension(f, lambda: _domain(max_generators))


def _domain(limit):
    """The lift of an interval into affine arithmetic, and the rules, for one evaluation."""
    symbols = Symbols(limit)
    affine_rules = {
        **dict.fromkeys(MOVING, _moving),
        "neg": lambda eqn, x: affine.negative(x),
        **dict.fromkeys(["add", "add_any"], lambda eqn, a, b: affine.add(a, b)),
        "sub": lambda eqn, a, b: affine.add(a, affine.negative(b)),
        "mul": lambda eqn, a, b: affine.multiply(a, b),
        "div": lambda eqn, a, b: affine.multiply(a, _reciprocal(b, rules)),
        "max": lambda eqn, a, b: affine.add(b, _positive_part(a, b, rules)),
        "min": lambda eqn, a, b: affine.add(b, affine.negative(_positive_part(b, a, rules))),
        "select_n": _select,
        "convert_element_type": _convert,
        "reduce_sum": lambda eqn, x: affine.total(symbols.mix(x), eqn.params["axes"]),
        "dot_general": lambda eqn, a, b: affine.dot(symbols.mix(a), symbols.mix(b), eqn.params["dimension_numbers"]),
    }
    rules = {name: _within_range(name, affine_rules.get(name)) for name in NATURAL_RULES}
    rules["univariate"] = lambda program, x: _univariate(program, x, rules)
    rules |= dict.fromkeys(UNCHANGED, lambda eqn, *args: args)
    return symbols.of, rules


def _within_range(name, affine_rule):
    """A rule of affine arithmetic within the range that interval arithmetic finds: neither is always the tighter.

    The range alone, which forgets the symbols, where there is no rule, and for operations from or to booleans and
    integers, which have no symbols; only a select takes an undecided boolean.
    """

    def rule(eqn, *values):
        ranges = NATURAL_RULES[name](eqn, *(x.interval if isinstance(x, Zonotope) else x for x in values))
        has_symbols = name == "select_n" or not any(isinstance(x, Interval) for x in values)
        if affine_rule is None or not has_symbols or not all(map(is_floating, ranges)):
            return [ball(y) if isinstance(y, Interval) and is_floating(y) else y for y in ranges]
        outputs = listed(affine_rule(eqn, *values))
        for y, natural in zip(outputs, ranges, strict=True):
            if isinstance(y, Zonotope) and y.range is None:
                y.range = natural if isinstance(natural, Interval) else Interval(*bounds(natural))
        return outputs

    return rule


def _univariate(program, x, rules):
    """slope * x + offset, or the steps of the program one by one where they are affine; within the exact range."""
    if is_array(x):
        y = exact_range(program, x)
        return ball(y) if is_floating(y) else y
    if program.is_affine:
        closed = jax.make_jaxpr(program)(jax.ShapeDtypeStruct(x.shape, x.dtype))
        steps = {name: rule for name, rule in rules.items() if name != "univariate"}
        return walk(closed.jaxpr, closed.consts, [x], steps)[0]
    if not jnp.issubdtype(jax.eval_shape(program, jax.ShapeDtypeStruct(x.shape, x.dtype)).dtype, jnp.floating):
        return exact_range(program, x.interval)
    slope, offset, everything = affine_enclosure(program, x.interval)
    y = affine.scaled(x, slope, offset)
    y.range = everything
    return y


def _positive_part(a, b, rules):
    """max(a - b, 0)."""
    x = affine.add(a, affine.negative(b))
    return _univariate(Program("max", jnp.maximum, (VARIABLE, np.zeros((), x.dtype))), x, rules)


def _reciprocal(x, rules):
    one = np.ones((), x.dtype)
    return ball(divide(one, x)) if is_array(x) else _univariate(Program("div", lax.div, (one, VARIABLE)), x, rules)


def _moving(eqn, *values):
    """Elements copied to other places: so are the centres, the generators and the radii."""
    if all(map(is_array, values)):
        return as_usual(eqn, *values)
    values = [point(x) if is_array(x) and is_floating(x) else x for x in values]
    moved = [isinstance(x, Zonotope) for x in values]
    # what fills in where an index is out of bounds is a number, and depends on no symbol
    filled = eqn.replace(params=eqn.params | {"fill_value": 0}) if eqn.primitive.name == "gather" else eqn

    def move(parts, eqn=filled):
        return listed(
            as_usual(eqn, *(next(parts) if is_moved else x for x, is_moved in zip(values, moved, strict=True)))
        )

    zonotopes = [x for x in values if isinstance(x, Zonotope)]

    def blocks(block):
        own = [x.generators.get(block) for x in zonotopes]
        parts = [np.zeros(x.shape, x.dtype) if g is None else g for x, g in zip(zonotopes, own, strict=True)]
        return known(jax.vmap(lambda *parts: move(iter(parts)), [None if g is None else 0 for g in own])(*parts))

    centres = move(iter([x.centre for x in zonotopes]), eqn)
    radii = move(iter([x.radius for x in zonotopes]))
    generators = {block: blocks(block) for x in zonotopes for block in x.generators}
    return [
        Zonotope(centre, radius, {block: outputs[i] for block, outputs in generators.items()})
        for i, (centre, radius) in enumerate(zip(centres, radii, strict=True))
    ]


def _select(eqn, which, *cases):
    """The case that `which` names; the hull of the ranges where it is undecided."""
    if is_array(which):
        return _moving(eqn, which, *cases)
    decided = which.lower == which.upper
    (hull,) = map(ball, NATURAL_RULES["select_n"](eqn, which, *(Interval(*bounds(x)) for x in cases)))
    (chosen,) = _moving(eqn, which.lower, *(point(x) if is_array(x) else x for x in cases))
    where = namespace(decided, chosen.centre).where
    centre, radius = (where(decided, *both) for both in ((chosen.centre, hull.centre), (chosen.radius, hull.radius)))
    return Zonotope(centre, radius, {block: where(decided, g, 0) for block, g in chosen.generators.items()})


def _convert(eqn, x):
    new = np.dtype(eqn.params["new_dtype"])
    if is_array(x):
        y = converted(x, new)
        return y if is_array(y) else ball(y)
    return affine.converted(x, new)
