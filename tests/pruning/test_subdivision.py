"""Unions over sub-boxes: still enclosures, and as tight as one has patience for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import assert_encloses, assert_within, random_surrogate

from sobolev_utils.enclosures.branch_and_bound import enclose_subdivided
from sobolev_utils.enclosures.intervals import Interval, box, enclose
from sobolev_utils.pruning.attained import inside
from sobolev_utils.pruning.significance import analyse, values_and_adjoints
from sobolev_utils.pruning.subdivision import analyse_subdivided

MODEL = random_surrogate(widths=(4, 3))
LOWER, UPPER = np.array([0.2, 0.3, 0.1]), np.array([1.7, 1.8, 1.6])
BOX = box(LOWER, UPPER)


@pytest.fixture(scope="module")
def reached():
    return inside(MODEL, BOX, samples=256)


def total(analysis):
    return float(sum(jnp.sum(s) for s in analysis.by_layer))


def test_the_union_encloses_what_samples_find_and_is_tighter(reached):
    union = analyse_subdivided(MODEL, BOX, reached, method="zonotopes", boxes=200, batch=32)
    x = LOWER + np.random.default_rng(0).uniform(size=(3000, 3)) * (UPPER - LOWER)
    points = jax.vmap(lambda x: values_and_adjoints(MODEL, x))(jnp.asarray(x))
    assert_encloses(union, points)
    whole = analyse(MODEL, BOX, method="zonotopes")
    assert 0 <= total(union) - total(reached) < 0.5 * (total(whole) - total(reached))


def test_more_sub_boxes_are_never_wider_and_the_same_ones_the_same(reached):
    few, again, more = (analyse_subdivided(MODEL, BOX, reached, boxes=n, batch=16) for n in (20, 20, 150))
    for a, b, c in zip(few.by_layer, again.by_layer, more.by_layer, strict=True):
        assert jnp.array_equal(a, b) and jnp.all(c <= b)


@pytest.mark.parametrize("limit", [{"tolerance": 1e6}, {"seconds": 0.0}], ids=str)
def test_it_stops_where_the_tolerance_is_met_or_time_is_up(capsys, reached, limit):
    analyse_subdivided(MODEL, BOX, reached, boxes=500, batch=16, **limit)
    assert "1/500" in capsys.readouterr().out


def test_a_turned_box_is_divided_along_its_own_axes():
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    t = box(turn.T @ np.ones(3) - 0.3, turn.T @ np.ones(3) + 0.3)
    reached = inside(MODEL, t, axes=turn, samples=256)
    union = analyse_subdivided(MODEL, t, reached, axes=turn, boxes=100, batch=16)
    assert_within(reached, union)
    assert total(union) < total(analyse(MODEL, t, axes=turn))


def test_a_box_of_one_point_is_left_alone(reached):
    point = box(np.ones(3), np.ones(3))
    union = analyse_subdivided(MODEL, point, inside(MODEL, point, samples=4), boxes=64, batch=8)
    assert max(float(jnp.max(s)) for s in union.by_layer[:-1]) < 1e-11


def test_effort_goes_where_the_excess_is():
    """A function that is steep in one corner and along one axis only."""
    seen = []

    def examine(x, parent):
        y = enclose(lambda x: (x[0] ** 8 - x[0] ** 9)[None])(x)
        return y, jnp.maximum(y.upper[0] - 0.04, 0), jnp.argmax(x.width * jnp.array([1.0, 0.0]))

    union = enclose_subdivided(
        lambda x, parent: (seen.append(x), examine(x, parent))[1], box(np.zeros(2), np.ones(2)), 1, boxes=64, batch=8
    )
    best = 8 / 9
    assert best**8 / 9 <= union.upper[0] < 1.2 * best**8 / 9 + 0.01
    assert isinstance(union, Interval) and union.shape == (1,)


@pytest.mark.parametrize("inputs, method, boxes, message", [
    (BOX, "inside", 0, "at least 1 sub-box and a batch of 2, got 0 and 1024"),
    (box([0.0], [1.0]), "inside", 8, r"the box must have shape \(3,\)"),
    (BOX, "intervals", 8, "what is reached must be found by inside, got one found by intervals"),
])  # fmt: skip
def test_bad_input_is_refused(reached, inputs, method, boxes, message):
    with pytest.raises(ValueError, match=message):
        analyse_subdivided(MODEL, inputs, dataclasses.replace(reached, method=method), boxes=boxes)
