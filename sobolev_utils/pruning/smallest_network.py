"""How small can a network get? A greedy search for few nodes that keep value and derivatives within a tolerance."""

from collections.abc import Callable
from functools import cache, lru_cache
from itertools import pairwise

import jax
import numpy as np

from sobolev_utils.enclosures.intervals import Interval
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.pruning.choice import Choice, matching_pursuit
from sobolev_utils.pruning.reconstruction import extended, refit
from sobolev_utils.pruning.sampled_network import Large

__all__ = ["relative_change", "smallest"]


def smallest(
    model: Surrogate,
    inputs: Interval,
    tolerance: float,
    *,
    points: int | np.ndarray = 2**10,
    choose: Choice = matching_pursuit,
    seed: int = 0,
) -> Surrogate:
    """The smallest reconstruction of `model` that a search finds whose `relative_change` is at most `tolerance`.

    The search starts from the smallest equal number of nodes in all layers that meets the tolerance. Then, as long as
    there is one, it takes of the steps within the tolerance the one that saves most parameters: a layer goes whole,
    or loses half of its nodes, or one. Other arguments and errors are those of `reconstruct`; ValueError also for a
    tolerance that is not positive.
    """
    if not 0 < tolerance < np.inf:
        raise ValueError(f"the tolerance must be a positive number, got {tolerance}")
    large = Large.at(model, inputs, points, 1.0, seed)
    extend = lru_cache(maxsize=64)(extended)  # networks that differ in their last layers have the first in common

    @cache
    def within(counts: tuple[int, ...]) -> Surrogate | None:
        small = refit(large, large.whole, counts, choose, extend)
        if max(_relative(large.whole.outputs, small.outputs)) > tolerance:  # in double precision: no need to evaluate
            return None
        return small.model if max(relative_change(model, small.model, large.x)) <= tolerance else None

    def alike(count: int) -> tuple[int, ...]:
        return tuple(min(count, width) for width in model.widths)

    best = alike(_fewest(lambda count: within(alike(count)), max(model.widths)))
    failed = set()  # what was too much for a layer while the others were larger
    while steps := [step for step in _steps(best) if step not in failed]:
        layer, count = max(steps, key=lambda step: _saved(model, best, *step))
        counts = (*best[: layer - 1], count, *best[layer:])
        if any(counts) and within(counts):
            best = counts
        else:
            failed.add((layer, count))
    return within(best) or model


def relative_change(model: Surrogate, other: Surrogate, x: np.ndarray) -> tuple[float, float]:
    """How far two networks differ at points x (n, n_inputs): in value and in derivatives.

    The root mean square of the difference of values, over the deviation of the values of the first; and of the
    derivatives along each input, in units of its deviation, over the root mean square of those of the first.
    """
    with jax.enable_x64(True):
        x = np.asarray(x, float)
        scales = np.broadcast_to(np.asarray(model.x_std[...], float), x.shape[1:])
        return _relative(*(_value_and_slopes(network, x, np.diag(scales)) for network in (model, other)))


def _value_and_slopes(network: Surrogate, x: np.ndarray, directions: np.ndarray) -> np.ndarray:
    y, along = jax.linearize(network, x)
    return np.stack([y, *(along(np.broadcast_to(v, x.shape)) for v in directions)])


def _relative(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """`relative_change` of values and their derivatives in k directions, (1 + k, n, ...); 0 for mere rounding."""
    change, rounding = second - first, 16 * np.finfo(float).eps * abs(first).max()
    scales = _rms(first[0] - first[0].mean(axis=0)), _rms(first[1:])
    changes = (_rms(part) for part in (change[0], change[1:]))
    return tuple(0.0 if c <= rounding else c / s if s else np.inf for c, s in zip(changes, scales, strict=True))


def _rms(a: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(a))))


def _fewest(works: Callable[[int], object], most: int) -> int:
    """The smallest count from 1 to `most` that works, where more nodes work no worse; `most`, if none does."""
    low, high = 1, 1
    while high < most and not works(high):  # from few nodes on, which cost little
        low, high = high + 1, min(2 * high, most)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle) else (middle + 1, high)
    return high


def _steps(counts: tuple[int, ...]) -> list[tuple[int, int]]:
    """For each layer, from 1, fewer nodes: none, half as many, or one less."""
    numbered = enumerate(counts, start=1)
    return [(layer, fewer) for layer, count in numbered for fewer in {0, count // 2, count - 1} if 0 <= fewer < count]


def _saved(model: Surrogate, counts: tuple[int, ...], layer: int, count: int) -> int:
    """How many parameters go when a layer has only `count` nodes."""

    def parameters(hidden):
        sizes = [model.n_inputs, *filter(None, hidden), model.n_outputs]
        return sum((a + 1) * b for a, b in pairwise(sizes))

    return parameters(counts) - parameters((*counts[: layer - 1], count, *counts[layer:]))
