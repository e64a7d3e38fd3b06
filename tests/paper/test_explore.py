"""For every position of the sliders the explorer shows the closed form and the surrogate there."""

import io
from base64 import b64decode

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from flax import nnx
from oracles import random_basket, random_surrogate
from PIL import Image
from stubs import write_notebook

from sobolev_utils.models.basket import GaussianBasket
from sobolev_utils.models.scaling import moved
from sobolev_utils.paper import figures
from sobolev_utils.paper.execution import WIDGET
from sobolev_utils.paper.explore import LEVELS, Explorer
from sobolev_utils.paper.reproduce import main

BASKET = random_basket(3)
SURROGATES = {"small": random_surrogate(seed=1), "large": random_surrogate(widths=(20, 20), seed=2)}


@pytest.fixture(scope="module")
def compiled():
    with plt.rc_context():
        figures.use_style()
        yield Explorer(BASKET, SURROGATES)


@pytest.fixture
def explorer(compiled):
    """One explorer, compiled once, with every control where it was."""
    start = {name: control.value for name, control in compiled.controls.items()}
    yield compiled
    for name, value in start.items():
        compiled.controls[name].value = value


def test_starts_at_the_contract_that_the_surrogates_know(explorer):
    model, table = SURROGATES["small"], explorer.table()
    at = np.ones((1, 3), np.float32)
    expected = [model(at)[0], model.delta(at).sum(), model.gamma(at)[0], *model.delta(at)[0]]
    np.testing.assert_allclose(table.loc["surrogate"], expected, rtol=1e-4)
    exact = [BASKET.value(at)[0], BASKET.delta(at).sum(), BASKET.gamma(at)[0], *BASKET.delta(at)[0]]
    np.testing.assert_allclose(table.loc["closed form"], exact, rtol=1e-6)
    np.testing.assert_array_equal(table.loc["error"], table.loc["surrogate"] - table.loc["closed form"])
    assert list(table.columns) == ["price", "delta", "gamma", "delta 1", "delta 2", "delta 3"]


MOVES = {"surrogate": "large", "level": 0.8, "strike": 0.9, "volatility": 0.3, "asset 2": 0.25}


@pytest.mark.parametrize("control", MOVES)
def test_every_control_moves_picture_and_numbers(explorer, control):
    picture, numbers = explorer.widget.children[1:]
    before = picture.value, numbers.value
    explorer.controls[control].value = MOVES[control]
    assert picture.value != before[0] and numbers.value != before[1]
    spots = np.ones(3) * (0.8 if control == "level" else 1) + 0.25 * (np.arange(3) == 1) * (control == "asset 2")
    np.testing.assert_allclose(explorer.spots, spots)
    there = moved(BASKET, explorer.controls["strike"].value, explorer.controls["volatility"].value)
    assert f"{there.value(spots):.3g}" in numbers.value


class Exact(nnx.Module):
    """A surrogate that made no error in training."""

    def __call__(self, x):
        return BASKET.value(x)


def test_no_contract_adds_an_error_of_its_own():
    exact = Explorer(BASKET, {"exact": Exact()}, strike=0.9, volatility=0.3, level=0.8)
    guess, truth, _ = exact.compare()
    for found, known in zip(guess, truth, strict=True):
        np.testing.assert_allclose(found, known, atol=2e-5)


def test_the_lines_are_what_was_compared_and_the_marker_is_here(explorer):
    explorer.controls["strike"].value = 1.4
    guess, truth, inside = explorer.compare()
    assert 0 < inside[1:].sum() < LEVELS.size
    sums = [[value[1:], delta[1:].sum(axis=-1), gamma[1:]] for value, delta, gamma in (guess, truth)]
    for number, (above, below) in enumerate(zip(*np.split(np.array(explorer.panels.figure.axes), 2), strict=True)):
        surrogate, outside, exact, strike, here = above.get_lines()
        np.testing.assert_array_equal(exact.get_ydata(), sums[1][number])
        np.testing.assert_array_equal(surrogate.get_ydata(), np.where(inside[1:], sums[0][number], np.nan))
        np.testing.assert_array_equal(outside.get_ydata(), np.where(inside[1:], np.nan, sums[0][number]))
        error = np.where(inside[1:], abs(sums[0][number] - sums[1][number]), np.nan)
        np.testing.assert_array_equal(below.get_lines()[0].get_ydata(), error)
        assert strike.get_xdata() == [1.4, 1.4]
        np.testing.assert_allclose(here.get_xdata(), explorer.spots @ BASKET.weights)


def test_a_note_is_shown_outside_the_box(explorer):
    numbers = explorer.widget.children[2]
    assert "outside the box" not in numbers.value
    explorer.controls["asset 1"].value = 0.3  # 1.3, of a box that ends at 1.6
    assert "outside the box" not in numbers.value
    explorer.controls["volatility"].value = 0.1  # doubles the distance to the strike
    explorer.controls["level"].value = 1.3
    assert "outside the box" in numbers.value


def test_the_redrawn_picture_is_the_figure_drawn_anew(explorer):
    explorer.controls["level"].value = 0.8
    buffer = io.BytesIO()
    explorer.panels.figure.savefig(buffer, format="png", dpi=100)
    redrawn, anew = (
        np.asarray(Image.open(io.BytesIO(data)).convert("L"), float)
        for data in (explorer.widget.children[1].value, buffer.getvalue())
    )
    assert redrawn.shape == anew.shape and redrawn.std() > 10
    assert (abs(redrawn - anew) > 60).mean() < 0.002


def test_without_a_screen_it_is_a_picture(explorer):
    bundle = explorer._repr_mimebundle_()
    assert WIDGET in bundle and Image.open(io.BytesIO(b64decode(bundle["image/png"]))).format == "PNG"


WITH_PICTURE = """from ipywidgets import Text
class Explorer:
    def _repr_mimebundle_(self, **options):
        return Text()._repr_mimebundle_() | {"image/png": "iVBORw0KGgo="}
Explorer()"""


def test_of_a_widget_in_an_executed_notebook_the_picture_is_kept(tmp_path):
    """No state enters the copy, which readers would look up in vain or far away; no view the committed notebook."""
    path = write_notebook(tmp_path, "01_widget", WITH_PICTURE)
    assert main(["--keep-outputs", "--results", str(tmp_path / "results")], notebooks=tmp_path) == 0
    copy = nbformat.read(tmp_path / "results" / "notebooks" / path.name, as_version=4)
    assert "widgets" not in copy.metadata and WIDGET in copy.cells[-1].outputs[0].data
    (kept,) = nbformat.read(path, as_version=4).cells[-1].outputs
    assert set(kept.data) == {"image/png", "text/plain"}


def test_refuses_what_no_slider_can_take():
    with pytest.raises(ValueError, match=r"no control \['spot'\], expected some of \['surrogate', 'level'"):
        Explorer(BASKET, SURROGATES, spot=1.0)
    with pytest.raises(ValueError, match=r"level = 3.0 is not within its slider, which takes 1.6"):
        Explorer(BASKET, SURROGATES, level=3.0)


def test_sliders_reach_the_baskets_own_contract_and_that_to_begin_with():
    far = GaussianBasket.random(3, 3, 0.05, strike=2.0)
    controls = Explorer(far, {"exact": Exact()}, strike=0.5, volatility=0.7).controls
    spans = {name: (controls[name].min, controls[name].max) for name in ("strike", "volatility")}
    assert spans == {"strike": (0.5, 2.0), "volatility": (pytest.approx(0.05), 0.7)}
