"""Sparse training from scratch: few weights of a large network, exchanged during training by SET or RigL."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sobolev_utils.learning.losses import Loss
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.learning.training import Draw

__all__ = ["train_sparsely"]

FRACTION = 0.3  # of a matrix's weights, exchanged at a time
EVERY = 100  # steps between exchanges, about
UNTIL = 0.75  # of the epochs, in which weights are exchanged


def train_sparsely(
    model: Surrogate,
    draw: Draw,
    loss: Loss,
    n_weights: int,
    *,
    key: jax.Array,
    epochs: int,
    batch: int,
    learning_rate: float,
    by_gradient: bool,
) -> Surrogate:
    """`model` trained with about `n_weights` weights that are not zero and all its biases, by Adam at a cosine.

    The weights are spread over the matrices as an Erdos-Renyi graph, and start larger, as each node has fewer. Again
    and again the smallest of each matrix go, and as many are set free, from zero: random ones (SET, Mocanu et al.
    2018), or those of largest gradient, `by_gradient` (RigL, Evci et al. 2020), of which ever fewer are exchanged.
    """
    graph, dense, constants = nnx.split(model, nnx.Param, ...)
    start, tree = jax.tree.flatten(dense)
    of_masks, of_epochs = jax.random.split(key)
    counts = _counts([p.shape for p in start], n_weights)
    start = [p * (p.size / count) ** 0.5 for p, count in zip(start, counts, strict=True)]
    masks = [
        _largest(jax.random.uniform(k, p.shape, p.dtype), count)
        for k, p, count in zip(jax.random.split(of_masks, len(start)), start, counts, strict=True)
    ]
    steps, adam = len(jax.eval_shape(draw, key).x) // batch, optax.scale_by_adam()
    every = max(1, round(EVERY / steps))  # epochs

    def masked(weights, masks):
        return nnx.merge(graph, jax.tree.unflatten(tree, _times(weights, masks)), constants)

    def slopes(effective, samples):
        """Derivatives of the loss in all weights, those at zero included."""
        return jax.grad(lambda weights: loss(masked(weights, [1.0] * len(weights)), samples))(effective)

    def epoch(state, inputs):
        (weights, moments, masks, n), (number, key) = state, inputs
        of_draw, of_growth = jax.random.split(key)
        batches = jax.tree.map(lambda a: a.reshape(steps, batch, *a.shape[1:]), draw(of_draw))

        def step(state, samples):
            weights, moments, n = state
            updates, moments = adam.update(_times(slopes(weights, samples), masks), moments)
            rate = learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * n / (epochs * steps)))
            weights = [w - (rate * u).astype(w.dtype) for w, u in zip(weights, _times(updates, masks), strict=True)]
            return (weights, moments, n + 1), None

        (weights, moments, n), _ = jax.lax.scan(step, (weights, moments, n), batches)
        wanted = [
            jax.random.uniform(k, w.shape, w.dtype)
            for k, w in zip(jax.random.split(of_growth, len(start)), weights, strict=True)
        ]
        if by_gradient:
            wanted = [abs(g) for g in slopes(weights, jax.tree.map(lambda a: a[0], batches))]
        share = number / (UNTIL * epochs)
        falling = 0.5 * (1 + jnp.cos(jnp.pi * share)) if by_gradient else 1.0
        fraction = FRACTION * ((share < 1) & (number % every == every - 1)) * falling
        new = [
            _exchanged(w, m, score, count, fraction)
            for w, m, score, count in zip(weights, masks, wanted, counts, strict=True)
        ]
        stayed = _times(masks, new)  # a weight that is set free starts from nothing
        moments = moments._replace(mu=_times(moments.mu, stayed), nu=_times(moments.nu, stayed))
        return (_times(weights, stayed), moments, new, n), None

    numbered = jnp.arange(epochs), jax.random.split(of_epochs, epochs)
    weights = _times(start, masks)
    state = weights, adam.init(weights), masks, 0
    (weights, _, masks, _), _ = jax.jit(lambda state: jax.lax.scan(epoch, state, numbered))(state)
    return masked(weights, masks)


def _times(arrays: Sequence[jax.Array], masks: Sequence[jax.Array]) -> list[jax.Array]:
    return [a * m for a, m in zip(arrays, masks, strict=True)]


def _counts(shapes: Sequence[tuple[int, ...]], n_weights: int) -> list[int]:
    """How many entries of each array may be free: all of a bias; of a matrix (a, b) a share that grows as a + b."""
    shares = np.array([sum(shape) if len(shape) == 2 else 0 for shape in shapes])
    given = np.maximum(np.round(n_weights * shares / shares.sum()), 1)
    return [
        int(min(count, np.prod(shape))) if len(shape) == 2 else int(np.prod(shape))
        for count, shape in zip(given, shapes, strict=True)
    ]


def _largest(score: jax.Array, count: jax.Array | int) -> jax.Array:
    """1 for the `count` largest entries, else 0."""
    ranks = jnp.argsort(jnp.argsort(-score.ravel()))
    return (ranks < count).astype(score.dtype).reshape(score.shape)


def _exchanged(weights, mask, score, count: int, fraction) -> jax.Array:
    """The mask with a fraction of its smallest weights exchanged for the entries of largest score that are not in it.

    Those that have just gone may return.
    """
    n = jnp.minimum(jnp.floor(fraction * count), mask.size - count)
    stay = _largest(jnp.where(mask > 0, abs(weights), -jnp.inf), count - n)
    return stay + _largest(jnp.where(stay > 0, -jnp.inf, score), n)
