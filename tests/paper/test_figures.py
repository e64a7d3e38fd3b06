"""The lines of a figure are the numbers that it was given."""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from flax import nnx

from sobolev_utils.enclosures.intervals import Interval
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.paper import figures, node_figures
from sobolev_utils.paper.case_study import BUDGETS, Truth
from sobolev_utils.paper.stages import PUBLISHED, QUANTITIES, STAGES, Trained
from sobolev_utils.pruning.significance import Significance


@pytest.fixture(autouse=True)
def own_style():
    with plt.rc_context():
        figures.use_style()
        yield
        plt.close("all")


def lines(axis):
    return [np.asarray(line.get_xydata()) for line in axis.get_lines()]


def test_derivatives_show_the_surrogate_over_the_sorted_truth():
    model = Surrogate(2, [3], rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(20, 2)))
    test = Truth(x, x[:, 0], x, x[:, 1])
    underlying = np.asarray(x.sum(axis=1))
    trained = dict.fromkeys(BUDGETS, Trained(model, np.ones(2), np.array([0.9, 0.8, 0.7])))
    figure = figures.derivatives(trained, test, underlying, "name")
    guesses = (model(x), model.delta(x).sum(axis=1), model.gamma(x))
    for axis, guess, quantity, r2 in zip(figure.axes, guesses, QUANTITIES, (0.9, 0.8, 0.7), strict=False):
        points, truth = lines(axis)
        np.testing.assert_allclose(points, np.column_stack([underlying, guess]))
        assert (np.diff(truth[:, 0]) > 0).all()
        assert axis.get_title() == f"{quantity}: 1 − R² = {1 - r2:.1e}"
    np.testing.assert_allclose(np.sort(lines(figure.axes[1])[1][:, 1]), np.sort(underlying))
    assert len(figure.axes) == 3 * len(BUDGETS)


def test_loss_curves_are_the_histories():
    histories = {"a": dict.fromkeys(BUDGETS, np.array([3.0, 2.0, 1.0])), "b": {BUDGETS[0]: np.array([5.0, 4.0])}}
    figure = figures.loss_curves(histories)
    assert [axis.get_title() for axis in figure.axes] == ["a", "b"]
    np.testing.assert_array_equal(lines(figure.axes[0])[1], [[1, 3], [2, 2], [3, 1]])
    np.testing.assert_array_equal(lines(figure.axes[1])[0], [[1, 5], [2, 4]])


def analysis(*widths):
    """One hidden layer between an input and an output, with values of these widths and adjoints of 1 and -3."""
    hidden = Interval(jnp.zeros(len(widths)), jnp.asarray(widths))
    one = Interval(jnp.zeros(()), jnp.ones(()))
    slopes = Interval(jnp.full(len(widths), -3.0), jnp.ones(len(widths)))
    return Significance([Interval(jnp.zeros(1), jnp.ones(1)), hidden, one], [one, slopes, one])


def test_widths_by_layer_show_medians():
    figure = node_figures.widths_by_layer({"a": analysis(1.0, 2.0, 4.0), "b": analysis(1.0, 1.0, 1.0)})
    values, adjoints = figure.axes
    assert [c.lines[0].get_ydata()[0] for c in values.containers] == pytest.approx([2, 1], rel=1e-6)
    assert [c.lines[0].get_ydata()[0] for c in adjoints.containers] == pytest.approx([3, 3], rel=1e-6)
    assert [tick.get_text() for tick in values.get_xticklabels()] == ["1", "output"]


def test_significance_maps_stand_in_the_order_of_the_last():
    figure = node_figures.significance_maps({"outer": analysis(4.0, 2.0, 1.0), "inner": analysis(1.0, 3.0, 2.0)})
    outer, inner = (axis.images[0].get_array()[0] for axis in figure.axes[:2])
    np.testing.assert_allclose(inner, [1, 2 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(outer, [0.5, 0.25, 1], rtol=1e-6)


def test_changes_are_drawn_by_step():
    figure = node_figures.changes({"bound": [3.0, 2.0], "found": [1.0, 0.5]}, ["one", "two"])
    assert [list(line.get_ydata()) for line in figure.axes[0].lines[:2]] == [[3, 2], [1, 0.5]]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["one", "two"]


def test_significance_falls_from_one_in_each_layer():
    figure = node_figures.significance_by_rank([np.array([1.0, 4.0, 2.0]), np.array([3.0, 1.0])], [np.arange(2)] * 2)
    first, second, cut = lines(figure.axes[0])
    np.testing.assert_array_equal(first, [[1, 1], [2, 0.5], [3, 0.25]])
    np.testing.assert_allclose(second, [[1, 1], [2, 1 / 3]])
    assert (cut[:, 0] == 2.5).all()


def test_dense_and_sparse_spend_the_same_number_of_weights():
    kernels = list(np.random.default_rng(0).normal(size=(2, 6, 6)))
    figure = node_figures.dense_and_sparse(kernels, [np.array([0, 1]), np.array([2, 5]), np.array([3, 4])])
    dense, sparse = figure.axes
    assert "8 weights, 6 nodes" in dense.get_title()
    whole, chosen = (np.reshape(axis.collections[0].get_segments(), (2, 4, 2, 2)) for axis in (dense, sparse))
    np.testing.assert_array_equal(whole[..., 0], chosen[..., 0])  # the layers
    for nodes, kernel in zip(chosen[..., 1], kernels, strict=True):
        largest = np.argsort(-np.abs(kernel), axis=None)[:4]
        np.testing.assert_array_equal(nodes, np.transpose(np.unravel_index(largest, (6, 6))))


def test_trade_off_draws_a_line_for_each_way_and_names_the_widths_of_the_last():
    table = pd.DataFrame({"way": ["equal"] * 2 + ["smallest"], "widths": ["2 2", "3 3", "1 2"]})
    table = table.assign(parameters=[20, 30, 10], values=[0.1, 0.01, 0.2], derivatives=[0.3, 0.02, 0.4])
    figure = node_figures.trade_off(table)
    for axis, quantity in zip(figure.axes, ("values", "derivatives"), strict=True):
        for line, (_, rows) in zip(lines(axis), table.groupby("way", sort=False), strict=True):
            np.testing.assert_array_equal(line, rows[["parameters", quantity]])
        assert [text.get_text() for text in axis.texts] == ["1 2"]


def runs(of, **levels):
    """A table of all combinations of the levels, by column."""
    table = pd.MultiIndex.from_product(levels.values(), names=levels).to_frame(index=False)
    table.attrs["of"] = of
    return table


def seeds():
    table = runs("7 assets", budget=BUDGETS, stage=STAGES, quantity=QUANTITIES, seed=range(3))
    return table.assign(r2=0.9 + table.seed / 100)


def test_seed_spread_shows_every_seed_and_the_published_run():
    figure = figures.seed_spread(seeds(), PUBLISHED)
    assert [axis.get_title() for axis in figure.axes] == list(QUANTITIES)
    for index, axis in enumerate(figure.axes):
        *ours, published = lines(axis)
        assert len(ours) == len(BUDGETS)
        for points in ours:
            np.testing.assert_allclose(points[:, 1], [0.1, 0.09, 0.08] * len(STAGES))
        np.testing.assert_array_equal(published[:, 1], [1 - scores[index] for scores in PUBLISHED.values()])


def test_beyond_shows_the_mean_of_the_seeds_with_a_bar_to_the_worst():
    study = runs("5 assets", experiment=["reference", "lm_40"], quantity=QUANTITIES, seed=range(2))
    study = study.assign(one_minus_r2=1e-3 * (1 + study.seed), parameters=40)
    figure = figures.beyond(study, seeds(), PUBLISHED)
    for index, axis in enumerate(figure.axes):
        published = [line.get_xydata() for line in axis.lines[: len(PUBLISHED)]]
        spans = {"oversized": [83_713] * 2}
        for stage, line in zip(PUBLISHED, published, strict=True):
            expected = [[size, 1 - PUBLISHED[stage][index]] for size in spans.get(stage, [40, 433])]
            np.testing.assert_array_equal(line, expected)
        shown = {bar.get_label(): bar.lines for bar in axis.containers}
        assert list(shown) == [f"ours: {name}" for name in (*PUBLISHED, "preserved", "lm_40")]
        for name, size, mean, worst in (("pruned", 433, 0.09, 0.1), ("lm_40", 40, 1.5e-3, 2e-3)):
            marker, _, (bar,) = shown[f"ours: {name}"]
            np.testing.assert_allclose(marker.get_xydata(), [[size, mean]])
            np.testing.assert_allclose(bar.get_segments(), [[[size, mean], [size, worst]]])
    assert figure.get_supxlabel() == "study of 5 assets; and of 7 assets"


def test_pruning_methods_shows_errors_over_those_of_the_oversized_network():
    networks, methods = ("a", "b_2"), ("oversized", "random", "pursuit")
    table = runs("7 assets", network=networks, method=methods, nodes=(3, 8), quantity=QUANTITIES, seed=range(5))
    table = table.drop(table.index[(table.method == "oversized") & (table.nodes == 3)])
    table = table.assign(parameters=10 * table.nodes, stage="before", loss="-")
    seed = np.array([0.01, 0.02, 0.03, 0.04, 0.05])[table.seed]
    factor = table.method.map({"oversized": 1, "random": 8, "pursuit": 2}) * np.where(table.seed == 0, 7, 1)
    table["r2"] = 1 - seed * factor.where(table.method != "oversized", 1)
    tuned = table[table.method != "oversized"].assign(stage="after", loss="plain", r2=0.5)
    whole = pd.concat([table, tuned])
    whole.attrs = table.attrs
    figure = figures.pruning_methods(whole)
    assert [axis.get_title() for axis in figure.axes] == ["a", "b 2", *[""] * 4]
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == list(QUANTITIES)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["matching pursuit", "random"]
    for axis in figure.axes:
        drawn = {line.get_label(): line.get_xydata() for line in axis.get_lines() if len(line.get_xydata())}
        np.testing.assert_allclose(drawn["matching pursuit"], [[30, 2], [80, 2]])
        np.testing.assert_allclose(drawn["random"], [[30, 8], [80, 8]])
    after = figures.pruning_methods(whole, "plain")
    np.testing.assert_allclose(after.axes[0].get_lines()[0].get_ydata(), 0.5 / 0.03)


def test_figures_of_studies_say_what_these_were_made_with():
    table = pd.DataFrame({"varied": ["inputs", "outputs"], "way": "values", "value": [7, 1], "seconds": [1e-3, 2e-3]})
    with pytest.raises(KeyError, match="of"):
        figures.step_cost(table)
    table.attrs["of"] = "3 assets, strike 1"
    assert figures.step_cost(table).get_supxlabel() == "study of 3 assets, strike 1"
    other = table.copy()
    other.attrs["of"] = "5 assets"
    figure = figures.caption(plt.figure(), table, other, table)
    assert figure.get_supxlabel() == "study of 3 assets, strike 1; and of 5 assets"
