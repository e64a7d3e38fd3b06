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
    settings: Sequence[tuple[float, float]],
    sparse: bool = False,
) -> list[Surrogate]:
    """Each model trained by Adam with each of the settings, (rate, decay); the best on `held_out` samples of these.

    The model as it was is a candidate too. Rates fall by a cosine, decay is that of `fit`. The samples of an epoch
    are drawn once for all. A training that diverges is never the best. `sparse`: weights that are zero stay so.
    """
    graph, _, constants = nnx.split(models[0], nnx.Param, ...)
    own = [nnx.split(model, nnx.Param, ...)[1] for model in models]
    start = jax.tree.map(lambda *parts: jnp.stack(parts), *(each for each in own for _ in settings))
    rates, decays = jnp.tile(jnp.asarray(settings), (len(models), 1)).T
    steps, adam = len(jax.eval_shape(draw, key).x) // batch, optax.scale_by_adam()

    def value(parameters, samples):
        return loss(nnx.merge(graph, parameters, constants), samples)

    def step(state, samples):
        parameters, moments, n = state
        gradients = jax.vmap(jax.grad(value), (0, None))(parameters, samples)
        if sparse:
            gradients = jax.tree.map(lambda g, p: jnp.where(p == 0, 0, g) if p.ndim > 2 else g, gradients, parameters)
        updates, moments = jax.vmap(adam.update)(gradients, moments)
        falling = 0.5 * (1 + jnp.cos(jnp.pi * n / (epochs * steps)))

        def moved(p, u):
            rate, decay = (each.astype(p.dtype).reshape(-1, *[1] * (p.ndim - 1)) for each in (rates, decays))
            kept = decay * falling * p if p.ndim > 2 else 0  # of weights, not of biases
            return p - rate * falling * (u + kept)

        return (jax.tree.map(moved, parameters, updates), moments, n + 1), None

    def epoch(state, key):
        batches = jax.tree.map(lambda a: a.reshape(steps, batch, *a.shape[1:]), draw(key))
        return jax.lax.scan(step, state, batches)[0], None

    losses = jax.vmap(value, (0, None))

    @jax.jit
    def run(start, held_out, keys):
        (parameters, _, _), _ = jax.lax.scan(epoch, (start, jax.vmap(adam.init)(start), 0), keys)
        return parameters, losses(parameters, held_out), losses(start, held_out)

    parameters, after, before = run(start, held_out, jax.random.split(key, epochs))
    after = np.nan_to_num(np.asarray(after, float), nan=np.inf).reshape(len(models), -1)
    before = np.asarray(before, float).reshape(len(models), -1)[:, 0]
    places = np.argmin(after, axis=1) + np.arange(len(models)) * len(settings)
    trained = [nnx.merge(graph, jax.tree.map(lambda p, i=i: p[i], parameters), constants) for i in places]
    improved = after.min(axis=1) < before
    return [new if better else old for new, old, better in zip(trained, models, improved, strict=True)]
