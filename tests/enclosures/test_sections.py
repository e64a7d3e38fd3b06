"""Sections of a box: that they cover it, and that what points of them attain is enclosed, and little more."""

import dataclasses
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import random_surrogate
from scipy.optimize import linprog

from sobolev_utils.enclosures import box
from sobolev_utils.enclosures.sections import Sections, bounds_on, enclose_on, halved, worst

DIRECTIONS = {
    "one input": [1.0],
    "weights": [0.1, 0.2, 0.7],
    "of both signs": [1.0, -2.0, 0.3, 0.0],
    "hardly anything": [1e-200, 1.0, -1e-12],
    "many": np.linspace(-1, 2, 12),
}


def sections_of(direction, count=7, seed=0):
    rng = np.random.default_rng(seed)
    lower = rng.normal(size=len(direction))
    return Sections.of(box(lower, lower + rng.uniform(0.1, 2, len(direction))), np.asarray(direction), count)


def points_of(sections, n=300, seed=1):
    """Points of the box that the sections cover, corners among them."""
    rng = np.random.default_rng(seed)
    lower, upper = sections.lower.min(axis=0), sections.upper.max(axis=0)
    t = np.concatenate([rng.random((n, len(lower))), rng.integers(0, 2, (n, len(lower)))])
    return lower + (upper - lower) * t


def are_in(sections, x):
    """Whether points are in sections, (n_sections, n_points), of exact numbers."""
    level = [sum(Fraction(w) * Fraction(t) for w, t in zip(sections.direction, point, strict=True)) for point in x]
    least, most = (np.array([[Fraction(end) for end in sections.levels[:, i]]]).T for i in (0, 1))
    inside = (sections.lower[:, None] <= x) & (x <= sections.upper[:, None])
    return inside.all(axis=2) & (least <= level) & (level <= most)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_sections_cover_the_box_and_halves_what_was_halved(direction):
    sections = sections_of(direction)
    whole = box(sections.lower.min(axis=0), sections.upper.max(axis=0))
    x = points_of(sections)
    x = np.clip(x, np.asarray(whole.lower), np.asarray(whole.upper))
    assert are_in(sections, x).any(axis=0).all()
    for axes in (0, 1, len(direction)):
        halves = sections.halved(np.full(len(sections), axes))
        assert len(halves) == 2 * len(sections)
        assert are_in(halves, x).any(axis=0).all()
        assert are_in(halves[halves.has_points], x).any(axis=0).all()


def test_a_section_knows_no_corner_that_it_does_not_have():
    """The hull of a section at the end of a square is small, and halves beside it have no points."""
    sections = Sections.of(box(np.zeros(2), np.ones(2)), np.ones(2), 10)
    np.testing.assert_allclose(sections.upper[0], 0.2, rtol=1e-12)
    np.testing.assert_allclose(sections.lower[-1], 0.8, rtol=1e-12)
    assert sections.has_points.all()
    upper_right = dataclasses.replace(sections, lower=np.full((10, 2), 0.5), upper=np.ones((10, 2))).tightened()
    np.testing.assert_array_equal(upper_right.has_points, sections.levels[:, 1] >= 1)


def test_a_section_of_one_point_has_it():
    points = np.random.default_rng(0).normal(size=(50, 5))
    assert are_in(Sections.at(points, np.arange(5) - 1.7), points).diagonal().all()


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_linear_functions_have_their_ranges(direction):
    """As linear programming finds them: what is left out of the box counts for nothing."""
    sections, n = sections_of(direction), len(direction)
    a = np.random.default_rng(3).normal(size=(n, 4))
    y = enclose_on(lambda x: x @ a, sections)
    for i in range(len(sections)):
        w, (least, most) = sections.direction, sections.levels[i]
        sides = list(zip(sections.lower[i], sections.upper[i], strict=True))
        limits = {"A_ub": [w, -w], "b_ub": [most, -least], "bounds": sides}
        for j in range(4):
            ends = [sign * linprog(sign * a[:, j], **limits).fun for sign in (1, -1)]
            size = abs(a[:, j]) @ abs(sections.upper[i] - sections.lower[i]) + 1
            assert y.lower[i, j] - 1e-12 * size <= ends[0] + 1e-6 * size
            np.testing.assert_allclose([y.lower[i, j], y.upper[i, j]], ends, rtol=0, atol=1e-6 * size)


@pytest.mark.parametrize("activation", ["silu", "tanh", "relu"])
def test_what_points_attain_is_enclosed(activation):
    model = random_surrogate(n_inputs=3, widths=(6, 5), activation=activation)
    sections = sections_of([0.2, -0.5, 1.0], count=20)
    x = points_of(sections, n=2000)
    inside = are_in(sections, x)

    def f(x):
        return jnp.append(jax.grad(model)(x), model(x))

    y, truth = enclose_on(f, sections), np.asarray(jax.jit(jax.vmap(f))(x))
    for i, rows in enumerate(inside):
        assert (y.lower[i] <= truth[rows] + 1e-14).all() and (truth[rows] - 1e-14 <= y.upper[i]).all()
    assert inside.any(axis=0).all()


def test_functions_of_the_level_alone_vary_with_it_alone():
    """Whatever the box is otherwise, up to rounding."""
    w = np.array([0.3, -0.4, 1.2])
    sections = Sections.of(box(np.full(3, -1.0), np.full(3, 1.0)), w, 64)
    y = enclose_on(lambda x: jnp.tanh(x @ w), sections)
    ends = np.tanh(sections.levels)
    np.testing.assert_allclose(np.column_stack([y.lower, y.upper]), ends, atol=1e-13)


def test_sections_are_halved_until_the_bounds_are_near_enough():
    model = random_surrogate(n_inputs=2, widths=(6, 5))
    whole = box(np.full(2, -1.0), np.full(2, 1.0))
    x = np.random.default_rng(0).uniform(-1, 1, (20_000, 2))
    most = abs(np.asarray(model(jnp.asarray(x)))).max()
    sections = Sections.of(whole, np.array([1.0, 0.3]), 4)
    enough = np.full(2, 1.05 * most)

    def f(x):
        return model(x)[None]

    bounds = few = bounds_on(f, sections)
    while len(rows := worst(bounds, enough)):
        bounds, before = halved(f, bounds, rows, np.eye(2)), bounds
        assert (bounds.largest <= before.largest).all()
    np.testing.assert_allclose(bounds.largest[0], bounds.largest[1], rtol=1e-12)
    assert most <= bounds.largest[0] <= 1.05 * most < few.largest[0]
    inside = are_in(bounds.sections, x[:200])
    assert inside.any(axis=0).all()
    of_each = np.where(inside, bounds.of_each[:, :1], np.inf).min(axis=0)
    assert (abs(np.asarray(model(jnp.asarray(x[:200])))) <= of_each).all()
