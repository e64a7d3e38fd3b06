"""One `fit` for every stage: values or Sobolev targets, a fixed sample or fresh ones.

A step of rate eta updates the parameters by the gradient of the loss on one batch:

- "adam" (Kingma & Ba 2015), or "muon" (Jordan et al. 2024), which orthogonalises the steps of weight matrices and
  leaves the biases to Adam. On narrow deep networks Muon converges in fewer steps; on wide ones its steps cost more.
- The rate falls from `learning_rate` to 0 over all steps by half a period of the cosine ("cosine"), or stays
  ("constant"), as in the published recipe.
- Weights W, not biases, decay by eta * weight_decay * (eta / learning_rate) * W: decoupled from the gradient
  (Loshchilov & Hutter 2019), and annealed with the rate, so that the early steps look for a simple function and the
  late ones are not biased towards zero.

"levenberg_marquardt" is for the last digits of small networks: samples are drawn once, and an epoch is one iteration
on all of them, without rates, batches or decay (see `levenberg_marquardt`).
"""

import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from flax import nnx
from tqdm import tqdm

from sobolev_utils.arrays import as_count
from sobolev_utils.learning.diagnosis import Diverged, all_finite, check_weights, diagnose, warn_of_scale
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
    if fault := not_finite(samples):
        raise ValueError(fault)

    def draw(key: jax.Array) -> Samples:
        order = jax.random.permutation(key, len(samples.x))
        return jax.tree.map(lambda a: a[order], samples)

    return draw


_SCHEDULES = {
    "cosine": optax.cosine_decay_schedule,
    "constant": lambda learning_rate, steps: optax.constant_schedule(learning_rate),
}


def _adam(rate: optax.Schedule, decay: optax.Schedule) -> optax.GradientTransformation:
    decayed = optax.add_decayed_weights(decay, lambda parameters: jax.tree.map(lambda p: p.ndim > 1, parameters))
    return optax.chain(optax.scale_by_adam(), decayed, optax.scale_by_learning_rate(rate))


def _muon(rate: optax.Schedule, decay: optax.Schedule) -> optax.GradientTransformation:
    # Adam changes each bias by its rate, Muon a whole matrix by the rate in norm: so biases get a quarter of it
    return optax.contrib.muon(rate, weight_decay=decay, adam_learning_rate=lambda n: rate(n) / 4, adam_b2=0.99)


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
    """Minimise E loss(model, samples); returns a new model and its mean loss over each epoch, (epochs,), in training.

    Each epoch calls `draw(key)` for samples, the same ones (`shuffled`) or fresh ones, and takes one step for each
    `batch` of them (None: 512), in order. Epochs are scanned in one compiled program, so `draw` and `loss` are JAX
    functions of their arguments alone. `name` labels the progress bar.

    Warns where the surrogate's normalisation is not that of its samples. Raises ValueError for options that make no
    sense, weights that are not finite, samples whose shapes do not fit each other, an epoch that `batch` does not
    divide, and a `draw` or `loss` that depends on more than its arguments; `Diverged`, with the last finite state and
    the cause, where the loss stops being finite.
    """
    epochs = as_count(epochs, name="epochs")
    batch = None if batch is None else as_count(batch, name="batch")
    if not (0 < learning_rate < np.inf and 0 <= weight_decay < np.inf):
        raise ValueError(f"need learning_rate > 0 and weight_decay >= 0, got {learning_rate} and {weight_decay}")
    if schedule not in _SCHEDULES:
        raise ValueError(f"unknown schedule {schedule!r}, expected one of {sorted(_SCHEDULES)}")
    if optimiser not in (known := sorted([*_OPTIMISERS, "levenberg_marquardt"])):
        raise ValueError(f"unknown optimiser {optimiser!r}, expected one of {known}")
    check_weights(model)
    if optimiser == "levenberg_marquardt":
        if batch is not None or weight_decay:
            raise ValueError("Levenberg-Marquardt takes all samples at once and no decay: leave out both")
        samples = as_samples(draw(key))
        warn_of_scale(model, samples, name)
        return levenberg_marquardt(model, samples, loss, iterations=epochs, name=name)
    training = _Training(model, draw, loss, key, batch or 512)
    rate = _SCHEDULES[schedule](learning_rate, epochs * training.steps)
    training.optimise = _OPTIMISERS[optimiser](rate, lambda count: weight_decay * rate(count) / learning_rate)
    warn_of_scale(model, jax.jit(training.batches)(key), name)

    run = jax.jit(lambda state, keys: jax.lax.scan(training.epoch, state, keys))
    chunks = max(d for d in range(1, 21) if epochs % d == 0)  # of equal length, so that one program serves all
    state, history, recent = (training.start, training.optimise.init(training.start)), [], []
    with tqdm(total=epochs, desc=name, unit="epoch", file=sys.stdout, mininterval=0.5, ncols=80) as bar:
        for keys in jnp.split(jax.random.split(key, epochs), chunks):
            recent = [*recent[-1:], (state, keys)]  # the last two chunks: a failure in one may show only in the next
            state, values = run(state, keys)
            if not all_finite((values, state[0])):
                raise training.diverged(recent, [*history, values], epochs, learning_rate, name)
            history.append(np.asarray(values))
            bar.set_postfix_str(f"loss {history[-1][-1]:.3g}", refresh=False)
            bar.update(len(keys))
    return training.model_of(state[0]), np.concatenate(history)


class _Training:
    """The steps and epochs of one training, as functions of a state: the parameters, and what the optimiser keeps."""

    def __init__(self, model: Surrogate, draw: Draw, loss: Loss, key: jax.Array, batch: int):
        self.draw, self.loss = draw, loss
        self.graph, self.start, self.constants = nnx.split(model, nnx.Param, ...)
        shapes = checked_shapes("draw", lambda key: as_samples(draw(key)), key)
        size = len(shapes.x)
        if size % batch:
            raise ValueError(
                f"an epoch of {size} samples is not a whole number of batches of {batch}: choose another"
            )
        self.steps, self.batch = size // batch, batch
        one_batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((batch, *a.shape[1:]), a.dtype), shapes)
        checked_shapes("loss", self.loss_of, self.start, one_batch)

    def model_of(self, parameters) -> Surrogate:
        return nnx.merge(self.graph, parameters, self.constants)

    def loss_of(self, parameters, samples):
        return self.loss(self.model_of(parameters), samples)

    def batches(self, key):
        """The samples of an epoch, with one axis more: (steps, batch, ...)."""
        return jax.tree.map(lambda a: a.reshape(self.steps, self.batch, *a.shape[1:]), as_samples(self.draw(key)))

    def step(self, state, samples):
        parameters, moments = state
        value, gradient = jax.value_and_grad(self.loss_of)(parameters, samples)
        updates, moments = self.optimise.update(gradient, moments, parameters)
        return (optax.apply_updates(parameters, updates), moments), value

    def epoch(self, state, key):
        state, values = jax.lax.scan(self.step, state, self.batches(key))
        return state, jnp.mean(values)

    def diverged(self, recent: list, history: list, epochs: int, learning_rate: float, name: str) -> Diverged:
        """The error for a chunk of epochs that is not finite, whose steps are repeated one by one to find the cause.

        recent: state and keys of the last chunks; history: the losses by epoch of all chunks.
        """
        of_epochs = (self.batches(key) for _, keys in recent for key in keys)
        batches = (jax.tree.map(lambda a, i=i: a[i], epoch) for epoch in of_epochs for i in range(self.steps))
        step, evaluate = jax.jit(self.step), jax.value_and_grad(self.loss_of)
        n, last, why = diagnose(step, evaluate, recent[0][0], batches, self.start, learning_rate)
        n += (len(history) - len(recent)) * len(recent[-1][1]) * self.steps
        message = f"{name} diverged at step {n} of {epochs * self.steps}: {why}"
        return Diverged(message, self.model_of(last), np.concatenate(history)[: (n - 1) // self.steps], n)
