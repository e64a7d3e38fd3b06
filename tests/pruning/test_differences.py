"""Proven differences of two networks against what points and known differences say."""

from fractions import Fraction

import numpy as np
import pytest
from flax import nnx
from oracles import random_surrogate

from sobolev_utils.enclosures import box
from sobolev_utils.learning import Surrogate
from sobolev_utils.pruning import difference, reconstruct
from sobolev_utils.pruning.active_subspace import slabs

BOX = box(np.full(2, -0.5), np.full(2, 1.0))
X = np.random.default_rng(0).uniform(-0.5, 1.0, (2000, 2))


def network(seed, widths=(6, 5)):
    return random_surrogate(n_inputs=2, widths=widths, seed=seed)


@pytest.mark.parametrize("other", [lambda model: network(1), lambda model: reconstruct(model, BOX, 4)])
def test_every_difference_at_a_point_is_enclosed_and_the_bounds_are_tight(other):
    model = network(0)
    small = other(model)
    found = difference(model, small, BOX, boxes=4096)
    values, gradients = abs(small(X) - model(X)).max(), abs(small.delta(X) - model.delta(X)).max(axis=0)
    assert values <= found.value and (gradients <= found.gradient).all()
    assert found.value_found <= found.value <= 1.5 * found.value_found
    assert (found.gradient_found <= found.gradient).all()
    assert (found.gradient <= 1.5 * found.gradient_found).all()


def test_of_a_network_and_itself_nothing_is_found_and_little_left():
    model = network(0)
    found = difference(model, model, BOX, boxes=512)
    assert max(found.value_found, *found.gradient_found) < 1e-15  # the two may be compiled otherwise
    assert found.value < 0.05 * np.ptp(model(X))  # affine arithmetic does not know that both are one


def test_another_bias_of_the_output_is_found_and_proven():
    arrays = network(0).arrays()
    shifted = Surrogate.from_arrays(arrays | {"bias_2": arrays["bias_2"] + 3})
    found, shift = difference(network(0), shifted, BOX, boxes=256), 3 * float(arrays["y_std"])
    np.testing.assert_allclose(found.value_found, shift, rtol=1e-12)
    assert shift <= found.value <= 1.5 * shift


def test_a_single_precision_network_is_taken_as_the_exact_function_of_its_weights():
    model = network(0)
    arrays = {name: a.astype(np.float32) if a.dtype.kind == "f" else a for name, a in model.arrays().items()}
    found = difference(Surrogate.from_arrays(arrays), model, BOX, boxes=32)
    assert 0 < found.value_found < 1e-5


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_slabs_cover_the_box(n):
    rng = np.random.default_rng(n)
    lower = rng.normal(size=n)
    upper = lower + rng.uniform(0.1, 2, n)
    axes, slab, slack = slabs(rng.normal(size=(50, n)), box(lower, upper))
    x = lower + (upper - lower) * rng.integers(0, 2, (100, n))  # corners
    exact = [[Fraction(a) for a in row] for row in np.asarray(axes)]
    w = [row[0] for row in exact]
    for point in x:
        fractions = [Fraction(a) for a in point]
        # the t that fits best: A's first column is parallel to w
        rest = [
            p - sum(a * q for a, q in zip(row[1:], fractions, strict=True))
            for p, row in zip(fractions, exact, strict=True)
        ]
        t = sum(a * r for a, r in zip(w, rest, strict=True)) / sum(a * a for a in w)
        assert float(slab.lower[0]) <= t <= float(slab.upper[0])
        assert all(abs(r - a * t) <= Fraction(float(slack.upper[0])) for r, a in zip(rest, w, strict=True))


def test_networks_of_another_shape_are_refused():
    two = Surrogate(2, [3], n_outputs=2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="need two networks of one output on a box"):
        difference(network(0), two, BOX)
