"""Reconstruction against networks of which it is known what can go; and the choice of nodes against all choices."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from sobolev_utils.enclosures import box
from sobolev_utils.learning import Surrogate
from sobolev_utils.pruning import (
    Layer,
    analyse,
    conditional_significance,
    inside,
    matching_pursuit,
    pivoted_qr,
    reconstruct,
    relative_change,
    smallest,
)

BOX = box(np.full(3, -1.0), np.full(3, 2.0))
X = np.random.default_rng(1).uniform(-1, 2, (200, 3))
SLIGHT = 1e-5  # what the ridge may change


def surrogate(*sizes, activation="tanh", seed=0, dtype=float):
    """A random network of these sizes, inputs and outputs included, with units of their own."""
    rng, arrays = np.random.default_rng(seed), {"activation": np.asarray(activation)}
    for i, (a, b) in enumerate(pairwise(sizes)):
        arrays |= {f"kernel_{i}": rng.normal(0, a**-0.5, (a, b)), f"bias_{i}": rng.normal(0, 0.3, b)}
    arrays |= {"x_mean": rng.normal(0.5, 0.1, sizes[0]), "x_std": rng.uniform(0.5, 2, sizes[0])}
    arrays |= {"y_mean": np.asarray(0.3), "y_std": np.asarray(1.7)}
    return Surrogate.from_arrays({k: a if k == "activation" else a.astype(dtype) for k, a in arrays.items()})


def doubled(model):
    """The same function by twice as many nodes: each is there twice, with half the outgoing weight."""
    arrays = model.arrays()
    n = len(model.widths)
    for i in range(n + 1):
        kernel, bias = arrays[f"kernel_{i}"], arrays[f"bias_{i}"]
        kernel = np.vstack([kernel, kernel]) / 2 if i > 0 else kernel
        arrays[f"kernel_{i}"] = np.hstack([kernel, kernel]) if i < n else kernel
        arrays[f"bias_{i}"] = np.hstack([bias, bias]) if i < n else bias
    return Surrogate.from_arrays(arrays)


def change(model, other, x=X):
    return max(relative_change(model, other, x))


class TestReconstruct:
    @pytest.mark.parametrize("activation", ["silu", "tanh", "softplus", "sigmoid", "relu"])
    def test_nodes_that_say_what_others_say_go_without_a_change(self, activation):
        model = surrogate(3, 6, 4, 1, activation=activation)
        small = reconstruct(doubled(model), BOX, [6, 4])
        assert small.widths == (6, 4)
        assert change(model, small) < SLIGHT

    def test_of_a_network_of_which_all_stay_the_function_is_left(self):
        model = surrogate(3, 6, 4, 1)
        assert change(model, reconstruct(model, BOX, [6, 4])) < SLIGHT

    def test_it_takes_several_outputs(self):
        model = surrogate(3, 6, 5, 4)
        small = reconstruct(doubled(model), BOX, [6, 5])
        assert small.n_outputs == 4 and change(model, small) < SLIGHT

    def test_it_takes_many_inputs(self):
        model, inputs = surrogate(40, 6, 5, 1), box(np.full(40, -1.0), np.full(40, 2.0))
        x = np.random.default_rng(2).uniform(-1, 2, (50, 40))
        assert change(model, reconstruct(doubled(model), inputs, [6, 5]), x) < SLIGHT

    def test_a_layer_that_is_linear_goes_whole(self):
        arrays = surrogate(3, 6, 8, 5, 1, activation="relu").arrays()
        arrays["bias_1"] = arrays["bias_1"] + 100  # nothing in this layer ever is negative
        model = Surrogate.from_arrays(arrays)
        small = reconstruct(model, BOX, [6, 0, 5])
        assert small.widths == (6, 5) and change(model, small) < SLIGHT

    def test_and_so_does_the_first(self):
        arrays = surrogate(3, 8, 5, 1, activation="relu").arrays()
        model = Surrogate.from_arrays(arrays | {"bias_0": arrays["bias_0"] + 100})
        small = reconstruct(model, BOX, [0, 5])
        assert small.widths == (5,) and change(model, small) < SLIGHT

    def test_nodes_that_are_dead_do_no_harm(self):
        arrays = {name: array.copy() for name, array in surrogate(3, 6, 5, 1).arrays().items()}
        arrays["kernel_1"][:, 2] = arrays["kernel_0"][:, [1, 3]] = 0
        model = Surrogate.from_arrays(arrays)
        for keep in ([6, 5], [4, 4]):
            assert change(model, reconstruct(model, BOX, keep)) < SLIGHT

    def test_the_more_derivatives_weigh_the_better_they_are_kept_and_the_worse_values(self):
        model, small = surrogate(3, 40, 1), []
        for weight in (0, 1, 10):
            network = reconstruct(
                model, BOX, 9, points=X, weight=weight, choose=lambda layer, count: np.arange(count)
            )
            small.append(relative_change(model, network, X))
        values, derivatives = zip(*small, strict=True)
        assert values[0] < values[1] < values[2] and derivatives[0] > derivatives[1] > derivatives[2]

    def test_what_a_layer_lost_the_next_one_makes_up_for(self):
        model = surrogate(3, 30, 30, 30, 1)
        small = reconstruct(model, BOX, [8, 30, 30])
        first = reconstruct(model, BOX, [8, 30, 30], choose=lambda layer, count: np.arange(count))
        assert change(model, small) < change(model, first)

    def test_in_steps(self):
        model = doubled(doubled(surrogate(3, 5, 4, 1)))
        small = reconstruct(model, BOX, [5, 4], steps=[[15, 12], 8])
        assert small.widths == (5, 4) and change(model, small) < SLIGHT

    def test_single_precision_stays_and_loses_no_more_than_its_rounding(self):
        model = surrogate(3, 6, 4, 1, dtype=np.float32)
        small = reconstruct(doubled(model), BOX, [6, 4])
        assert {a.dtype for name, a in small.arrays().items() if name != "activation"} == {np.dtype(np.float32)}
        assert change(model, small) < 1e-4

    def test_points_of_ones_own_will_do(self):
        model = surrogate(3, 6, 4, 1)
        assert change(model, reconstruct(doubled(model), BOX, [6, 4], points=X)) < SLIGHT

    @pytest.mark.parametrize(
        "options, told",
        [
            ({"keep": 7}, "layer 1 has 6 nodes and cannot keep 7"),
            ({"keep": [3, 2, 1]}, "one for each of 2 hidden layers"),
            ({"keep": 0}, "at least one hidden layer must stay"),
            ({"keep": [3, -1]}, "layer 2 must be at least 0"),
            ({"keep": 2.5}, "must be a whole number"),
            ({"points": 0}, "the number of points must be at least 1"),
            ({"points": np.zeros((0, 3))}, "points must have shape"),
            ({"points": X + 2}, "of 200 points lie outside the box"),
            ({"points": X * np.nan}, "of 200 points lie outside the box"),
            ({"weight": -1.0}, "the weight of derivatives"),
            ({"weight": np.inf}, "the weight of derivatives"),
            ({"inputs": box(np.zeros(2), np.ones(2))}, "the box must have shape"),
        ],
    )
    def test_what_makes_no_sense_is_refused_in_a_line(self, options, told):
        with pytest.raises(ValueError, match=told) as raised:
            reconstruct(surrogate(3, 6, 4, 1), **{"inputs": BOX, "keep": 2, **options})
        assert "\n" not in str(raised.value)

    def test_so_is_a_network_that_is_not_finite(self):
        arrays = surrogate(3, 6, 4, 1).arrays()
        arrays["kernel_1"] = arrays["kernel_1"] * np.nan
        with pytest.raises(ValueError, match="kernel_1 of the surrogate"):
            reconstruct(Surrogate.from_arrays(arrays), BOX, 2)


class TestChoice:
    def layer(self, seed, rows=30, n=9, m=3):
        rng = np.random.default_rng(seed)
        nodes = np.hstack([np.ones((rows, 1)), rng.normal(size=(rows, n))])
        return Layer(1, np.arange(n), nodes, rng.normal(size=(rows, m)))

    def left(self, layer, chosen):
        columns = layer.nodes[:, [0, *1 + np.asarray(chosen)]]
        return np.sum((layer.target - columns @ np.linalg.lstsq(columns, layer.target, rcond=None)[0]) ** 2)

    @pytest.mark.parametrize("seed", range(5))
    def test_what_is_made_of_some_nodes_is_traced_back_to_them(self, seed):
        layer = self.layer(seed)
        target = layer.nodes[:, [0, 2, 5, 6]] @ np.random.default_rng(seed).normal(size=(4, 3))
        assert list(matching_pursuit(Layer(1, layer.candidates, layer.nodes, target), 3)) == [1, 4, 5]

    @pytest.mark.parametrize("seed", range(5))
    def test_exchange_finds_what_no_single_exchange_betters(self, seed):
        layer = self.layer(seed)
        found = self.left(layer, chosen := matching_pursuit(layer, 3))
        neighbours = [c for c in combinations(range(9), 3) if len(set(c) & set(chosen)) == 2]
        assert found <= min(self.left(layer, c) for c in neighbours) * (1 + 1e-8)
        assert found <= self.left(layer, matching_pursuit(layer, 3, exchange=False)) * (1 + 1e-8)

    def test_a_pursuit_of_one_node_takes_the_best(self):
        layer = self.layer(7)
        best = min(range(9), key=lambda i: self.left(layer, [i]))
        assert list(matching_pursuit(layer, 1)) == [best]

    @pytest.mark.parametrize("choose", [matching_pursuit, pivoted_qr])
    def test_copies_are_taken_last(self, choose):
        layer = self.layer(3, n=5)
        copied = np.hstack([layer.nodes, layer.nodes[:, 1:]])
        chosen = choose(Layer(1, np.arange(10), copied, layer.target), 5)
        assert sorted(chosen % 5) == list(range(5))


class TestConditionalSignificance:
    def test_the_first_node_is_the_most_significant_and_the_next_is_no_copy_of_it(self):
        model, chosen = doubled(surrogate(3, 4, 1)), []

        def noted(layer, count):
            chosen.append(judge(layer, count))
            return chosen[-1]

        judge = conditional_significance(model, BOX, analyse(model, BOX, method="zonotopes"), n_slabs=8)
        for count in (1, 4):
            small = reconstruct(model, BOX, count, choose=noted)
        significance = np.asarray(analyse(model, BOX, method="zonotopes").hidden[0])
        assert np.isclose(significance[chosen[0][0]], significance.max(), rtol=0.05)
        assert sorted(chosen[1] % 4) == list(range(4)) and change(model, small) < SLIGHT

    def test_an_analysis_that_encloses_nothing_is_refused(self):
        model = surrogate(3, 4, 1)
        with pytest.raises(ValueError, match=r"the analysis .* got one found by inside"):
            conditional_significance(model, BOX, inside(model, BOX, samples=16, rounds=1))

    def test_nodes_that_are_dead_at_all_points_do_no_harm(self):
        arrays = {name: array.copy() for name, array in surrogate(3, 6, 1, activation="relu").arrays().items()}
        arrays["kernel_0"][:, 2] = arrays["x_std"]  # sum(x) - 6 + 1e-3: positive in a corner of the box alone
        arrays["bias_0"][2] = arrays["x_mean"].sum() - 6 + 1e-3
        model, x = Surrogate.from_arrays(arrays), np.minimum(X, 1)
        with np.errstate(divide="raise", invalid="raise"):
            choose = conditional_significance(model, BOX, analyse(model, BOX, method="zonotopes"), n_slabs=4)
            small = reconstruct(model, BOX, 5, points=x, choose=choose)
        assert change(model, small, x) < 0.1


class TestSmallest:
    def test_it_finds_the_network_that_was_doubled(self):
        model = surrogate(3, 3, 2, 1)
        small = smallest(doubled(model), BOX, 1e-5)
        assert small.n_parameters <= model.n_parameters and change(model, small) < 2e-5

    def test_the_smaller_the_tolerance_the_larger_the_network_and_each_is_kept(self):
        model, sizes = surrogate(3, 20, 20, 1), []
        for tolerance in (0.3, 0.03, 0.003):
            small = smallest(model, BOX, tolerance, points=X)
            assert change(model, small) <= tolerance
            sizes.append(small.n_parameters)
        assert sizes == sorted(sizes) and sizes[0] < sizes[-1] <= model.n_parameters

    def test_the_tolerance_holds_for_the_network_as_it_is_returned(self):
        model = surrogate(3, 6, 5, 1, dtype=np.float32)
        for tolerance in (1e-3, 1e-7):  # below the rounding of single precision only the network itself will do
            small = smallest(doubled(model), BOX, tolerance, points=X)
            assert change(doubled(model), small) <= tolerance

    def test_of_a_constant_network_one_node_is_enough(self):
        arrays = surrogate(3, 4, 3, 1).arrays()
        model = Surrogate.from_arrays(arrays | {"kernel_2": 0 * arrays["kernel_2"]})
        assert relative_change(model, model, X) == (0, 0)
        small = smallest(model, BOX, 1e-6)
        assert sorted(small.widths) == [1] and change(model, small) == 0

    @pytest.mark.parametrize("tolerance", [0, -1.0, np.nan, np.inf])
    def test_a_tolerance_is_positive(self, tolerance):
        with pytest.raises(ValueError, match="the tolerance must be a positive number"):
            smallest(surrogate(3, 3, 2, 1), BOX, tolerance)
