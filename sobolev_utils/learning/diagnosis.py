"""Why a training run goes wrong: its weights, its samples, their scale, its loss, or the learning rate."""

import warnings
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.models.samples import Samples, not_finite

__all__ = ["Diverged", "all_finite", "check_weights", "diagnose", "warn_of_scale"]

FAR = 1e6  # entries beyond this many times the median magnitude may be the cause


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


def warn_of_scale(model: Surrogate, samples: Samples, name: str) -> None:
    """Warn where inputs or labels, in the surrogate's own coordinates, are not near a mean of 0 and a deviation of 1:
    where one of the two is more than 10, or both together are less than 0.01.
    """
    off = []
    for what, array, centre, unit in (
        ("inputs", samples.x, model.x_mean, model.x_std),
        ("labels", samples.y, model.y_mean, model.y_std),
    ):
        normalised = (array - centre[...]) / unit[...]
        mean, deviation = float(normalised.mean()), float(normalised.std())
        if max(abs(mean), deviation) > 10 or np.hypot(mean, deviation) < 0.01:
            off.append(f"{what} of mean {mean:.3g} and deviation {deviation:.3g}")
    if off:
        fault = f"{name}: the surrogate takes means of 0 and deviations of 1, and got, in its own coordinates, "
        warnings.warn(f"{fault}{' and '.join(off)}: call normalise(x, y) of its samples first", stacklevel=3)


def diagnose(
    step: Callable, evaluate: Callable, state: tuple, batches: Iterable[Samples], initial, learning_rate: float
) -> tuple[int, object, str]:
    """Repeat training from `state` up to the first step whose loss or update is not finite.

    step(state, samples) -> state, loss, where state[0] are the parameters; evaluate(parameters, samples) -> loss,
    gradient; initial: the parameters before training. Returns the number of that step, counted from 1, the parameters
    of the last step with a finite loss, and the cause with what to do about it.
    """
    last, losses = state[0], []
    for samples in batches:
        after, loss = step(state, samples)
        losses.append(float(loss))
        if np.isfinite(loss):
            last = state[0]
        if not all_finite((loss, after[0])):
            break
        state = after
    return len(losses), last, _cause(evaluate, state[0], samples, losses[0], initial, learning_rate)


def _cause(evaluate, parameters, samples, first_loss, initial, learning_rate) -> str:
    fault = not_finite(samples)
    if fault and all_finite(evaluate(parameters, jax.tree.map(lambda a: jnp.where(jnp.isfinite(a), a, 0), samples))):
        return f"in its batch {fault}: mend where they come from"
    loss, _ = evaluate(parameters, samples)
    if np.isfinite(loss) and loss <= 10 * first_loss:
        return f"the loss, {loss:.3g}, is finite and its gradient is not: mend the loss where it has no derivative"
    before, gradient = evaluate(initial, samples)
    if all_finite((before, gradient)):
        return f"lower the learning rate, {learning_rate:g}"
    clipped, fault = _clipped(samples)
    if fault and all_finite(evaluate(initial, clipped)):
        far = "so far from the others that the loss is not finite before any step"
        return f"in its batch {fault}, {far}: mend where it comes from"
    if np.isfinite(before):
        return f"before any step the loss, {before:.3g}, is finite and its gradient is not: mend the loss"
    return f"the loss is {before:.3g} before any step, though samples and weights are finite: mend the loss"


def _clipped(samples: Samples) -> tuple[Samples, str]:
    """Samples clipped at FAR times the median magnitude of nonzero entries, and the largest one clipped, in words."""
    clipped, fault, largest = {}, "", 0.0
    for name, array in samples._asdict().items():
        if array is None or not array.any():
            continue
        size = np.abs(np.asarray(array, float))
        median = np.median(size[size > 0])
        limit = array.dtype.type(FAR * median)
        clipped[name] = jnp.clip(array, -limit, limit)
        if largest < (most := size.max()) > FAR * median:
            place = list(map(int, np.unravel_index(size.argmax(), size.shape)))
            largest, fault = most, f"samples.{name}{place} is {most:.3g} in magnitude, and the median {median:.3g}"
    return samples._replace(**clipped), fault


def all_finite(tree) -> bool:
    """Whether all entries of all arrays are finite."""
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
