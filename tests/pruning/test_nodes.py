"""Pruning against the network with nodes held at constants, and where it should change nothing."""

import jax.numpy as jnp
import numpy as np
import pytest
from oracles import DTYPES, TOLERANCE, forward, leaves, random_surrogate, uniform_points

from sobolev_utils.learning.surrogate import NORMALISATION, Surrogate
from sobolev_utils.pruning.nodes import (
    mean_nodes,
    most_significant,
    prune,
)

MODEL = random_surrogate(3, (5, 4))
X = uniform_points(20, 3)


def nodes(model):
    """All nodes but the inputs, by NumPy."""
    return forward(model.arrays(), X)


ALL = [np.arange(5), np.arange(4)]
CONSTANTS = [jnp.linspace(0.1, 0.5, 5), jnp.linspace(-0.2, 0.4, 4)]


class TestMostSignificant:
    SCORES = ([0.1, 5.0, 0.3, 2.0], [7.0, 0.0])
    EQUAL = ([3.0, 1.0, 3.0, 1.0, 1.0],)

    @pytest.mark.parametrize("scores, keep, expected", [
        (SCORES, 1, [[1], [0]]), (SCORES, 2, [[1, 3], [0, 1]]), (SCORES, (3, 1), [[1, 2, 3], [0]]),
        (EQUAL, 1, [[0]]), (EQUAL, 2, [[0, 2]]), (EQUAL, 3, [[0, 1, 2]]), (EQUAL, 4, [[0, 1, 2, 3]]),
        ([np.arange(128.0) % 2], 64 + 10, [[*range(20), *range(21, 128, 2)]]), ([[1e300, np.inf, 0.0]], 1, [[1]]),
    ])  # fmt: skip
    def test_it_keeps_the_largest_of_equal_ones_the_first_in_the_order_of_the_network(self, scores, keep, expected):
        chosen = most_significant([jnp.array(layer) for layer in scores], keep)
        assert [list(nodes) for nodes in chosen] == expected

    @pytest.mark.parametrize(
        "keep, layer, count", [(0, 1, 0), (3, 2, 3), ((4, 3), 2, 3), ((5, 1), 1, 5), (-1, 1, -1)]
    )
    def test_counts_beyond_the_width_are_refused(self, keep, layer, count):
        with pytest.raises(ValueError, match=f"layer {layer} has . nodes and cannot keep {count}: expected 1 to"):
            most_significant(self.SCORES, keep)

    @pytest.mark.parametrize("keep", [(1,), (1, 1, 1), ()])
    def test_another_number_of_counts_is_refused(self, keep):
        with pytest.raises(ValueError, match="a count or one for each of 2 layers"):
            most_significant(self.SCORES, keep)

    def test_a_significance_that_is_not_a_number_is_refused(self):
        with pytest.raises(ValueError, match="layer 2 has 1 nodes whose significance is not a number"):
            most_significant([self.SCORES[0], [1.0, jnp.nan]], 1)


def test_mean_nodes_are_means_over_the_samples():
    for mean, values in zip(mean_nodes(MODEL, X), forward(MODEL.arrays(), X), strict=False):
        np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-13)
    assert [mean.shape for mean in mean_nodes(MODEL, X)] == [(5,), (4,)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_to_keep_every_node_is_the_identity(dtype):
    model = random_surrogate(3, (5, 4), "tanh", dtype=dtype)
    arrays = prune(model, ALL, CONSTANTS).arrays()
    assert arrays.keys() == model.arrays().keys()
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)


def test_the_order_of_what_is_kept_does_not_matter():
    pruned = prune(MODEL, [np.array([4, 2, 0, 1, 3]), np.array([1, 0, 3, 2])], CONSTANTS)
    np.testing.assert_allclose(nodes(pruned)[-1], nodes(MODEL)[-1], rtol=1e-13)
    np.testing.assert_allclose(nodes(pruned)[1], nodes(MODEL)[1][:, [1, 0, 3, 2]], atol=1e-14)


@pytest.mark.parametrize(
    "keep", [[[0, 2, 3], [0, 1, 2, 3]], [[0, 1, 2, 3, 4], [3]], [[4, 1], [0, 2]], [[3], [1]]], ids=str
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_removed_node_counts_as_its_constant(keep, dtype):
    model = random_surrogate(3, (5, 4), dtype=dtype)
    pruned = prune(model, [np.array(k) for k in keep], CONSTANTS)
    held = {
        (layer, node): float(constants[node])
        for layer, (kept, constants) in enumerate(zip(keep, CONSTANTS, strict=True), start=1)
        for node in range(len(constants))
        if node not in kept
    }
    first, second, output = forward(model.arrays(), X, held)
    for found, expected in zip(nodes(pruned), (first[:, keep[0]], second[:, keep[1]], output), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=5 * TOLERANCE[dtype])
    assert pruned.widths == tuple(map(len, keep))
    assert {array.dtype for array in leaves(pruned)} == {np.dtype(dtype)}


def with_idle_nodes():
    """MODEL with nodes of the first layer that do nothing: 1 is constant, and 3 has no influence."""
    arrays = {name: array.copy() for name, array in MODEL.arrays().items()}
    arrays["kernel_0"][:, 1] = arrays["kernel_1"][3] = 0
    return Surrogate.from_arrays(arrays)


def test_constant_nodes_and_those_without_influence_go_without_a_change():
    model = with_idle_nodes()
    pruned = prune(model, [np.array([0, 2, 4]), ALL[1]], mean_nodes(model, X))
    np.testing.assert_allclose(pruned(X), model(X), rtol=1e-13)
    np.testing.assert_allclose(pruned.delta(X), model.delta(X), rtol=1e-12)
    assert pruned.widths == (3, 4)


def test_in_two_steps_or_in_one():
    half = prune(MODEL, [np.array([0, 2, 4]), ALL[1]], CONSTANTS)
    whole = prune(half, [np.array([0, 2]), np.array([1, 3])], [CONSTANTS[0][jnp.array([0, 2, 4])], CONSTANTS[1]])
    at_once = prune(MODEL, [np.array([0, 4]), np.array([1, 3])], CONSTANTS)
    np.testing.assert_allclose(nodes(whole)[-1], nodes(at_once)[-1], rtol=1e-13)


def test_the_result_is_a_smaller_surrogate_of_its_own():
    before = leaves(MODEL)
    pruned = prune(MODEL, [np.array([0, 2]), np.array([1])], CONSTANTS)
    assert pruned.n_parameters == (3 * 2 + 2) + (2 + 1) + (1 + 1) < MODEL.n_parameters
    assert pruned.activation == MODEL.activation
    for name in NORMALISATION:
        np.testing.assert_array_equal(getattr(pruned, name)[...], getattr(MODEL, name)[...])
    pruned.normalise(2 * X, X[:, 0])
    for leaf, original in zip(leaves(MODEL), before, strict=True):
        np.testing.assert_array_equal(leaf, original)


class TestRefusals:
    @pytest.mark.parametrize("indices", [[], [1, 1], [0, 5], [-1, 2]], ids=str)
    def test_indices_that_are_missing_repeated_or_out_of_range(self, indices):
        with pytest.raises(ValueError, match=r"layer 1: indices must be 1 to 5 distinct nodes of 0\.\.4, got"):
            prune(MODEL, [np.array(indices, int), ALL[1]], CONSTANTS)

    @pytest.mark.parametrize(
        "keep, constants", [(ALL[:1], CONSTANTS), (ALL, CONSTANTS[:1]), (ALL * 2, CONSTANTS * 2)]
    )
    def test_another_number_of_layers(self, keep, constants):
        with pytest.raises(ValueError, match=f"2 hidden layers, got {len(keep)} and {len(constants)}"):
            prune(MODEL, keep, constants)

    @pytest.mark.parametrize("shape", [(), (4,), (5, 1)])
    def test_constants_of_another_shape(self, shape):
        with pytest.raises(ValueError, match=r"layer 1: constants must have shape \(5,\), got"):
            prune(MODEL, ALL, [jnp.zeros(shape), CONSTANTS[1]])
