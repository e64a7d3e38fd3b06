"""Stages come back as they were saved; the table has a row for each of their scores."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.paper.artifacts import ArtifactError, save
from sobolev_utils.paper.case_study import BUDGETS, Truth
from sobolev_utils.paper.stages import PUBLISHED, STAGES, Trained, collect_r2, evaluate, load_stage, save_stage


def trained(score):
    return Trained(Surrogate(3, [4, 5], rngs=nnx.Rngs(0)), np.array([3.0, 2.0, 1.0]), np.array([score, 0.8, 0.7]))


def save_all(folder, seed=7):
    parameters = {"oversized": {"seed": seed, "width": 4}}
    parameters["pruned"] = {"seed": seed, "oversized": parameters["oversized"]}
    parameters |= {stage: {"seed": seed, "pruned": parameters["pruned"]} for stage in STAGES[2:]}
    for number, stage in enumerate(STAGES):
        scores = dict(zip(BUDGETS, (0.9, 0.95, 0.8), strict=True))
        save_stage(folder, stage, {b: trained(s - number / 100) for b, s in scores.items()}, parameters[stage])


def test_a_stage_comes_back_as_it_was_saved(tmp_path):
    save_all(tmp_path)
    loaded, parameters = load_stage(tmp_path, "pruned", seed=7)
    x = jnp.linspace(-1, 1, 9).reshape(3, 3)
    assert parameters["seed"] == 7 and list(loaded) == list(BUDGETS)
    for budget, score in zip(BUDGETS, (0.89, 0.94, 0.79), strict=True):
        np.testing.assert_array_equal(loaded[budget].model(x), trained(0).model(x))
        np.testing.assert_array_equal(loaded[budget].history, [3, 2, 1])
        np.testing.assert_array_equal(loaded[budget].r2, [score, 0.8, 0.7])


def test_a_stage_without_a_budget_is_refused(tmp_path):
    save(tmp_path, "pruned", {"other/r2": np.ones(3)}, parameters={})
    with pytest.raises(ArtifactError, match="pruned holds no model for the budget paths_8192"):
        load_stage(tmp_path, "pruned")


def test_the_table_has_a_row_for_each_score(tmp_path):
    save_all(tmp_path)
    table = collect_r2(tmp_path, 7)
    assert list(table.columns) == ["budget", "stage", "quantity", "r2", "r2_paper", "parameters", "seed"]
    size = 3 * 4 + 4 + 4 * 5 + 5 + 5 + 1
    assert list(table.iloc[0]) == ["paths_8192", "oversized", "values", 0.9, PUBLISHED["oversized"][0], size, 7]
    last = table[table.stage == "sobolev_reference"].iloc[-1]
    assert list(last)[2:] == ["gammas", 0.7, PUBLISHED["sobolev_reference"][2], size, 7]
    assert table.r2_paper[~table.stage.isin(PUBLISHED)].isna().all()
    assert len(table) == 9 * len(STAGES) and not table.duplicated(["budget", "stage", "quantity"]).any()


def test_the_table_refuses_another_seed(tmp_path):
    save_all(tmp_path)
    with pytest.raises(ArtifactError, match="holds seed = 7, expected seed = 42: run notebooks/02_oversized_model"):
        collect_r2(tmp_path, 42)


def test_the_table_refuses_stages_that_do_not_belong_together(tmp_path):
    save_all(tmp_path)
    load_stage(tmp_path, "oversized")
    save_all(tmp_path)
    collect_r2(tmp_path, 7)
    save_stage(tmp_path, "oversized", dict.fromkeys(BUDGETS, trained(0.9)), {"seed": 7, "width": 8})
    message = "pruned.npz is outdated, made with another data/oversized.npz: run notebooks/03_iasa_pruning.ipynb"
    with pytest.raises(ArtifactError, match=re.escape(message)):
        collect_r2(tmp_path, 7)


def test_a_surrogate_scores_one_on_its_own_values_and_less_on_others():
    model = Surrogate(3, [4, 5], rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(50, 3)))
    hessians = model.hessian(x)
    own = Truth(x, model(x), model.delta(x), hessians.sum(axis=(1, 2)))
    np.testing.assert_allclose(evaluate(model, own), 1)
    shifted = own._replace(delta=own.delta + own.delta.std())
    values, deltas, gammas = evaluate(model, shifted)
    assert values == gammas == pytest.approx(1) and deltas == pytest.approx(0)
