"""Why a training run goes wrong: its weights, its samples, their scale, its loss, or the learning rate."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.models.samples import Samples, not_finite

__all__ = ["Diverged", "Failure", "cause", "check_weights", "first_failure", "scale", "warn_of_scale"]


FAR = 1e6  # times the median is far


class Diverged(FloatingPointError):
    """A training run that stopped being finite at `step`, counted from 1 over all epochs: its loss, or its update.

    model: the surrogate of the last step with a finite loss (the first one, if there is none); history: the mean loss
    of each whole epoch before.
    """

    def __init__(self, message: str, model: Surrogate, history: np.ndarray, step: int):
        super().__init__(message)
        self.model, self.history, self.step = model, history, step


def check_weights(model: Surrogate) -> None:
    """Raise ValueError, naming the array, where weights or the normalisation are not finite."""
    for name, array in model.arrays().items():
        if name != "activation" and (count := np.sum(~np.isfinite(array))):
            raise ValueError(f"{name} of the surrogate holds {count} entries that are not finite: start from another")


def scale(model: Surrogate, samples: Samples) -> jax.Array:
    """Mean and deviation of the inputs, and of the labels, in the surrogate's own coordinates: (2, 2)."""
    x = (samples.x - model.x_mean[...]) / model.x_std[...]
    y = (samples.y - model.y_mean[...]) / model.y_std[...]
    return jnp.stack([jnp.stack([jnp.mean(a), jnp.std(a)]) for a in (x, y)])


def warn_of_scale(statistics: jax.Array, name: str) -> None:
    """Warn where samples of this `scale` are more than 10 off, or less than 0.01 away from all being zero."""
    off = []
    for what, (mean, deviation) in zip(("inputs", "labels"), np.asarray(statistics), strict=True):
        if max(abs(mean), deviation) > 10 or np.hypot(mean, deviation) < 0.01:
            off.append(f"{what} of mean {mean:.3g} and deviation {deviation:.3g}")
    if off:
        fault = f"{name}: the surrogate takes means of 0 and deviations of 1, and got, in its own coordinates, "
        warnings.warn(f"{fault}{' and '.join(off)}: call normalise(x, y) of its samples first", stacklevel=3)


@dataclass(frozen=True)
class Failure:
    """The first step whose loss or update is not finite, counted from 1, and what it started from.

    last: the parameters of the last step with a finite loss; first_loss: the loss of the first step.
    """

    step: int
    parameters: object
    samples: Samples
    last: object
    first_loss: float


def first_failure(step: Callable, state: tuple, batches: Iterable[Samples]) -> Failure:
    """The first failure of step(state, samples) -> state, loss; of a state the first entry are the parameters."""
    last, losses = state[0], []
    for samples in batches:
        after, loss = step(state, samples)
        losses.append(float(loss))
        if np.isfinite(loss):
            last = state[0]
        if not _all_finite((loss, after[0])):
            break
        state = after
    return Failure(len(losses), state[0], samples, last, losses[0])


def cause(evaluate: Callable, failure: Failure, initial: object, learning_rate: float) -> str:
    """Why training failed there, and what to do. `evaluate(parameters, samples)` gives the loss and its gradient.

    In this order: the samples, where without their entries that are not finite all is well; the gradient, where the
    loss is finite and has not grown; where they are not finite at the `initial` parameters either, the samples again,
    if without their largest entries they are, or else the gradient or the loss; and the learning rate.
    """
    cleaned = jax.tree.map(lambda a: jnp.where(jnp.isfinite(a), a, 0), failure.samples)
    if (fault := not_finite(failure.samples)) and _all_finite(evaluate(failure.parameters, cleaned)):
        return f"in its batch {fault}: mend where they come from"
    loss, _ = evaluate(failure.parameters, failure.samples)
    if np.isfinite(loss) and loss <= 10 * failure.first_loss:
        return f"the loss, {loss:.3g}, is finite and its gradient is not: mend the loss where it has no derivative"
    before, gradient = evaluate(initial, failure.samples)
    if not _all_finite((before, gradient)):
        clipped, fault = _clipped(failure.samples)
        if fault and _all_finite(evaluate(initial, clipped)):
            far = "so far from the others that the loss is not finite before any step"
            return f"in its batch {fault}, {far}: mend where it comes from"
        if np.isfinite(before):
            return f"before any step the loss, {before:.3g}, is finite and its gradient is not: mend the loss"
        return f"the loss is {before:.3g} before any step, though samples and weights are finite: mend the loss"
    return f"lower the learning rate, {learning_rate:g}"


def _clipped(samples: Samples) -> tuple[Samples, str]:
    """Samples cut off at FAR times the median magnitude of what is not zero, and the largest entry cut, in words."""
    clipped, fault, largest = {}, "", 0.0
    for name, array in samples._asdict().items():
        size = np.abs(np.zeros(1) if array is None else np.asarray(array, float))
        median = np.median(size[size > 0]) if size.any() else 0.0
        if array is not None:
            limit = array.dtype.type(FAR * median)
            clipped[name] = jnp.clip(array, -limit, limit)
        if largest < (most := size.max()) > FAR * median:
            place = list(map(int, np.unravel_index(size.argmax(), size.shape)))
            largest, fault = most, f"samples.{name}{place} is {most:.3g} in magnitude, and the median {median:.3g}"
    return type(samples)(**clipped), fault


def _all_finite(tree) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
