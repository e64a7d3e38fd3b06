"""The comparison is fair and complete: one oversized network, equal training, no row lost, on tiny problems."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import nnx
from oracles import random_basket, random_surrogate, uniform_points

from sobolev_utils.enclosures.intervals import box
from sobolev_utils.learning.losses import plain
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.learning.training import fit
from sobolev_utils.models.least_squares_monte_carlo import LeastSquaresMonteCarlo
from sobolev_utils.models.payoffs import smooth_call
from sobolev_utils.paper.artifacts import ArtifactError
from sobolev_utils.paper.case_study import Problem, Truth, save_problem
from sobolev_utils.paper.execution import SAFE, ReproductionError
from sobolev_utils.paper.stages import QUANTITIES, evaluate
from sobolev_utils.pruning.attained import inside
from sobolev_utils.pruning.nodes import magnitude, mean_nodes, most_significant, prune
from sobolev_utils.pruning.significance import analyse
from sobolev_utils.studies import pruning_methods
from sobolev_utils.studies import run as study
from sobolev_utils.studies.pruning_methods import METHODS, Settings, compare, criteria
from sobolev_utils.studies.run import main, run_pruning

BASKET = random_basket(2)
REFERENCE = LeastSquaresMonteCarlo(BASKET, partial(smooth_call, width=0.005), "sobol", spread=1.5)
X_TEST = jnp.asarray(uniform_points(32, 2, low=0.7, high=1.3), jnp.float32)
SAMPLES = REFERENCE.sample(jax.random.key(0), 64)
PROBLEM = Problem(
    REFERENCE, SAMPLES, Truth(X_TEST, BASKET.value(X_TEST), BASKET.delta(X_TEST), BASKET.gamma(X_TEST)), {}
)
TUNING = {"epochs": 9, "batch": 32, "learning_rate": 1e-2, "weight_decay": 0.1, "optimiser": "muon"}
OVERSIZED = {"width": 8, "activation": "silu", "epochs": 5, "batch": 16, "learning_rate": 1e-3, "weight_decay": 1.0}
SETTINGS = Settings(OVERSIZED, TUNING, steps=3, brief=2, boxes=2)
SIZES = ((1, 3), (2, 2))
KEY = jax.random.fold_in(jax.random.key(7), 3)


def by_magnitude(problem, key, boxes):
    """Every criterion the cheap one."""
    return {
        name: lambda model: (magnitude(model), mean_nodes(model, problem.samples.x))
        for name in pruning_methods.CRITERIA
    }


@pytest.fixture
def cheap(monkeypatch):
    """Nothing is analysed or trained; the calls of `fit`, (widths, epochs, other settings)."""
    calls = []

    def fit(model, draw, loss, *, key, epochs, **settings):
        calls.append((model.widths, epochs, settings))
        return model, np.ones(epochs)

    monkeypatch.setattr(pruning_methods, "criteria", by_magnitude)
    monkeypatch.setattr(pruning_methods, "fit", fit)
    return calls


MODEL = random_surrogate(2, (5, 4), dtype=np.float32)
INPUTS = box(*(np.asarray(bound, np.float32) for bound in BASKET.box))


@pytest.fixture(scope="module")
def reached():
    return inside(MODEL, INPUTS, samples=2**10)


@pytest.fixture(scope="module")
def judged(reached):
    """What each criterion says of the model, where the analysis from inside is `reached`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning_methods, "inside", lambda model, inputs: reached)
        return {name: judge(MODEL) for name, judge in criteria(PROBLEM, KEY, 64).items()}


class TestCriteria:
    def test_each_score_is_what_its_name_says(self, judged, reached):
        expected = {
            "iasa_plain": analyse(MODEL, INPUTS, method="operations").hidden,
            "sampled": reached.hidden,
            "magnitude": magnitude(MODEL),
        }
        assert set(judged) == {*expected, "iasa_tight", "random"} == set(pruning_methods.CRITERIA)
        for name, layers in expected.items():
            for found, scores in zip(judged[name][0], layers, strict=True):
                np.testing.assert_allclose(found, scores, rtol=1e-5)

    def test_tight_significance_is_between_the_sampled_and_the_plain(self, judged):
        for low, tight, high in zip(
            *(judged[name][0] for name in ("sampled", "iasa_tight", "iasa_plain")), strict=True
        ):
            assert (low <= tight).all() and (tight <= high).all() and (tight < 0.9 * high).any()

    def test_constants_are_means_but_midpoints_where_enclosures_are_tight(self, judged, reached):
        means = mean_nodes(MODEL, SAMPLES.x)
        for name, (_, constants) in judged.items():
            for found, mean, values in zip(constants, means, reached.values[1:-1], strict=True):
                if name == "iasa_tight":
                    assert (abs(found - values.midpoint) < 0.1 * values.width).all()
                    assert (abs(found - mean) > 0.01 * values.width).any()
                else:
                    np.testing.assert_array_equal(found, mean)

    def test_random_nodes_differ_by_key_and_the_same_model_is_judged_once(self):
        judge = criteria(PROBLEM, KEY, 2)["random"]
        assert judge(MODEL) is judge(MODEL)
        other = criteria(PROBLEM, jax.random.key(1), 2)["random"](MODEL)
        assert not (judge(MODEL)[0][0] == other[0][0]).any()


class TestCompare:
    def test_every_method_gets_the_same_total_training(self, cheap):
        spent = {}
        cheap_before = 0
        for rows in compare(PROBLEM, 7, 2, 2, SETTINGS):
            spent[rows.method.iloc[0]] = cheap[cheap_before:]
            cheap_before = len(cheap)
        oversized = spent["iasa_plain"].pop(0)
        assert oversized == ((8, 8), 5, {"batch": 16, "learning_rate": 1e-3, "weight_decay": 1.0})
        assert list(spent) == list(METHODS)
        tuning = {name: value for name, value in TUNING.items() if name != "epochs"}
        for method, fits in spent.items():
            assert all(settings == tuning for *_, settings in fits)
            assert sum(epochs for _, epochs, _ in fits) == (5 + 9 if method == "scratch" else 9)
            widths = [width for (width, _), *_ in fits]
            assert widths == ([5, 3, 2] if "iterative" in method else [2])

    def test_rows_are_complete(self, cheap):
        table = pd.concat(compare(PROBLEM, 7, 2, 2, SETTINGS))
        assert list(table.columns) == ["method", "parameters", "seed", "stage", "quantity", "r2"]
        expected = {
            (method, stage, quantity)
            for method in METHODS
            for stage in ("before", "pruned")
            for quantity in QUANTITIES
            if (method, stage) != ("scratch", "before")
        }
        assert set(zip(table.method, table.stage, table.quantity, strict=True)) == expected
        assert len(table) == len(expected) and set(table.seed) == {7}
        assert set(table.parameters) == {2 * 2 + 2 + 2 * 2 + 2 + 2 + 1}

    def test_methods_to_skip_cost_nothing(self, cheap):
        kept = [rows.method.iloc[0] for rows in compare(PROBLEM, 7, 1, 2, SETTINGS, skip=METHODS[:-2])]
        assert kept == list(METHODS[-2:])
        cheap.clear()
        assert list(compare(PROBLEM, 7, 1, 2, SETTINGS, skip=METHODS)) == [] == cheap

    def test_one_shot_by_hand(self, monkeypatch):
        """By the keys of notebooks 02 and 03."""
        monkeypatch.setattr(pruning_methods, "METHODS", ("magnitude",))
        (rows,) = compare(PROBLEM, 7, 2, 2, SETTINGS)

        def trained(model, parameters, key):
            settings = {name: value for name, value in parameters.items() if name not in ("width", "activation")}
            return fit(model, PROBLEM.source("paths_8192"), plain, key=key, **settings)[0]

        model = Surrogate(2, [8, 8], rngs=nnx.Rngs(7)).normalise(SAMPLES.x, SAMPLES.y)
        model = trained(model, OVERSIZED, jax.random.fold_in(jax.random.key(7), 2))
        before = prune(model, most_significant(magnitude(model), 2), mean_nodes(model, SAMPLES.x))
        after = trained(before, TUNING, KEY)
        expected = [*evaluate(before, PROBLEM.test), *evaluate(after, PROBLEM.test)]
        np.testing.assert_allclose(rows.r2, expected, rtol=1e-6)
        assert list(rows.stage) == ["before"] * 3 + ["pruned"] * 3 and rows.r2.nunique() == 6


class TestRun:
    """Notebook 01 is replaced by the tiny problem; settings are those of the notebooks where none is given."""

    PARAMETERS = {"width": 4, "epochs": 3, "batch": 32, "n_assets": 2}  # noqa: RUF012

    @pytest.fixture
    def run(self, cheap, monkeypatch, tmp_path):
        made = []

        def run_notebook(path, results, parameters):
            made.append((path.stem, parameters))
            save_problem(results, REFERENCE, SAMPLES, X_TEST, parameters)

        monkeypatch.setattr(study, "run_notebook", run_notebook)

        def run(seeds=2, **given):
            return run_pruning(tmp_path, seeds, parameters=self.PARAMETERS, sizes=SIZES, brief=1, steps=2, **given)

        run.made, run.kept = made, tmp_path / "data" / "study" / "pruning" / "tables" / "pruning.csv"
        return run

    def test_the_table_has_every_seed_and_size(self, run, cheap):
        table = pd.read_csv(run())
        assert [(stem, made["seed"]) for stem, made in run.made] == [
            ("01_data_generation", seed) for seed in (42, 43)
        ]
        assert run.made[0][1].items() >= {"basket_seed": 42, "n_samples": 8192, "points": "sobol"}.items()
        rows = len(METHODS) * 6 - 3
        assert dict(table.groupby(["seed", "parameters"]).size()) == {
            (s, p): rows for s in (42, 43) for p in (13, 15)
        }
        assert not table.duplicated(["method", "parameters", "seed", "stage", "quantity"]).any()
        assert not run.kept.exists()
        assert cheap[0] == ((4,), 3, {"batch": 32, "learning_rate": 3e-3, "weight_decay": 1.0})
        assert cheap[1][2] == {"batch": 32, "learning_rate": 2e-2, "weight_decay": 0.2, "optimiser": "muon"}

    def test_an_interrupted_run_keeps_its_rows_and_can_be_resumed(self, run, monkeypatch):
        whole = run().read_bytes()
        evaluations = iter(range(30))

        def interrupted(model, test):
            if next(evaluations, None) is None:
                raise KeyboardInterrupt
            return evaluate(model, test)

        with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
            context.setattr(pruning_methods, "evaluate", interrupted)
            run()
        kept = pd.read_csv(run.kept)
        assert len(kept) == 30 // 2 * 6 - 3  # both stages of 13 methods, one of scratch, and a half that is lost
        assert run().read_bytes() == whole
        assert not run.kept.exists()

    def test_rows_of_other_code_or_parameters_are_not_added_to(self, run):
        run.kept.parent.mkdir(parents=True)
        run.kept.write_text("method,seed\n")
        made_by = run.kept.parents[1] / "made_by.json"
        for was in ({"sobolev_utils/learning/losses.py": "another"}, {"n_assets": 7}):
            made_by.write_text(json.dumps(was))
            with pytest.raises(
                ArtifactError, match=f"were made with another {next(iter(was))}: remove it, and begin"
            ):
                run()
        made_by.write_text("{")
        with pytest.raises(ArtifactError, match=r"cannot be read .*: remove it, and begin anew"):
            run()
        assert run.made == []

    def test_a_parameter_that_no_notebook_has_is_refused(self, run):
        with pytest.raises(ReproductionError, match="none of notebooks 01 to 03 has a parameter widht"):
            run_pruning(run.kept.parent, 1, parameters={"widht": 4})


class TestCommandLine:
    def test_it_asks_for_ten_seeds_and_tells_where_the_table_is(self, monkeypatch, capsys, tmp_path):
        asked = []

        def record(name):
            return lambda results, seeds: asked.append((name, results, seeds)) or results / name

        monkeypatch.setattr(study, "STUDIES", {name: record(name) for name in ("one", "other")})
        assert main(["--results", str(tmp_path)]) == 0
        assert main(["other", "--results", str(tmp_path), "--seeds", "3"]) == 0
        assert asked == [("one", tmp_path, 10), ("other", tmp_path, 10), ("other", tmp_path, 3)]
        told = capsys.readouterr().out.splitlines()
        assert told == [f"the table is {tmp_path / name}" for name in ("one", "other", "other")]

    @pytest.mark.parametrize(
        "error, code, told",
        [
            (ReproductionError("no kernel"), 1, "study: no kernel\n"),
            (KeyboardInterrupt(), 130, f"study: interrupted; {SAFE}\n"),
        ],
    )
    def test_a_fault_is_one_line(self, monkeypatch, capsys, tmp_path, error, code, told):
        def run(*_, **__):
            raise error

        monkeypatch.setattr(study, "STUDIES", {"one": run})
        assert main(["--results", str(tmp_path)]) == code
        assert capsys.readouterr().err == told

    def test_one_at_a_time(self, monkeypatch, capsys, tmp_path):
        monkeypatch.setattr(study, "STUDIES", {"one": lambda results, *_, **__: main(["--results", str(results)])})
        assert main(["--results", str(tmp_path)]) == 0
        assert f"is at work in {tmp_path}: wait for it" in capsys.readouterr().err

    def test_no_seeds_are_refused(self, capsys):
        with pytest.raises(SystemExit) as exit:
            main(["--seeds", "0"])
        assert exit.value.code == 2 and "--seeds must be positive, got 0" in capsys.readouterr().err

    def test_an_unknown_study_is_refused(self, capsys):
        with pytest.raises(SystemExit) as exit:
            main(["prunning"])
        assert exit.value.code == 2 and "no study prunning; there are: pruning, beyond" in capsys.readouterr().err
