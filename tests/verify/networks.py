"""Whole networks against samples: values and adjoints of every node at points of a box lie in their enclosures."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from oracles import points_of, random_surrogate

from sobolev_utils.enclosures.intervals import Interval, box
from sobolev_utils.learning.surrogate import ACTIVATIONS
from sobolev_utils.pruning.significance import values_and_adjoints
from verify.primitives import Tally, leaves

__all__ = ["WIDTHS", "Network", "networks", "verify"]

BATCH = 8192
DOMAIN = 0.3, 1.7
# Sides of the boxes; the last is that of the domain.
WIDTHS = 1e-3, 1e-2, 0.1, 0.4, 1.4


class Network(NamedTuple):
    """What defines a random network, and the type of its weights and enclosures."""

    activation: str
    n_inputs: int
    widths: tuple
    seed: int
    dtype: type

    def __str__(self):
        return f"{self.dtype.__name__} {self.activation} {self.n_inputs}-{'-'.join(map(str, self.widths))}-1"


def networks(seeds, depths=range(1, 7)):
    """Networks of each activation, depth and seed, of 2 to 64 nodes a layer, in float32 and float64 by turns."""
    for activation in ACTIVATIONS:
        for depth in depths:
            for seed in seeds:
                rng = np.random.default_rng([*activation.encode(), depth, seed])
                widths = np.exp2(rng.uniform(1, np.log2(65), depth)).astype(int).tolist()
                dtype = (np.float32, np.float64)[(depth + seed) % 2]
                yield Network(activation, int(rng.integers(1, 9)), tuple(widths), seed, dtype)


def verify(network, method, batches, widths=WIDTHS):
    """Batches of points of a random box of each width, computed in float64, against the enclosures by `method`.

    A point lies outside if the value or the adjoint of any node does. It is noticed if one, the inputs apart, is not
    in the middle half of its enclosure.
    """
    rng = np.random.default_rng(network.seed)
    model = random_surrogate(network.n_inputs, network.widths, network.activation, network.seed, network.dtype)
    f = functools.partial(values_and_adjoints, model)
    by_numpy, by_xla, sample, tally = method(f), jax.jit(method(f)), jax.jit(jax.vmap(f)), Tally()
    for width in widths:
        lower = rng.uniform(DOMAIN[0], DOMAIN[1] - width, network.n_inputs).astype(network.dtype)
        inputs = box(lower, lower + network.dtype(width))
        enclosures = [
            x.intersection(y) for x, y in zip(leaves(by_numpy(inputs)), leaves(by_xla(inputs)), strict=True)
        ]
        halves = [Interval(x.midpoint - x.width / 4, x.midpoint + x.width / 4) for x in enclosures]
        ends = [np.asarray(end, float) for end in (inputs.lower, inputs.upper)]
        for _ in range(batches):
            points = points_of(rng, *ends, BATCH)
            nodes = jax.tree.leaves(sample(points))
            out = points[outside(enclosures, nodes)]
            first = f"seed {network.seed}, width {width}, at {out[0].tolist()}" if len(out) else ""
            tally += Tally(BATCH, len(out), int(outside(halves[1:], nodes[1:]).sum()), first)
    return tally


@jax.jit
def _held(enclosures, nodes):
    held = [x.contains(y).reshape(len(y), -1).all(1) for x, y in zip(enclosures, nodes, strict=True)]
    return functools.reduce(jnp.logical_and, held)


def outside(enclosures, nodes):
    """Which points have a node outside of its enclosure, or one that is not a number."""
    return ~np.asarray(_held(enclosures, nodes))
