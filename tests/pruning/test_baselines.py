"""Scores of nodes by other methods, against the explicit Jacobians and Hessians of small networks."""

import jax
import jax.numpy as jnp
import numpy as np
from oracles import forward, random_surrogate, uniform_points

from sobolev_utils.learning.losses import plain
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.models.samples import Samples
from sobolev_utils.pruning import baselines
from sobolev_utils.pruning.baselines import (
    brain_damage,
    brain_surgeon,
    compensated,
    magnitude,
    random_scores,
    saliency,
)
from sobolev_utils.pruning.nodes import prune

MODEL = random_surrogate(3, (5, 4))
X = uniform_points(20, 3)
WEIGHTS = {name: a for name, a in MODEL.arrays().items() if name.startswith(("kernel", "bias"))}


def nodes(model):
    """All nodes but the inputs, by NumPy."""
    return forward(model.arrays(), X)


def jacobian(points=X):
    """Derivatives of the normalised output in each weight, by name: (n, ...)."""
    arrays = MODEL.arrays()

    def output(weights):
        model = Surrogate.from_arrays(arrays)
        for i, layer in enumerate(model.layers):
            layer.kernel[...], layer.bias[...] = weights[f"kernel_{i}"], weights[f"bias_{i}"]
        return model.nodes(points)[-1] / arrays["y_std"]

    return {
        name: np.asarray(a)
        for name, a in jax.jacobian(output)({k: jnp.asarray(a) for k, a in WEIGHTS.items()}).items()
    }


def hessian():
    by_name = jacobian()
    rows = np.concatenate([by_name[name].reshape(len(X), -1) for name in WEIGHTS], axis=1)
    damping = baselines.DAMPING * np.mean(np.sum(rows**2, axis=1))
    return rows.T @ rows / len(X) + damping * np.eye(rows.shape[1])


def places():
    """Of each weight its place among all, in the shape of its array."""
    ends = np.cumsum([0, *(a.size for a in WEIGHTS.values())])
    return {k: np.arange(i, i + a.size).reshape(a.shape) for (k, a), i in zip(WEIGHTS.items(), ends, strict=False)}


def with_idle_nodes():
    """MODEL with nodes of the first layer that do nothing: 1 is constant, and 3 has no influence."""
    arrays = {name: array.copy() for name, array in MODEL.arrays().items()}
    arrays["kernel_0"][:, 1] = arrays["kernel_1"][3] = 0
    return Surrogate.from_arrays(arrays)


class TestMagnitude:
    def test_it_is_the_product_of_the_norms_of_incoming_and_outgoing_weights(self):
        kernels = [MODEL.arrays()[f"kernel_{i}"] for i in range(3)]
        for scores, before, after in zip(magnitude(MODEL), kernels, kernels[1:], strict=False):
            expected = [np.sqrt((before[:, i] ** 2).sum() * (after[i] ** 2).sum()) for i in range(len(after))]
            np.testing.assert_allclose(scores, expected, rtol=1e-13)

    def test_it_is_zero_for_a_constant_node_and_one_without_influence(self):
        assert list(np.flatnonzero(magnitude(with_idle_nodes())[0] == 0)) == [1, 3]

    def test_it_is_that_of_the_same_function_with_other_scales(self):
        model = random_surrogate(3, (5, 4), "relu")
        scale = np.exp(np.random.default_rng(1).normal(size=5))
        arrays = model.arrays()
        arrays |= {"kernel_0": arrays["kernel_0"] * scale, "bias_0": arrays["bias_0"] * scale}
        arrays["kernel_1"] = arrays["kernel_1"] / scale[:, None]
        same = Surrogate.from_arrays(arrays)
        np.testing.assert_allclose(same(X), model(X), rtol=1e-12)
        np.testing.assert_allclose(magnitude(same)[0], magnitude(model)[0], rtol=1e-12)


def test_random_scores_depend_on_the_key_and_the_layer_alone():
    model, key = random_surrogate(3, (6, 6)), jax.random.key(3)
    first, second = random_scores(model, key)
    assert first.shape == second.shape == (6,) and not (first == second).any()
    again = random_scores(random_surrogate(3, (6, 6), seed=1), key)
    np.testing.assert_array_equal(first, again[0])
    assert not (first == random_scores(model, jax.random.key(4))[0]).any()


def test_saliency_is_the_change_of_the_loss_with_each_weight_times_the_weight():
    samples, step = Samples(X, np.sin(X[:, 0])), 1e-6
    scores = saliency(MODEL, plain, samples)

    def moved(name, index, sign):
        arrays = {k: a.copy() for k, a in MODEL.arrays().items()}
        arrays[name][index] *= 1 + sign * step
        return float(plain(Surrogate.from_arrays(arrays), samples))

    change = {
        name: np.array([[abs(moved(name, (i, j), 1) - moved(name, (i, j), -1)) / (2 * step)
                         for j in range(a.shape[1])] for i in range(a.shape[0])])
        for name, a in WEIGHTS.items() if name.startswith("kernel")
    }  # fmt: skip
    for layer, found in enumerate(scores):
        expected = change[f"kernel_{layer}"].sum(axis=0) + change[f"kernel_{layer + 1}"].sum(axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-10)


def test_damage_is_half_the_diagonal_of_the_hessian_times_the_squared_weights_out_of_a_node():
    rows = jacobian()
    for layer, scores in enumerate(brain_damage(MODEL, X), start=1):
        n = nodes(MODEL)[layer - 1]
        held = rows[f"kernel_{layer}"] * (1 - n.mean(axis=0) / n)[:, :, None]
        diagonal = np.mean(held**2, axis=0)
        np.testing.assert_allclose(
            scores, 0.5 * np.sum(diagonal * WEIGHTS[f"kernel_{layer}"] ** 2, axis=1), rtol=1e-8
        )


def test_the_surgeon_finds_the_least_rise_of_the_loss_without_a_node():
    whole = hessian()
    where = places()
    for layer, scores in enumerate(brain_surgeon(MODEL, X), start=1):
        for node, score in enumerate(scores):
            w, out = WEIGHTS[f"kernel_{layer}"][node], where[f"kernel_{layer}"][node]
            into = [*where[f"kernel_{layer - 1}"][:, node], where[f"bias_{layer - 1}"][node]]
            rest = np.setdiff1d(np.arange(len(whole)), [*into, *out])
            both = [whole[np.ix_(a, b)] for a, b in ((out, out), (out, rest), (rest, rest))]
            expected = 0.5 * w @ (both[0] - both[1] @ np.linalg.solve(both[2], both[1].T)) @ w
            assert np.isclose(score, expected, rtol=1e-4)


def test_its_compensation_is_the_least_squares_move_of_the_weights_that_stay():
    keep = [np.array([0, 2, 3]), np.array([1, 3])]
    small = compensated(MODEL, keep, X)
    rows, stay = jacobian(), [np.arange(3), *keep, np.arange(1)]
    blocks = [rows[f"kernel_{i}"][:, stay[i]][:, :, stay[i + 1]] for i in range(3)]
    biases = [rows[f"bias_{i}"][:, stay[i + 1]] for i in range(3)]
    J = np.concatenate([a.reshape(len(X), -1) for a in (*blocks, *biases)], axis=1)
    lost = sum(
        np.einsum(
            "nij,ij->n",
            np.delete(rows[f"kernel_{i}"], stay[i], axis=1),
            np.delete(WEIGHTS[f"kernel_{i}"], stay[i], axis=0),
        )
        for i in (1, 2)
    )
    damping = baselines.DAMPING * np.mean(np.sum(J**2, axis=1))
    move = np.linalg.solve(J.T @ J / len(X) + damping * np.eye(J.shape[1]), J.T @ lost / len(X))
    bare, found = prune(MODEL, keep, [np.zeros(5), np.zeros(4)]).arrays(), small.arrays()
    names = [f"{kind}_{i}" for kind in ("kernel", "bias") for i in range(3)]
    moved = np.concatenate([(found[name] - bare[name]).ravel() for name in names])
    np.testing.assert_allclose(moved, move, rtol=1e-3, atol=1e-4 * abs(move).max())


def test_where_nothing_is_removed_nothing_moves():
    same = compensated(MODEL, [np.arange(5), np.arange(4)], X)
    np.testing.assert_allclose(same(X), MODEL(X), rtol=1e-12)
