r"""How far two networks differ, in value and in every derivative: bounds that are proven over a whole box of inputs.

A removed node becomes an affine function of those that stay, c_0 + sum_i c_i n_i (a constant, where all c_i are 0).
Let f_0 be the large network, f_1 the small one, and f_t, for 0 <= t <= 1, a network with the nodes of the large one.
In it the input of a node that stays is (1 - t) (n W + b) + t (m C + d): n are the nodes of the preceding layer, m
those nodes that stay of the nearest preceding layer that keeps any; W, b and C, d are the weights and biases of the
large and of the small network. The input of a node that does not stay is n W + b.

Theorem. Let the activation be continuously differentiable (for the gradient: twice). With the adjoints a_l of the
inputs of layer l, and the residuals r_l = (m C + d) - (n W + b) of its nodes that stay (0 for the others), both in
f_t at x,

    f_1(x) - f_0(x) = int_0^1 sum_l a_l . r_l dt,    |f_1(x) - f_0(x)| <= sum_l max_t |a_l . r_l|,

and the same holds of the gradient, with the derivatives of a_l . r_l in x. Proof. Give t a value t_l of its own in
each layer: by the chain rule the derivative of the output in t_l is a_l . r_l, and the derivative in t is the sum of
these. At t = 0 this is the large network; at t = 1 no node of the small one depends on a node that does not stay.
For constants, C = W on the nodes that stay, and r_l = sum_i (c_i - n_i) W_i.

So the change is as small as the residual of the fit, in the metric of the adjoints. What is enclosed here is
f_1 - f_0 itself, by affine arithmetic, in which the parts that both have in common cancel (see `certificate`).

What is proven assumes that `rounding.ELEMENTARY` bounds the errors of XLA's elementary functions. It holds for the
networks evaluated exactly with their stored weights; rounding when a network is evaluated comes on top.
"""

from dataclasses import dataclass

import numpy as np

from sobolev_utils.enclosures.intervals import Interval
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.pruning.certificate import certify

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
) -> Difference:
    """The difference other - model over the box `inputs`, (n_inputs,), enclosed in double precision.

    Sections of the box are halved where the enclosures go furthest beyond (1 + `tolerance`) times what is found from
    inside, until none does, or at `boxes` sections. Raises ValueError for networks of several outputs, or
    of other inputs than the box.
    """
    if {(net.n_inputs, net.n_outputs) for net in (model, other)} != {(*inputs.shape, 1)}:
        shapes = [(net.n_inputs, net.n_outputs) for net in (model, other)]
        raise ValueError(f"need two networks of one output on a box {inputs.shape}, got inputs and outputs {shapes}")
    tolerances = dict.fromkeys(["price", "delta"], 1 + tolerance)
    price, delta = certify(other, model, inputs, tolerances=tolerances, boxes=boxes).bounds.values()
    return Difference(float(price.proven[0]), delta.proven[:-1], float(price.found[0]), delta.found[:-1])
