"""A bounded sample of `make verify`, and what shows that it would notice an enclosure that is too narrow."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import DTYPES
from verify import METHODS, WAYS, networks, primitives
from verify.programs import program_cases
from verify.rules import rule_cases

from sobolev_utils.enclosures.intervals import INTERVAL_RULES, Interval, enclose

CASES = {dtype: rule_cases(dtype) | program_cases(dtype) for dtype in DTYPES}
RULES, PROGRAMS = list(rule_cases(np.float32)), list(program_cases(np.float32))
PRECISIONS = dict(zip(RULES + PROGRAMS, itertools.cycle(DTYPES), strict=False))
MASKED = ["looked up", "masks", "integers"]
# every rule in interval arithmetic, some programs, and some rules by each method
SAMPLE = [(name, "intervals") for name in RULES + PROGRAMS[::9]] + [
    (name, method) for method in METHODS for name in RULES[::13] + MASKED
]
NETWORKS = list(networks.networks(seeds=range(3), depths=[2]))[::5]


@pytest.mark.parametrize("name, method", list(dict.fromkeys(SAMPLE)))
def test_no_image_of_a_point_is_outside_of_the_enclosure_of_its_box(name, method):
    dtype = PRECISIONS[name]
    tally = primitives.verify(CASES[dtype][name], METHODS[method], dtype, seed=1, n=24)
    assert tally.compared > 24 and tally.passes, tally


@pytest.mark.parametrize("network, method", list(zip(NETWORKS, itertools.cycle(WAYS), strict=False)), ids=str)
def test_no_value_or_adjoint_of_a_node_is_outside(network, method):
    tally = networks.verify(network, WAYS[method], batches=1, widths=(1e-2, 1.4))
    assert tally.passes, tally


def test_every_rule_has_a_case():
    covered = {
        name
        for case in CASES[np.float32].values()
        for shapes in [[jax.ShapeDtypeStruct(shape, np.float32) for shape in case.shapes]]
        for name in re.findall(r"= (\w+)[\[ ]", str(jax.make_jaxpr(case.f)(*shapes)))
    }
    # primitives of later versions of JAX, and a rule for more than one
    others = {"one_minus_square", "expand_dims", "unstack", "univariate"}
    assert set(INTERVAL_RULES) - covered <= others


def hull_of_images(f):
    """Not an enclosure: the hull of the images of the ends and of the midpoint, as they are rounded."""

    def extension(*args):
        ends = [x if isinstance(x, Interval) else Interval(x, x) for x in args]
        middles = [(0.5 * x.lower + 0.5 * x.upper).astype(x.dtype) for x in ends]
        images = [f(*x) for x in ([x.lower for x in ends], middles, [x.upper for x in ends])]
        return jax.tree.map(lambda *y: Interval(jnp.min(jnp.stack(y), 0), jnp.max(jnp.stack(y), 0)), *images)

    return extension


@pytest.mark.parametrize("name", ["exp", "add", "div", "square", "gt", "select", "gelu'", "sum", "x @ y"])
def test_the_hull_of_some_images_is_noticed(name):
    tally = primitives.verify(CASES[np.float32][name], hull_of_images, np.float32, seed=1, n=24)
    assert 0 < tally.outside < tally.compared and not tally.passes
    assert re.search(r"has the image .* outside of \[", str(tally))


def test_the_hull_of_some_values_and_adjoints_is_noticed():
    network = NETWORKS[0]
    tally = networks.verify(network, hull_of_images, batches=1, widths=(0.1,))
    assert 0 < tally.outside and not tally.passes


def test_bounds_that_are_not_numbers_are_noticed():
    def broken(f):
        return lambda *args: jax.tree.map(lambda end: end * jnp.nan, enclose(f)(*args))

    tally = primitives.verify(CASES[np.float32]["exp"], broken, np.float32, seed=1, n=24)
    assert tally.outside == tally.compared == 96
