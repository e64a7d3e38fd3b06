"""One `fit` for every stage: values or Sobolev targets, a fixed sample or fresh ones."""

import sys
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from flax import nnx
from tqdm import tqdm

from sobolev_utils.arrays import as_count
from sobolev_utils.learning.diagnosis import Diverged, cause, check_weights, first_failure, scale, warn_of_scale
from sobolev_utils.learning.levenberg_marquardt import levenberg_marquardt
from sobolev_utils.learning.losses import Loss
from sobolev_utils.learning.purity import checked_shapes
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.models.samples import Samples, as_samples, not_finite

__all__ = ["Diverged", "Draw", "fit", "shuffled"]

Draw = Callable[[jax.Array], Samples]


def shuffled(samples: Samples) -> Draw:
    """A fixed sample as a source of epochs: the same samples in a new order for each key.

    Raises ValueError where shapes do not fit each other or an entry is not finite.
    """
    samples = as_samples(samples)
    if told := not_finite(samples):
        raise ValueError(told)

    def draw(key: jax.Array) -> Samples:
        order = jax.random.permutation(key, len(samples.x))
        return jax.tree.map(lambda a: a[order], samples)

    return draw


_SCHEDULES = {
    "cosine": optax.cosine_decay_schedule,
    "constant": lambda learning_rate, steps: optax.constant_schedule(learning_rate),
}


def _adam(rate: optax.Schedule, decay: optax.Schedule) -> optax.GradientTransformation:
    def is_matrix(parameters):
        return jax.tree.map(lambda p: p.ndim > 1, parameters)

    return optax.chain(
        optax.scale_by_adam(), optax.add_decayed_weights(decay, is_matrix), optax.scale_by_learning_rate(rate)
    )


def _muon(rate: optax.Schedule, decay: optax.Schedule) -> optax.GradientTransformation:
    # A quarter of the rate for the biases, which Adam moves by the rate each, Muon a whole matrix by its norm
    return optax.contrib.muon(
        rate, weight_decay=decay, adam_learning_rate=lambda count: rate(count) / 4, adam_b2=0.99
    )


_OPTIMISERS = {"adam": _adam, "muon": _muon}


def fit(
    model: Surrogate,
    draw: Draw,
    loss: Loss,
    *,
    key: jax.Array,
    epochs: int,
    batch: int | None = None,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    optimiser: str = "adam",
    schedule: str = "cosine",
    name: str = "training",
) -> tuple[Surrogate, np.ndarray]:
    """Minimise E loss(model, samples); returns a new model and the loss by epoch.

    Each epoch asks `draw(key)` for samples, the same ones (`shuffled`) or fresh ones, and takes one step for each
    `batch` of them (None: 512), in order. Epochs are scanned in one compiled program, called for one chunk after
    another so that a progress bar called `name` can move; samples are drawn and kept on the device. So `draw` and
    `loss` are JAX functions of their arguments alone: what they take from elsewhere, compilation would freeze. The
    history is the mean loss over each epoch, shape (epochs,), as it was during training.

    schedule: "cosine", a rate that falls from `learning_rate` to 0 over all steps by half a period of the cosine; or
    "constant", as in the published recipe.

    Weights W, not biases, decay by eta * weight_decay * (eta / learning_rate) * W in a step of rate eta: decoupled
    from the gradient (Loshchilov & Hutter 2019), and annealed with the rate, so that the early steps look for a
    simple function and the late ones are not biased towards zero.

    optimiser: "adam", or "muon" (Jordan et al. 2024), which orthogonalises the steps of weight matrices and leaves
    the biases to Adam. On narrow deep networks Muon converges in fewer steps; on wide ones its steps cost more. Or
    "levenberg_marquardt", for the last digits of small networks: samples are drawn once, and each epoch is one
    iteration on all of them, without rates or batches (see `levenberg_marquardt`).

    Warns where the surrogate's normalisation is not that of its samples. Raises ValueError for counts or rates that
    make no sense, weights that are not finite, samples whose shapes do not fit each other, an epoch that `batch` does
    not divide, and a `draw` or `loss` that another call would give other numbers; `Diverged`, with the last finite
    state and the cause, where the loss stops being finite.
    """
    epochs = as_count(epochs, name="epochs")
    batch = batch if batch is None else as_count(batch, name="batch")
    if not (0 < learning_rate < np.inf and 0 <= weight_decay < np.inf):
        raise ValueError(f"need learning_rate > 0 and weight_decay >= 0, got {learning_rate} and {weight_decay}")
    if schedule not in _SCHEDULES:
        raise ValueError(f"unknown schedule {schedule!r}, expected one of {sorted(_SCHEDULES)}")
    check_weights(model)
    if optimiser == "levenberg_marquardt":
        if batch is not None or weight_decay:
            raise ValueError("Levenberg-Marquardt takes all samples at once and no decay: leave out both")
        samples = as_samples(draw(key))
        warn_of_scale(scale(model, samples), name)
        return levenberg_marquardt(model, samples, loss, iterations=epochs, name=name)
    if optimiser not in _OPTIMISERS:
        known = sorted([*_OPTIMISERS, "levenberg_marquardt"])
        raise ValueError(f"unknown optimiser {optimiser!r}, expected one of {known}")
    batch = batch or 512
    shapes = checked_shapes("draw", lambda key: as_samples(draw(key)), key)
    size = len(shapes.x)
    if size % batch:
        raise ValueError(f"an epoch of {size} samples is not a whole number of batches of {batch}: choose another")
    steps = size // batch

    graph, parameters, constants = nnx.split(model, nnx.Param, ...)
    rate = _SCHEDULES[schedule](learning_rate, epochs * steps)
    optimise = _OPTIMISERS[optimiser](rate, lambda count: weight_decay * rate(count) / learning_rate)

    def model_of(parameters):
        return nnx.merge(graph, parameters, constants)

    def loss_of(parameters, samples):
        return loss(model_of(parameters), samples)

    one_batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((batch, *a.shape[1:]), a.dtype), shapes)
    checked_shapes("loss", loss_of, parameters, one_batch)

    def step(state, samples):
        parameters, moments = state
        value, gradient = jax.value_and_grad(loss_of)(parameters, samples)
        updates, moments = optimise.update(gradient, moments, parameters)
        return (optax.apply_updates(parameters, updates), moments), value

    def batches(key):
        return jax.tree.map(lambda a: a.reshape(steps, batch, *a.shape[1:]), as_samples(draw(key)))

    def epoch(state, key):
        state, values = jax.lax.scan(step, state, batches(key))
        return state, jnp.mean(values)

    warn_of_scale(jax.jit(lambda key: scale(model, batches(key)))(key), name)
    run = jax.jit(lambda state, keys: jax.lax.scan(epoch, state, keys))
    chunks = max(d for d in range(1, 21) if epochs % d == 0)  # of equal length, so that one program serves all
    state, history, begun = (parameters, optimise.init(parameters)), [], []
    bar = tqdm(total=epochs, desc=name, unit="epoch", file=sys.stdout, mininterval=0.5, ncols=80)
    with bar:
        for keys in jnp.split(jax.random.split(key, epochs), chunks):
            begun = [*begun[-1:], (state, keys)]  # the last two chunks: what ends one may show in the next
            state, values = run(state, keys)
            if not all(np.isfinite(leaf).all() for leaf in (values, *jax.tree.leaves(state[0]))):
                again = (one for _, keys in begun for key in keys for one in _each(batches(key)))
                failure = first_failure(jax.jit(step), begun[0][0], again)
                at = (len(history) - len(begun) + 1) * len(keys) * steps + failure.step
                whole = np.concatenate([*history, values])[: (at - 1) // steps]
                why = cause(jax.value_and_grad(loss_of), failure, parameters, learning_rate)
                message = f"{name} diverged at step {at} of {epochs * steps}: {why}"
                raise Diverged(message, model_of(failure.last), whole, at)
            history.append(np.asarray(values))
            bar.set_postfix_str(f"loss {history[-1][-1]:.3g}", refresh=False)
            bar.update(len(keys))
    return model_of(state[0]), np.concatenate(history)


def _each(batches: Samples) -> Iterator[Samples]:
    """One batch after the other."""
    for i in range(len(batches.x)):
        yield jax.tree.map(lambda a, i=i: a[i], batches)
