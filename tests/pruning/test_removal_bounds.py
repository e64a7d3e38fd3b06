"""The theorem of replaced nodes, on networks small enough to look everywhere."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest
from oracles import forward, random_surrogate

from sobolev_utils.enclosures.intervals import box
from sobolev_utils.pruning.nodes import prune
from sobolev_utils.pruning.removal_bounds import change, change_bound, changes_enclosed, changes_found, checked_step
from sobolev_utils.pruning.significance import analyse

LOWER, UPPER = np.array([0.7, 0.9, 0.5]), np.array([1.2, 1.3, 0.6])
BOX = box(LOWER, UPPER)
X = LOWER + np.random.default_rng(0).uniform(size=(2000, 3)) * (UPPER - LOWER)
ALL = [np.arange(5), np.arange(4)]


@functools.cache
def analysis_of(activation, seed):
    model = random_surrogate(widths=(5, 4), activation=activation, seed=seed)
    return model, analyse(model, BOX)


def analysed(activation="silu", seed=0):
    model, analysis = analysis_of(activation, seed)
    return model, analysis, [value.midpoint for value in analysis.values[1:-1]]


@pytest.mark.parametrize("activation", ["silu", "relu", "tanh"])
def test_half_the_significance_bounds_the_change_of_one_node(activation):
    model, analysis, constants = analysed(activation)
    y = forward(model.arrays(), X)[-1]
    for layer in (1, 2):
        for node in range(model.widths[layer - 1]):
            keep = list(ALL)
            keep[layer - 1] = np.delete(keep[layer - 1], node)
            bound = change_bound(analysis, keep, constants)
            np.testing.assert_allclose(bound, analysis.hidden[layer - 1][node] / 2, rtol=1e-5, atol=1e-36)
            held = forward(model.arrays(), X, {(layer, node): float(constants[layer - 1][node])})[-1]
            assert abs(held - y).max() <= bound


@pytest.mark.parametrize("seed", range(3))
def test_the_sum_bounds_the_change_of_many(seed):
    model, analysis, constants = analysed(seed=seed)
    y, rng = model(X), np.random.default_rng(seed)
    for _ in range(10):
        keep = [np.sort(rng.choice(nodes, rng.integers(1, nodes.size + 1), replace=False)) for nodes in ALL]
        found = float(jnp.abs(prune(model, keep, constants)(X) - y).max())
        assert found <= change_bound(analysis, keep, constants)


def test_another_constant_has_a_larger_bound_and_one_outside_is_refused():
    _, analysis, constants = analysed()
    keep = [np.array([0, 1, 2, 4]), ALL[1]]
    least = change_bound(analysis, keep, constants)
    constants[0] = analysis.values[1].lower
    np.testing.assert_allclose(change_bound(analysis, keep, constants), 2 * least, rtol=1e-4)
    constants[0] = analysis.values[1].upper + 1
    with pytest.raises(ValueError, match="layer 1: the constant of node 3 is not in the enclosure"):
        change_bound(analysis, keep, constants)
    assert change_bound(analysis, ALL, constants) == 0


@pytest.mark.parametrize("method", ["zonotopes", "subdivided", "inside", None])
def test_only_an_analysis_of_one_box_proves_a_bound(method):
    """Narrower enclosures are enclosures too, but not of the way from a node to its constant."""
    _, analysis, constants = analysed()
    with pytest.raises(ValueError, match=f"found by operations or intervals, got one found by {method}"):
        change_bound(dataclasses.replace(analysis, method=method), ALL, constants)


@pytest.mark.parametrize("kept", [np.array([True, False, True, True, True]), [0, 5], [-1], [0.0, 1.0]])
def test_nodes_that_stay_are_named_by_their_indices(kept):
    model, analysis, constants = analysed()
    keep = [kept, ALL[1]]
    for bound in (
        lambda: change_bound(analysis, keep, constants),
        lambda: changes_found(model, BOX, [(keep, constants)]),
    ):
        with pytest.raises(ValueError, match="expected the indices of nodes that stay, from 0 to 4, got"):
            bound()


def test_the_way_leads_from_the_network_to_the_pruned_one():
    model, _, constants = analysed()
    keep = [np.array([0, 3]), np.array([1, 2, 3])]
    masks, _ = checked_step(model.widths, (keep, constants))
    assert [mask.tolist() for mask in masks] == [[False, True, True, False, True], [True, False, False, False]]
    np.testing.assert_allclose(change(model, X, 0.0, masks, constants), model(X), rtol=1e-14)
    np.testing.assert_allclose(change(model, X, 1.0, masks, constants), prune(model, keep, constants)(X), rtol=1e-6)


def test_enclosures_of_changes_hold_what_is_found_and_are_tight():
    model, analysis, constants = analysed()
    steps = [[np.arange(4), ALL[1]], [np.arange(3), np.arange(3)], [np.array([2]), np.array([0])]]
    with_constants = [(keep, constants) for keep in steps]
    enclosed = changes_enclosed(model, BOX, with_constants, boxes=200, batch=16)
    found = changes_found(model, BOX, with_constants, samples=512)
    assert enclosed.shape == found.shape == (3,)
    assert jnp.all(enclosed.lower <= found.lower) and jnp.all(found.upper <= enclosed.upper)
    for i, keep in enumerate(steps):
        difference = prune(model, keep, constants)(X) - model(X)
        assert enclosed.lower[i] <= difference.min() + 1e-9 and difference.max() <= enclosed.upper[i] + 1e-9
        assert float(enclosed.magnitude[i]) <= change_bound(analysis, keep, constants)
        assert float(enclosed.magnitude[i]) <= 2 * float(found.magnitude[i])


def test_a_step_that_changes_nothing_takes_no_effort_from_the_others():
    model = random_surrogate(widths=(4,))
    constants = [value.midpoint for value in analyse(model, BOX).values[1:-1]]
    step, nothing = ([np.arange(3)], constants), ([np.arange(4)], constants)
    alone = changes_enclosed(model, BOX, [step], boxes=100, batch=16)
    beside = changes_enclosed(model, BOX, [step, nothing], boxes=100, batch=16)
    assert beside.magnitude[1] < 1e-300
    np.testing.assert_allclose(beside.magnitude[0], alone.magnitude[0], rtol=0.05)


@pytest.mark.parametrize("bad", [0.1, np.zeros(4), np.zeros((5, 1))])
def test_constants_that_would_be_broadcast_are_refused(bad):
    model, analysis, constants = analysed()
    expected = r"layer 1: expected constants of shape \(5,\), one per node, got"
    with pytest.raises(ValueError, match=expected):
        change_bound(analysis, [[], []], [bad, constants[1]])
    with pytest.raises(ValueError, match=expected):
        changes_enclosed(model, BOX, [([[], []], [bad, constants[1]])])
