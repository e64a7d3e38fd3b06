"""Fine-tuning of many networks of one shape at once, on the same samples in the same order."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sobolev_utils.learning.losses import Loss
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.learning.training import Draw
from sobolev_utils.models.samples import Samples

__all__ = ["fit_together"]


def fit_together(
    models: Sequence[Surrogate],
    draw: Draw,
    loss: Loss,
    held_out: Samples,
    *,
    key: jax.Array,
    epochs: int,
    batch: int,
    learning_rates: Sequence[float],
) -> list[Surrogate]:
    """Each model trained by Adam at a cosine from each of the rates; of these the best on `held_out` samples.

    The samples of an epoch are drawn once for all. A training that diverges is never the best, unless all do.
    """
    graph, _, constants = nnx.split(models[0], nnx.Param, ...)
    each = [nnx.split(model, nnx.Param, ...)[1] for model in models for _ in learning_rates]
    start = jax.tree.map(lambda *parts: jnp.stack(parts), *each)
    rates = jnp.tile(jnp.asarray(learning_rates), len(models))
    steps, adam = len(jax.eval_shape(draw, key).x) // batch, optax.scale_by_adam()

    def value(parameters, samples):
        return loss(nnx.merge(graph, parameters, constants), samples)

    def step(state, samples):
        parameters, moments, n = state
        gradients = jax.vmap(jax.grad(value), (0, None))(parameters, samples)
        updates, moments = jax.vmap(adam.update)(gradients, moments)
        rate = rates * 0.5 * (1 + jnp.cos(jnp.pi * n / (epochs * steps)))
        parameters = jax.tree.map(
            lambda p, u: p - rate.astype(p.dtype).reshape(-1, *[1] * (p.ndim - 1)) * u, parameters, updates
        )
        return (parameters, moments, n + 1), None

    def epoch(state, key):
        batches = jax.tree.map(lambda a: a.reshape(steps, batch, *a.shape[1:]), draw(key))
        return jax.lax.scan(step, state, batches)[0], None

    @jax.jit
    def run(keys):
        (parameters, _, _), _ = jax.lax.scan(epoch, (start, jax.vmap(adam.init)(start), 0), keys)
        return parameters, jax.vmap(value, (0, None))(parameters, held_out)

    parameters, losses = run(jax.random.split(key, epochs))
    ranked = np.nan_to_num(np.asarray(losses, float), nan=np.inf).reshape(len(models), -1)
    best = np.argmin(ranked, axis=1) + np.arange(len(models)) * len(learning_rates)
    return [nnx.merge(graph, jax.tree.map(lambda p, i=i: p[i], parameters), constants) for i in best]
