"""The surrogates to take away are all there, and the card says of them what was measured."""

import json
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from oracles import random_basket, random_surrogate, uniform_points

from sobolev_utils.models.least_squares_monte_carlo import LeastSquaresMonteCarlo
from sobolev_utils.models.payoffs import smooth_call
from sobolev_utils.paper import model_card
from sobolev_utils.paper.case_study import BUDGETS, Problem, Truth
from sobolev_utils.paper.export import to_onnx
from sobolev_utils.paper.model_card import EXAMPLE, TAKEN, save_models
from sobolev_utils.paper.stages import STAGES, Trained, evaluate

BASKET = random_basket(strike=0.9)
X = jnp.asarray(uniform_points(40, 3))
TEST = Truth(X, BASKET.value(X), BASKET.delta(X), BASKET.gamma(X))


@pytest.fixture(scope="module")
def stages():
    """Another surrogate for each stage and budget."""
    models = [random_surrogate(seed=seed) for seed in range(len(STAGES) * len(BUDGETS))]
    trained = iter([Trained(model, np.ones(1), evaluate(model, TEST)) for model in models])
    return {stage: {budget: next(trained) for budget in BUDGETS} for stage in STAGES}


@pytest.fixture(scope="module")
def problem():
    reference = LeastSquaresMonteCarlo(BASKET, partial(smooth_call, width=0.01))
    return Problem(reference, reference.sample(jax.random.key(0), 2048), TEST, {})


@pytest.fixture(scope="module")
def saved(stages, problem, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    paths = save_models(folder, problem, stages, seed=7)
    card = (folder / "models" / "README.md").read_text()
    yield paths, card
    again = {path: path.read_bytes() for path in paths.values()}
    assert save_models(folder, problem, stages, seed=7) == paths
    assert again == {path: path.read_bytes() for path in paths.values()}


def test_the_small_networks_are_taken_and_one_that_is_not():
    assert [pair for pair in TAKEN if pair[0] == "oversized"] == [("oversized", "paths_8192")]
    assert len(TAKEN) == len(set(TAKEN)) == 15


def test_each_file_is_the_surrogate_of_its_name(saved, stages):
    paths, _ = saved
    assert len(paths) == 2 * len(TAKEN)
    for (stage, budget, dtype), path in paths.items():
        assert path.name == f"{stage}_{budget}_{dtype}.onnx"
        session = onnxruntime.InferenceSession(path)
        price, *_ = session.run(None, {"spots": np.asarray(X, dtype)})
        np.testing.assert_allclose(price, stages[stage][budget].model(X), rtol=0, atol=1e-5)
        about = session.get_modelmeta().custom_metadata_map
        assert (about["stage"], about["budget"], about["seed"], about["dtype"]) == (stage, budget, "7", dtype)
        for name, expected in {"lower": BASKET.box[0], "upper": BASKET.box[1], "weights": BASKET.weights}.items():
            np.testing.assert_array_equal(json.loads(about[name]), expected)
        assert json.loads(about["strike"]) == 0.9


def rows_of(card):
    """The numbers of each network in the table of errors."""
    rows = [line.split("|")[1:-1] for line in card.splitlines() if line.startswith("| ") and "_" in line]
    return {name.strip(): [float(cell) for cell in cells] for name, *cells in rows if "`" not in name}


def test_the_card_has_a_row_of_errors_for_each_network(saved, stages):
    rows = rows_of(saved[1])
    assert list(rows) == [f"{stage}_{budget}" for stage, budget in TAKEN]
    for stage, budget in TAKEN:
        parameters, *cells = rows[f"{stage}_{budget}"]
        scores, errors, (largest, lowest) = cells[:3], cells[3:6], cells[6:]
        trained = stages[stage][budget]
        assert parameters == trained.model.n_parameters
        np.testing.assert_allclose(scores, trained.r2, rtol=0, atol=1e-9)
        spread = np.array([truth.std() for truth in TEST[1:]])
        np.testing.assert_allclose(errors, spread * np.sqrt(1 - trained.r2), rtol=0.005)
        price = trained.model(X)
        np.testing.assert_allclose([largest, lowest], [abs(price - TEST.value).max(), price.min()], rtol=0.005)


def test_the_errors_are_those_of_the_worse_file(stages, problem, tmp_path, monkeypatch):
    """Tried with files in float32 that hold another network than those in float64."""
    wrong = random_surrogate(seed=99)
    monkeypatch.setattr(
        model_card, "to_onnx", lambda model, dtype, told: to_onnx(wrong if dtype == "float32" else model, dtype, told)
    )
    save_models(tmp_path, problem, stages, seed=7)
    worse = set()
    for name, row in rows_of((tmp_path / "models" / "README.md").read_text()).items():
        for number, truth in enumerate(TEST[1:]):
            errors = {}
            for dtype in ("float32", "float64"):
                session = onnxruntime.InferenceSession(tmp_path / "models" / f"{name}_{dtype}.onnx")
                output = session.run(None, {"spots": np.asarray(X, dtype)})[number]
                errors[dtype] = np.sqrt(np.square(output - truth).mean())
            np.testing.assert_allclose(row[4 + number], max(errors.values()), rtol=0.005)
            worse.add(max(errors, key=errors.get))
    assert worse == {"float32", "float64"}


def test_certificates_go_into_the_files_and_the_card(stages, problem, tmp_path):
    bounds = {"price": [1e-3, 1e-3], "delta": [1e-2, 2e-2, 3e-2, 4e-2]}
    claim = {"bounds": bounds, "of which rounding": bounds, "assumes": "Given this and that."}
    paths = save_models(tmp_path, problem, stages, 7, {("pruned", "paths_8192", "float32"): claim})
    kept = {
        key: onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map for key, path in paths.items()
    }
    assert json.loads(kept.pop(("pruned", "paths_8192", "float32"))["certificate"]) == claim
    assert not any("certificate" in about for about in kept.values())
    card = (tmp_path / "models" / "README.md").read_text()
    assert "Given this and that." in card and re.search(
        r"pruned_paths_8192_float32 +\| 0.001 +\| 0.03 +\| 0.04", card
    )


def test_the_card_tells_the_contract_and_shows_the_example(saved):
    card = saved[1]
    assert "Strike 0.9" in card and "2,048 labels" in card and "at 40 spots" in card and "basket of 3 assets" in card
    assert ", ".join(f"{weight:.4f}" for weight in BASKET.weights) in card
    assert f"```python\n{EXAMPLE}```" in card and len(EXAMPLE.splitlines()) <= 15
