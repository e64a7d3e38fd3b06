"""Significance against reverse-mode differentiation on points, and against samples on boxes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracles import assert_encloses, assert_within, finite_difference, forward, random_surrogate, ranges

from sobolev_utils.enclosures.intervals import Interval, box
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.pruning.attained import extremes, inside, tightness
from sobolev_utils.pruning.significance import METHODS, Significance, analyse, nodes_along, values_and_adjoints

MODEL = random_surrogate(widths=(4, 4))
LOWER, UPPER = np.array([0.7, 0.9, 0.5]), np.array([1.2, 1.3, 0.6])
CENTER = (LOWER + UPPER) / 2


@pytest.fixture(scope="module")
def significance():
    return analyse(MODEL, box(LOWER, UPPER))


@pytest.fixture(scope="module")
def sampled():
    """Values and adjoints of every node at uniform points and at the corners of the box."""
    t = np.random.default_rng(0).uniform(size=(2000, 3))
    t[:8] = np.indices((2, 2, 2)).reshape(3, -1).T
    return jax.jit(jax.vmap(lambda x: values_and_adjoints(MODEL, x)))(jnp.asarray(LOWER + t * (UPPER - LOWER)))


def changed(**arrays):
    return Surrogate.from_arrays(MODEL.arrays() | arrays)


@pytest.mark.parametrize("activation", ["silu", "relu"])
def test_adjoints_are_derivatives_of_the_output_in_the_nodes(activation):
    model = random_surrogate(widths=(5, 4), activation=activation)
    arrays, x = model.arrays(), jnp.asarray(CENTER)
    values, adjoints = jax.jit(lambda x: values_and_adjoints(model, x))(x)
    assert [a.shape for a in adjoints] == [v.shape for v in values] == [(3,), (5,), (4,), ()]
    np.testing.assert_allclose(adjoints[0], model.delta(x), rtol=1e-13)
    assert adjoints[-1] == 1
    for layer in (1, 2):

        def output(nodes, layer=layer):
            return forward(arrays, CENTER, {(layer, i): value for i, value in enumerate(nodes)})[-1]

        difference = finite_difference(output, np.asarray(values[layer]))
        np.testing.assert_allclose(adjoints[layer], difference, rtol=1e-7, atol=1e-9)


def test_a_box_of_one_point_gives_its_values_and_adjoints():
    result = analyse(MODEL, box(CENTER, CENTER))
    exact = values_and_adjoints(MODEL, jnp.asarray(CENTER))
    assert_encloses(result, exact)
    for enclosure, point in zip(ranges(result), [*exact[0], *exact[1]], strict=True):
        np.testing.assert_allclose(enclosure.midpoint, point, rtol=1e-9)
        np.testing.assert_array_less(enclosure.width, 1e-11)
    assert max(np.max(s) for s in result.by_layer) < 1e-11


def test_the_analysis_encloses_what_samples_find(significance, sampled):
    assert_encloses(significance, sampled)
    for found, value, adjoint in zip(significance.by_layer, *sampled, strict=True):
        observed = np.ptp(value, axis=0) * abs(adjoint).max(axis=0)
        assert (found >= observed).all()
        assert (found < 100 * observed).all()  # on a small network it is not hopelessly wide either


def test_significance_is_width_times_largest_adjoint():
    values = [box([0.0, -1.0], [2.0, 3.0]), box([1.0], [1.5]), box(0.0, 1.0)]
    adjoints = [box([-3.0, 1.0], [1.0, 2.0]), box([-4.0], [-2.0]), box(1.0, 1.0)]
    result = Significance(values, adjoints)
    for found, expected in zip(result.by_layer, ([6, 8], [2], 1), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-15)
    assert len(result.hidden) == 1 and result.hidden[0] == result.by_layer[1]


def test_it_bounds_the_error_of_holding_a_node_of_the_last_layer(significance):
    # there the adjoint is constant, so that the bound of first order is the bound
    x = np.random.default_rng(1).uniform(LOWER, UPPER, (500, 3))
    arrays = MODEL.arrays()
    y = forward(arrays, x)[-1]
    for node in range(4):
        constant = float(significance.values[2].midpoint[node])
        error = abs(forward(arrays, x, {(2, node): constant})[-1] - y).max()
        assert 0.05 * significance.hidden[1][node] < error <= significance.hidden[1][node] / 2


def test_tightness_compares_widths_magnitudes_and_ranks():
    values = [box([0.0], [1.0]), box([0.0, 0.0, 0.0], [2.0, 3.0, 8.0]), box(0.0, 6.0)]
    adjoints = [box([0.0], [1.0]), box([-1.0, 0.0, 0.0], [0.0, 2.0, 1.0]), box(1.0, 1.0)]
    inner = [box([0.0], [0.0]), box([0.0, 0.0, 1.0], [1.0, 2.0, 3.0]), box(0.0, 2.0)]
    slopes = [box([0.0], [0.0]), box([-0.25, 0.5, 0.0], [0.5, 1.0, 0.5]), box(1.0, 1.0)]
    outer, reached = Significance(values, adjoints, "intervals"), Significance(inner, slopes, "inside")
    hidden, output = tightness(outer, reached)
    for exchanged in ((reached, outer), (outer, Significance(inner, slopes))):
        with pytest.raises(ValueError, match=r"must be found by .*, got one found by"):
            tightness(*exchanged)
    assert hidden["layer"] == "1" and output["layer"] == "output"
    assert hidden["value_ratio_median"] == pytest.approx(2) and hidden["value_ratio_max"] == pytest.approx(4)
    assert hidden["adjoint_ratio_median"] == pytest.approx(2)
    assert hidden["rank_correlation"] == pytest.approx(0.5)  # enclosed 2, 6, 8; reached 0.5, 2, 1
    assert output["value_ratio_max"] == pytest.approx(3) and np.isnan(output["rank_correlation"])


def test_the_first_layer_is_exact_where_corners_are_sampled():
    model = random_surrogate(activation="tanh")
    first = tightness(analyse(model, box(LOWER, UPPER)), inside(model, box(LOWER, UPPER), samples=2))[0]
    assert 1 - 1e-12 < first["value_ratio_median"] <= first["value_ratio_max"] < 1 + 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_inside_is_inside_and_outside_outside(method):
    reached = inside(MODEL, box(LOWER, UPPER), samples=64)
    assert_within(reached, analyse(MODEL, box(LOWER, UPPER), method=method))


def test_the_local_search_finds_what_samples_miss():
    peak = np.array([0.31, 0.62])

    def f(x):
        return jnp.stack([jnp.exp(-200 * jnp.sum((x - peak) ** 2)), x[0]])

    unit = box([0.0, 0.0], [1.0, 1.0])
    few, searched = (extremes(f, unit, samples=32, rounds=rounds) for rounds in (0, 400))
    assert few.upper[0] < 0.9 < 0.999 < searched.upper[0] <= 1
    assert searched.lower[1] == 0 and searched.upper[1] == 1  # corners


def test_other_axes_turn_the_box():
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    t = box(turn.T @ CENTER - 0.05, turn.T @ CENTER + 0.05)
    x = (t.lower + np.random.default_rng(3).uniform(size=(500, 3)) * 0.1) @ turn.T
    model = random_surrogate(widths=(4,))
    points = jax.jit(jax.vmap(lambda x: values_and_adjoints(model, x)))(x)
    for method in ("intervals", "zonotopes"):
        found = analyse(model, t, method=method, axes=turn)
        assert_encloses(found, points)
    # the smallest box around it in the old axes is larger, so its analysis is wider
    hull = np.abs(turn).sum(axis=1) * 0.05
    around = analyse(model, box(CENTER - hull, CENTER + hull), method="zonotopes")
    assert sum(map(np.sum, around.hidden)) > sum(map(np.sum, found.hidden))
    with pytest.raises(ValueError, match=r"axes must have shape \(3, n\)"):
        nodes_along(MODEL, np.eye(2))


def test_a_larger_box_is_more_significant(significance):
    larger = analyse(MODEL, box(LOWER - 0.1, UPPER + 0.1))
    for small, large in zip(significance.by_layer[:-1], larger.by_layer[:-1], strict=True):
        assert (large > small).all()


def test_a_node_that_is_constant_or_has_no_influence_has_no_significance():
    arrays = MODEL.arrays()
    kernel_0, kernel_1 = arrays["kernel_0"].copy(), arrays["kernel_1"].copy()
    kernel_0[:, 1] = 0  # node 1 is constant
    kernel_1[3] = 0  # node 3 has no influence
    first, second = analyse(changed(kernel_0=kernel_0, kernel_1=kernel_1), box(LOWER, UPPER)).hidden
    assert max(first[1], first[3]) < 1e-13
    assert min(*np.delete(first, [1, 3]), *second) > 1e-4


def test_it_follows_a_permutation_of_the_nodes(significance):
    arrays, order = MODEL.arrays(), np.array([3, 0, 2, 1])
    permuted = changed(
        kernel_0=arrays["kernel_0"][:, order], bias_0=arrays["bias_0"][order], kernel_1=arrays["kernel_1"][order]
    )
    result = analyse(permuted, box(LOWER, UPPER))
    np.testing.assert_allclose(result.hidden[0], significance.hidden[0][order], rtol=1e-11)
    np.testing.assert_allclose(result.hidden[1], significance.hidden[1], rtol=1e-11)


def test_the_box_decides_the_dtype(significance):
    result = analyse(MODEL, box(LOWER.astype(np.float32), UPPER.astype(np.float32)))
    for analysis, dtype in ((result, np.float32), (significance, np.float64)):
        assert {e.dtype for e in [*ranges(analysis), *analysis.by_layer]} == {np.dtype(dtype)}
    for found, expected in zip(result.by_layer, significance.by_layer, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("activation", ["silu", "tanh"])
def test_a_surrogate_that_is_not_finite_is_refused(value, activation):
    arrays = random_surrogate(widths=(4, 4), activation=activation).arrays()
    arrays["bias_0"] = np.where(np.arange(4) == 1, value, arrays["bias_0"])
    for method in METHODS:
        with pytest.raises(ValueError, match=rf"got bias_0\[1\] = {value}"):
            analyse(Surrogate.from_arrays(arrays), box(LOWER, UPPER), method=method)


def test_a_factor_of_zero_makes_the_significance_zero_however_wide_the_other_is():
    whole = Interval(jnp.array([-jnp.inf]), jnp.array([jnp.inf]))
    assert Significance([whole, box([1.0], [1.0])], [box([0.0], [0.0]), whole]).by_layer == [0, 0]


TWO_OUTPUTS = Surrogate(3, [4], n_outputs=2, rngs=nnx.Rngs(0))
OF_THREE = r"must have shape \(3,\), one interval per input, got"


@pytest.mark.parametrize("model, inputs, method, message", [
    (MODEL, box(LOWER, UPPER), "magic", "unknown method 'magic', expected one of"),
    (MODEL, LOWER, "intervals", r"made by box\(lower, upper\), got ndarray"),
    *((MODEL, box(np.zeros(shape), np.ones(shape)), "intervals", OF_THREE) for shape in [(2,), (1, 3), ()]),
    (MODEL, Interval(jnp.full(3, 2.0), jnp.full(3, 1.0)), "intervals", "lower <= upper"),
    (MODEL, Interval(jnp.zeros(3), jnp.full(3, jnp.inf)), "intervals", "finite bounds, got inf"),
    (TWO_OUTPUTS, box(LOWER, UPPER), "intervals", "for one output, got a surrogate with 2"),
])  # fmt: skip
def test_what_cannot_be_analysed_is_refused(model, inputs, method, message):
    with pytest.raises(ValueError, match=message):
        analyse(model, inputs, method=method)
