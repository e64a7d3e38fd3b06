r"""How far two networks differ, in value and in every derivative: bounds that are proven over a whole box of inputs.

A removed node becomes an affine function of those that stay, c_0 + sum_i c_i n_i (a constant, where all c_i are 0).
Let f_0 be the large network and f_1 the small one. In f_t a node that stays receives (1 - t)(n W + b) + t (m C + c):
n are the nodes of the layer before and W, b the weights of the large network; m are the nodes that stay, of the last
layer before of which any do, and C, c the weights of the small network. A node that does not stay receives n W + b.

Theorem. With the adjoints a_l of what layer l receives, and the residuals r_l = (m C + c) - (n W + b) of its nodes
that stay (0 for the others), both in f_t at x,

    f_1(x) - f_0(x) = int_0^1 sum_l a_l . r_l dt,    |f_1(x) - f_0(x)| <= sum_l max_t |a_l . r_l|,

and the same holds of the gradient, with the derivatives of a_l . r_l in x. Proof. The derivative of f_t in t is that
of the output in what each layer receives, times the derivative of that in its own t, which is r_l. At t = 0 this is
the large network; at t = 1 nodes that do not stay enter no layer, so it is the small one. For constants, C = W on the
nodes that stay, and r_l = sum_i (c_i - n_i) W_i.

So the change is as small as the residual of the fit, in the metric of the adjoints. What is enclosed here is
f_1 - f_0 itself, by affine arithmetic, in which the parts that both have in common cancel. The box is covered by
slabs (see `active_subspace`), in which a network that is a function of w'x alone varies with t alone.

Proven means given the table of bounds `rounding.ELEMENTARY`, of exact functions of the floating-point weights.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sobolev_utils.enclosures import zonotopes
from sobolev_utils.enclosures.branch_and_bound import enclose_subdivided
from sobolev_utils.enclosures.intervals import Interval, box
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.pruning.active_subspace import active_gradients, slabs
from sobolev_utils.pruning.attained import extremes

__all__ = ["Difference", "difference"]


@dataclass(frozen=True)
class Difference:
    """How far two networks differ over a box: the largest |f_1 - f_0|, and that of each derivative, (n_inputs,).

    value, gradient: proven bounds; value_found, gradient_found: what a search finds from inside. The truth lies
    between.
    """

    value: float
    gradient: np.ndarray
    value_found: float
    gradient_found: np.ndarray


def difference(
    model: Surrogate,
    other: Surrogate,
    inputs: Interval,
    *,
    boxes: int = 2**11,
    tolerance: float = 0.5,
    batch: int = 64,
) -> Difference:
    """The difference other - model over the box `inputs`, (n_inputs,), enclosed in double precision.

    Slabs are split, and other sub-boxes too, where the enclosures go furthest beyond (1 + `tolerance`) times what is
    found from inside, until none does, or at `boxes` sub-boxes. Raises ValueError for networks of several outputs, or
    of other inputs than the box.
    """
    if {(net.n_inputs, net.n_outputs) for net in (model, other)} != {(*inputs.shape, 1)}:
        shapes = [(net.n_inputs, net.n_outputs) for net in (model, other)]
        raise ValueError(f"need two networks of one output on a box {inputs.shape}, got inputs and outputs {shapes}")
    with jax.enable_x64(True):
        wide = box(*(np.asarray(end, float) for end in (inputs.lower, inputs.upper)))

        def both(x):
            (y, dy), (z, dz) = (jax.value_and_grad(network)(x) for network in (model, other))
            return jnp.concatenate([(z - y)[None], dz - dy])

        found = extremes(both, wide)
        scale = jnp.maximum(found.magnitude, jnp.finfo(float).tiny)
        gradients = active_gradients(model, wide)
        axes, slab, slack = slabs(gradients, wide)
        slopes = jnp.sqrt(jnp.mean(jnp.square(gradients @ axes), axis=0))

        def examine(s, parent):
            y = zonotopes.enclose(lambda s, slack: both(axes @ s + slack))(s, slack).intersection(parent)
            excess = jnp.maximum(y.magnitude / scale - 1 - tolerance, 0)
            return y, excess.max(), jnp.argmax(s.width * slopes)

        proven = enclose_subdivided(examine, slab, 1 + wide.shape[0], boxes=boxes, batch=batch)
        largest = [np.asarray(each.magnitude) for each in (proven, found)]
    return Difference(*(part for each in largest for part in (float(each[0]), each[1:])))
