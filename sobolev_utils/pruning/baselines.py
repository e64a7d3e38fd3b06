r"""What others prune nodes by: magnitudes, first-order saliency, optimal brain damage, the optimal brain surgeon.

A node is removed with the weights that leave it. With Jacobians J of the output in the weights at N points, the loss
rises, to second order and near its minimum, by 1/2 dw'H dw, H = J'J / N + delta I (Gauss-Newton, damped). Damage
takes the diagonal of H alone (LeCun et al. 1990); the surgeon all of it, and moves the other weights to compensate
(Hassibi & Stork 1993). In a dense network dy/dW_ij = n_i a_j, node times adjoint of what the next layer receives, so
that products J_S J_S' over weights S need no Jacobian: they are entrywise products of small matrices.
"""

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from flax import nnx

from sobolev_utils.learning.losses import Loss
from sobolev_utils.learning.surrogate import ACTIVATIONS, Surrogate
from sobolev_utils.models.samples import Samples

__all__ = ["brain_damage", "brain_surgeon", "compensated", "magnitude", "random_scores", "saliency"]

DAMPING = 1e-4  # of the mean squared length of a point's Jacobian


def magnitude(model: Surrogate) -> list[jax.Array]:
    """||W_in|| ||W_out|| for each hidden node, the norms of its incoming and its outgoing weights: (width,) by layer.

    Magnitude pruning (Han et al. 2015) of nodes, which He et al. (ICASSP 2014) rank by either norm; their product
    does not change where one is scaled up and the other down.
    """
    kernels = [layer.kernel[...] for layer in model.layers]
    return [jnp.linalg.norm(a, axis=0) * jnp.linalg.norm(b, axis=1) for a, b in pairwise(kernels)]


def random_scores(model: Surrogate, key: jax.Array) -> list[jax.Array]:
    """Uniform scores in [0, 1), (width,) for each hidden layer, for comparison with scores that mean something."""
    keys = jax.random.split(key, len(model.widths))
    return [jax.random.uniform(key, (width,)) for key, width in zip(keys, model.widths, strict=True)]


def saliency(model: Surrogate, loss: Loss, samples: Samples) -> list[jax.Array]:
    """sum |dL/dw w| over the weights into and out of each hidden node: (width,) by layer (Lee et al. 2019)."""
    gradient = jax.jit(nnx.grad(loss))(model, samples)
    moved = [abs(layer.kernel[...] * gradient.layers[i].kernel[...]) for i, layer in enumerate(model.layers)]
    return [a.sum(axis=0) + b.sum(axis=1) for a, b in pairwise(moved)]


def brain_damage(model: Surrogate, x: jax.Array) -> list[np.ndarray]:
    """1/2 sum_j h_ij W_ij^2 with h_ij = E (n_i - mean)^2 a_j^2, for each hidden node i: (width,) by layer.

    The rise of the loss where the node is held at its mean. x: the points (n, n_inputs). In units of the squared
    output, normalised.
    """
    nodes, adjoints, kernels = _at_points(model, x)
    pairs = zip(nodes[1:], adjoints[1:], kernels[1:], strict=True)
    return [np.sum(((n - n.mean(axis=0)) ** 2).T @ a**2 * W**2, axis=1) / (2 * len(n)) for n, a, W in pairs]


def brain_surgeon(model: Surrogate, x: jax.Array) -> list[np.ndarray]:
    """How far the loss rises without a node when the weights of all others compensate: (width,) by layer.

    With S the weights out of the node, w their values, u = J_S w, and R all weights and biases but these and those
    into the node, the rise is delta / 2 (|w|^2 + u'(J_R J_R' + N delta I)^-1 u). x: the points (n, n_inputs); the
    cost is cubic in their number for each node. In units of the squared output, normalised.
    """
    nodes, adjoints, kernels = _at_points(model, x)
    gram, damping = _damped(nodes, adjoints)
    scores = []
    for (before, n), (into, a), W in zip(pairwise(nodes), pairwise(adjoints), kernels[1:], strict=True):
        among, preceding, left = a @ a.T, before @ before.T + 1, a @ W.T
        rises = []
        for i in range(n.shape[1]):
            own = np.outer(n[:, i], n[:, i]) * among + np.outer(into[:, i], into[:, i]) * preceding
            without, u = gram - own, n[:, i] * left[:, i]
            solved = scipy.linalg.solve(without, u, assume_a="pos", check_finite=False)
            rises.append(damping / 2 * (W[i] @ W[i] + u @ solved))
        scores.append(np.array(rises))
    return scores


def compensated(model: Surrogate, keep: Sequence[np.ndarray], x: jax.Array) -> Surrogate:
    """The dense surrogate of the nodes `keep`, its weights and biases moved as the surgeon moves them.

        dw_R = J_R' (J_R J_R' + N delta I)^-1 u,   u what the removed nodes contributed at the points, to first order

    R are the weights and biases between nodes that stay; removed nodes leave nothing, not even a constant. x: the
    points (n, n_inputs).
    """
    nodes, adjoints, kernels = _at_points(model, x)
    stay = [np.arange(model.n_inputs), *map(np.asarray, keep), np.arange(model.n_outputs)]
    nodes_kept = [n[:, rows] for n, rows in zip(nodes, stay[:-1], strict=True)]
    adjoints_kept = [a[:, columns] for a, columns in zip(adjoints, stay[1:], strict=True)]
    gram, _ = _damped(nodes_kept, adjoints_kept)
    lost = np.zeros(len(x))
    for n, a, W, rows in zip(nodes[1:], adjoints[1:], kernels[1:], stay[1:-1], strict=True):
        gone = np.delete(np.arange(n.shape[1]), rows)
        lost += np.sum(n[:, gone] @ W[gone] * a, axis=1)
    solved = scipy.linalg.solve(gram, lost, assume_a="pos", check_finite=False)
    arrays = model.arrays()
    for i, (n, a, (rows, columns)) in enumerate(zip(nodes_kept, adjoints_kept, pairwise(stay), strict=True)):
        kernel, bias = arrays[f"kernel_{i}"][rows][:, columns], arrays[f"bias_{i}"][columns]
        arrays[f"kernel_{i}"] = (kernel + n.T @ (solved[:, None] * a)).astype(kernel.dtype)
        arrays[f"bias_{i}"] = (bias + a.T @ solved).astype(bias.dtype)
    return Surrogate.from_arrays(arrays)


def _at_points(model: Surrogate, x: jax.Array) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """What leaves each layer (the inputs normalised), adjoints of what each next one receives, and the kernels."""
    with jax.enable_x64(True):
        phi = ACTIVATIONS[model.activation]
        kernels = [jnp.asarray(layer.kernel[...], float) for layer in model.layers]
        biases = [jnp.asarray(layer.bias[...], float) for layer in model.layers]

        @jax.jit
        def sweep(x):
            nodes, slopes = [(x - model.x_mean[...]) / model.x_std[...]], []
            for W, b in zip(kernels[:-1], biases[:-1], strict=True):
                n, slope = jax.jvp(phi, (nodes[-1] @ W + b,), (jnp.ones((len(x), W.shape[1])),))
                nodes.append(n)
                slopes.append(slope)
            adjoints = [jnp.ones((len(x), 1))]
            for W, slope in zip(kernels[:0:-1], slopes[::-1], strict=True):
                adjoints.insert(0, slope * (adjoints[0] @ W.T))
            return nodes, adjoints

        nodes, adjoints = sweep(jnp.asarray(x, float))
        return [np.asarray(n) for n in nodes], [np.asarray(a) for a in adjoints], [np.asarray(W) for W in kernels]


def _damped(nodes: Sequence[np.ndarray], adjoints: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """J J' + N delta I over all weights and biases between these nodes, (n, n), and delta."""
    gram = sum((n @ n.T + 1) * (a @ a.T) for n, a in zip(nodes, adjoints, strict=True))
    damping = DAMPING * np.trace(gram) / len(gram)
    return gram + len(gram) * damping * np.eye(len(gram)), damping
