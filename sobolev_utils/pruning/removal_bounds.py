"""What holding nodes at constants does to the output: bounds that are proven over a whole box of inputs.

Let the nodes i of a set R be held at constants c_i, and call n_i their values and f_R the changed network.

Theorem. Let [n] and the adjoints come from the interval analysis of one box, and c_i be in [n_i]. Then

    |f_R(x) - f(x)| <= sum_{i in R} max |c_i - [n_i]| max |adjoint of n_i|    for all x in the box,

which is sum S_i / 2 for the midpoints. Proof. Replace one layer at a time, from the inputs on. In the natural
interval extension the layers after l use of the nodes of layer l only their intervals [n_l], so that the adjoints of
layer l are enclosed on all of that box: it is convex and holds the values, the constants and the segments between
them. The change of step l is the integral of the derivative along the segment, which at a kink (relu) is one of the
two that an undecided comparison encloses. Nodes of the layers before l have values in the same intervals, by
induction, and the layers after l are still the old ones.

Adjoints of sub-boxes, or of zonotopes, are enclosed on the values that are reached, without the segments, and the
second replacement starts from a network that has changed. `changes_enclosed` therefore encloses the derivative in t
of the network f_t in which the nodes of R have the values n_i + t (c_i - n_i): f_R(x) - f(x) lies in its hull for t
from 0 to 1.

What is proven assumes that `rounding.ELEMENTARY` bounds the errors of XLA's elementary functions. It holds for the
networks evaluated exactly with their stored weights: their evaluation, and `nodes.prune`, which folds constants into
a bias, add rounding errors of their own.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sobolev_utils.arrays import as_floats
from sobolev_utils.enclosures.branch_and_bound import enclose_subdivided
from sobolev_utils.enclosures.intervals import Interval, enclose
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.pruning.attained import extremes
from sobolev_utils.pruning.significance import Significance, expect

__all__ = ["Step", "change", "change_bound", "changes_enclosed", "changes_found"]

# Indices of the nodes that stay in each hidden layer, and constants (width,) at which the others are held.
Step = tuple[Sequence[np.ndarray], Sequence[jax.Array]]

TOLERANCE = 0.05


def change_bound(analysis: Significance, keep: Sequence[np.ndarray], constants: Sequence[jax.Array]) -> float:
    """The bound of the theorem, in units of the output: nodes outside `keep` are held at `constants`, (width,) each.

    analysis: `significance.analyse` of one box by "intervals" or "operations". For the midpoints of its values the
    bound is half the sum of the significances. Raises ValueError for an analysis by another method, which proves
    nothing here, and for a constant that is not in the enclosure of its node.
    """
    expect(analysis, ("operations", "intervals"), "the analysis")
    total = 0.0
    hidden = analysis.values[1:-1]
    masks, constants = checked_step([values.shape[0] for values in hidden], (keep, constants))
    layers = zip(hidden, analysis.adjoints[1:-1], masks, constants, strict=True)
    for layer, (values, adjoints, mask, constant) in enumerate(layers, start=1):
        gone = np.flatnonzero(mask)
        outside = gone[~np.asarray(values.contains(constant))[gone]]
        if outside.size:
            node = outside[0]
            raise ValueError(
                f"layer {layer}: the constant of node {node} is not in the enclosure of its values: got "
                f"{constant[node]:g}, expected {values.lower[node]:g} to {values.upper[node]:g}, as a midpoint is"
            )
        distance = np.maximum(values.upper - constant, constant - values.lower).astype(np.float64)
        # sum and factors are rounded to nearest, or to zero: a millionth and the smallest normal number cover that
        distance += np.finfo(np.float32).smallest_normal
        slope = np.asarray(adjoints.magnitude, np.float64)
        # a node without influence changes nothing, however far it is from its constant
        change = np.where(slope == 0, 0, distance) * slope
        total += (1 + 1e-6) * float(change[gone].sum())
    return total


def checked_step(widths: Sequence[int], step: Step, dtype=None) -> tuple[list[np.ndarray], list[jax.Array]]:
    """For each hidden layer a mask (width,) of the nodes that do not stay, and the constants as an array (width,).

    Raises ValueError for a mask in place of indices, and unless there is one constant for each node.
    """
    keep, constants = step
    keep = [np.asarray(indices) for indices in keep]
    constants = [as_floats(c, dtype, name=f"the constants of layer {i}") for i, c in enumerate(constants, start=1)]
    for layer, (width, kept, constant) in enumerate(zip(widths, keep, constants, strict=True), start=1):
        if constant.shape != (width,):
            raise ValueError(
                f"layer {layer}: expected constants of shape {(width,)}, one per node, got {constant.shape}"
            )
        if kept.size and (kept.dtype.kind not in "iu" or kept.min() < 0 or kept.max() >= width):
            raise ValueError(f"expected the indices of nodes that stay, from 0 to {width - 1}, got {kept}")
    masks = [np.isin(np.arange(width), kept, invert=True) for width, kept in zip(widths, keep, strict=True)]
    return masks, constants


def change(
    model: Surrogate, x: jax.Array, t: jax.Array, masks: Sequence[jax.Array], constants: Sequence[jax.Array]
) -> jax.Array:
    """f_t(x) for x (n_inputs,): nodes in the masks, by layer, have the values n_i + t (c_i - n_i)."""

    def towards(layer, values):
        constant = jnp.asarray(constants[layer - 1], values.dtype)
        return jnp.where(masks[layer - 1], values + t * (constant - values), values)

    return model.nodes(x, towards)[-1]


def changes_found(model: Surrogate, box: Interval, steps: Sequence[Step], **search) -> Interval:
    """The range of f_R - f that points of the box attain, for each step: (n_steps,), by `attained.extremes`.

    Computed in double precision, as small changes are lost in the rounding of single; the ends are NumPy arrays.
    """

    def difference(x):
        return jax.vmap(lambda *step: change(model, x, 1.0, *step) - change(model, x, 0.0, *step))(*stacked)

    with jax.enable_x64(True):
        stacked = _stacked(model, steps, jnp.float64)
        wide = jax.tree.map(lambda end: jnp.asarray(np.asarray(end), jnp.float64), box)
        return jax.tree.map(np.asarray, extremes(difference, wide, **search))


def changes_enclosed(
    model: Surrogate, box: Interval, steps: Sequence[Step], *, boxes: int = 2**10, batch: int = 64
) -> Interval:
    """Enclosures of f_R - f over the box for several R, (n_steps,), on sub-boxes.

    On each sub-box the derivative in t over [0, 1], intersected with the difference of the enclosures of f_R and f,
    which is the better one where much is removed. Split are the sub-boxes whose enclosures go furthest beyond what
    `changes_found` finds, by more than TOLERANCE times it.
    """
    stacked = _stacked(model, steps, box.dtype)
    inner = jax.tree.map(lambda end: jnp.asarray(end, box.dtype), changes_found(model, box, steps))
    weights = jnp.abs(model.delta(box.midpoint))
    zero, one = jnp.zeros((), box.dtype), jnp.ones((), box.dtype)

    def slope(x, t, *step):
        return jax.jvp(lambda t: change(model, x, t, *step), (t,), (one,))[1]

    def difference(x, *step):
        return change(model, x, one, *step) - change(model, x, zero, *step)

    def examine(x, parent):
        def enclosed(*step):
            return enclose(slope)(x, Interval(zero, one), *step).intersection(enclose(difference)(x, *step))

        y = jax.vmap(enclosed)(*stacked).intersection(parent)
        beyond = jnp.maximum(inner.lower - y.lower, y.upper - inner.upper)
        beyond = jnp.where(inner.magnitude > 0, beyond / inner.magnitude, 0)
        return y, jnp.maximum(beyond - TOLERANCE, 0).mean(), jnp.argmax(x.width * weights)

    return enclose_subdivided(examine, box, len(steps), boxes=boxes, batch=batch)


def _stacked(model, steps, dtype):
    """The masks and the constants of all steps, each an array (n_steps, width) for each layer."""
    checked = [checked_step(model.widths, step, dtype) for step in steps]
    return jax.tree.map(lambda *several: jnp.stack(several), *checked)
