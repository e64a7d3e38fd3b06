"""The committed results keep the project's promises, and a run of the notebooks finds them again."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import onnxruntime
import pandas as pd
import pytest

from sobolev_utils.learning.metrics import r2
from sobolev_utils.models.basket import GaussianBasket
from sobolev_utils.paper.case_study import BUDGETS
from sobolev_utils.paper.figures import METHODS
from sobolev_utils.paper.fingerprints import sha256
from sobolev_utils.paper.model_card import DTYPES, EXAMPLE, TAKEN
from sobolev_utils.paper.records import UNRECORDED
from sobolev_utils.paper.stages import PUBLISHED, QUANTITIES
from sobolev_utils.studies.cases import NETWORKS
from sobolev_utils.studies.pruning_methods import SIZES, TUNED

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "results" / "tables"
KEYS = ["budget", "stage", "quantity"]

# R^2 of values, deltas and gammas that the worst of ten seeds reaches on fresh paths. The oversized network's gammas
# are short of the aim, 0.997: two seeds of ten are below it.
FRESH_PATHS = {
    "oversized": (0.99995, 0.9998, 0.995),
    "pruned": (0.9999, 0.9995, 0.97),
    "sobolev_nn": (0.99995, 0.9998, 0.995),
    "sobolev_reference": (0.999999, 0.99999, 0.9999),
}


def read(name):
    return pd.read_csv(TABLES / f"{name}.csv")


@pytest.fixture(scope="module")
def seeds():
    return read("r2_seeds")


def by_cell(seeds, budget):
    return seeds[seeds.budget == budget].groupby(["stage", "quantity"]).r2


def test_ten_seeds_fill_every_cell(seeds):
    assert (seeds.groupby(KEYS).seed.nunique() == 10).all() and len(seeds) == 10 * 3 * 8 * 3
    assert set(seeds.budget) == set(BUDGETS)


@pytest.fixture(scope="module")
def errors(seeds):
    rows = seeds.assign(error=1 - seeds.r2)
    return rows.pivot(index=["budget", "quantity", "seed"], columns="stage", values="error")


class TestWhatTheNotebooksSay:
    """For all seeds, with the settings of the notebooks."""

    def test_each_derivative_costs_accuracy(self, errors):
        by_quantity = errors.stack().unstack("quantity")
        assert (by_quantity["values"] < by_quantity.deltas).all() and (by_quantity.deltas < by_quantity.gammas).all()

    def test_fine_tuning_brings_the_values_back(self, errors):
        ours = errors.loc[["paths_8192", "fresh_paths"]].xs("values", level="quantity")
        assert (ours.pruned < 3e-4).all()

    def test_derivatives_of_the_network_bring_back_what_it_had(self, errors):
        fixed = errors.loc["paths_8192"]
        assert (fixed.sobolev_nn < fixed.pruned / 1.5).all() and (fixed.sobolev_nn < 1.5 * fixed.oversized).all()

    def test_derivatives_of_the_reference_are_better_than_all_else(self, errors):
        ours = errors.loc[["paths_8192", "fresh_paths"]]
        others = ours[["oversized", "pruned", "sobolev_nn"]].min(axis=1)
        assert (ours.sobolev_reference < others / 10).all()

    def test_derivatives_help_under_the_published_recipe_too(self, errors):
        recipe = errors.loc["paper_recipe"]
        for stage in ("sobolev_nn", "sobolev_reference"):
            assert (recipe[stage] < recipe.pruned).all()


def test_exact_ranges_and_zonotopes_help_where_the_notebook_says_so():
    wide = read("overestimation").set_index(["network", "method"])["value, output"]
    assert wide["trained", "operations"] > 2 * wide["trained", "intervals"]
    assert wide["initialised", "intervals"] > 2 * wide["initialised", "zonotopes"]


@pytest.mark.parametrize("stage", FRESH_PATHS)
def test_the_worst_seed_on_fresh_paths(seeds, stage):
    worst = by_cell(seeds, "fresh_paths").min()[stage][list(QUANTITIES)].to_numpy()
    assert (worst >= FRESH_PATHS[stage]).all(), worst


@pytest.mark.parametrize("stage", PUBLISHED)
def test_the_mean_seed_on_the_papers_budget_is_not_below_the_published_run(seeds, stage):
    mean = by_cell(seeds, "paths_8192").mean()[stage][list(QUANTITIES)].to_numpy()
    assert (mean >= PUBLISHED[stage]).all(), mean


def test_the_table_is_the_first_of_the_seeds(seeds):
    table = read("r2").set_index(KEYS)
    first = seeds[seeds.seed == 42].set_index(KEYS)
    pd.testing.assert_series_equal(table.r2, first.r2, rtol=0, atol=1e-9)
    assert (table.parameters[table.index.get_level_values("stage") != "oversized"] <= 433).all()


@pytest.fixture(scope="module")
def iasa():
    return read("iasa").set_index(["method", "layer"])


def test_enclosures_on_sub_boxes_are_tight(iasa):
    tight = iasa.loc["subdivided"]
    assert tight.value_ratio_max["output"] <= 1.2
    assert (tight.value_ratio_median <= 1.5).all() and (tight.adjoint_ratio_median <= 2).all()
    assert (tight.rank_correlation.drop("output") >= 0.95).all()


def test_no_method_is_tighter_than_what_is_reached_nor_wider_than_the_one_before(iasa):
    ratios, medians = iasa.drop(columns="rank_correlation"), ["value_ratio_median", "adjoint_ratio_median"]
    assert (ratios >= 1 - 1e-5).all(axis=None)
    for looser, tighter in (("intervals", "zonotopes"), ("zonotopes", "subdivided")):
        pd.testing.assert_index_equal(ratios.loc[looser].index, ratios.loc[tighter].index)
        assert (ratios.loc[tighter, medians] <= 1.0001 * ratios.loc[looser, medians]).all(axis=None)


def test_no_change_that_was_found_exceeds_its_bounds():
    changes = read("changes")
    assert (changes["found"] <= changes["proven"]).all()
    by_theorem = changes.dropna()
    assert (by_theorem["found"] <= by_theorem["theorem"]).all() and len(by_theorem) == len(changes) - 2
    # of the first node of a layer both bounds are within a factor
    first = changes[changes.step.str.endswith("first node")]
    assert (first["proven"] < 3 * first["found"]).all() and (first["theorem"] < 10 * first["found"]).all()


def test_what_the_reconstruction_of_the_table_changes_is_proven_to_be_little():
    changes = read("changes")
    last = changes[changes.step == "reconstructed as in 04"].set_index("quantity")
    assert list(last.index) == ["value", "gradient"]
    assert last.proven["value"] < 3 * last.found["value"] and last.proven["gradient"] < 5 * last.found["gradient"]
    assert last.proven["value"] < 0.01 * 0.39  # of the output's range over the box


def test_every_way_to_prune_has_ten_seeds_of_every_network():
    study = read("pruning")
    counts = study.groupby(["network", "method", "nodes", "stage", "loss", "quantity"]).seed.nunique()
    assert (counts == 10).all()
    networks = study.groupby("network").method.agg(set)
    assert set(networks.index) == set(NETWORKS) and all(found == {"oversized", *METHODS} for found in networks)
    whole = study[~study.method.isin(["oversized", "scratch", "set", "rigl"]) & ~study.method.str.startswith("cond")]
    found = whole.groupby("stage").nodes.agg(set)
    assert found["before"] == set(SIZES) and found["after"] == set(TUNED)


class TestBeyond:
    """Extensions of the paper's table: the worst of ten seeds, but for means where a test has them."""

    TABLE = read("beyond").set_index(["experiment", "quantity"])

    def errors(self, experiment, column="one_minus_r2"):
        return [self.TABLE.loc[(experiment, quantity), column] for quantity in ("values", "deltas", "gammas")]

    def test_every_experiment_has_ten_seeds(self):
        assert (self.TABLE.groupby(["experiment", "quantity"]).seed.nunique() == 10).all()

    @pytest.mark.parametrize("experiment, parameters", [("lm_40", 40), ("lm_433", 433)])
    def test_the_last_digits(self, experiment, parameters):
        assert (self.TABLE.loc[experiment, "parameters"] <= parameters).all()
        for errors, bar in zip(self.errors(experiment), (1e-9, 1e-8, 1e-5), strict=True):
            assert errors.max() <= bar

    def test_from_paths_alone(self):
        """Means of ten seeds."""
        assert (self.TABLE.loc["pathwise_8192", "parameters"] <= 433).all()
        values, deltas, _ = self.errors("pathwise_8192", "rmse")
        assert values.mean() <= 4e-4 and deltas.mean() <= 6e-4
        assert self.errors("pathwise_8192")[2].mean() <= 0.002
        for few, many in zip(self.errors("pathwise_2048"), self.errors("pathwise_65536"), strict=True):
            assert many.mean() < few.mean()

    def test_second_order_against_first_at_equal_steps(self):
        second, first = self.errors("second_order"), self.errors("first_order")
        for errors, others, factor in zip(second, first, (1, 1, 5), strict=True):
            assert errors.max() <= others.max() / factor

    def test_samples_drawn_better(self):
        """Each way alone is better than none; for derivatives none is better than Sobol points with a control."""
        for one in ("labels_sobol", "labels_antithetic", "labels_control"):
            for plain, better in zip(self.errors("labels_plain"), self.errors(one), strict=True):
                assert better.mean() < plain.mean()
        ways = [name for name in self.TABLE.index.unique(0) if name.startswith("labels_")]
        assert len(ways) == 8
        for way in ways:
            for best, other in zip(self.errors("labels_sobol_control")[1:], self.errors(way)[1:], strict=True):
                assert best.mean() <= other.mean()
            assert self.errors("labels_sobol")[0].mean() <= self.errors(way)[0].mean()

    def test_from_paths_values_and_deltas_come_faster_than_a_mean_does(self):
        paths = np.array([2048, 8192, 32768, 65536])
        for quantity, power in enumerate((-0.5, -0.5, -0.45)):
            means = [self.errors(f"pathwise_{n}", "rmse")[quantity].mean() for n in paths]
            assert np.polyfit(np.log(paths), np.log(means), 1)[0] < power


def test_in_equal_time_one_cotangent_is_ahead_of_the_whole_jacobian():
    means = read("vjp_accuracy").groupby("way")[["rmse_prices", "rmse_deltas"]].mean()
    assert (means.loc["one cotangent"] < means.loc["whole Jacobian, forward"]).all()


def test_what_steps_and_the_last_digits_cost():
    """As measured by `make bench`; a Sobolev step beside a plain one, sampled ones beside whole matrices."""
    timings = read("timings").set_index("task")
    assert timings.seconds["lm_40"] <= 20 and 1 / timings.ratio["sobolev_step_against_plain"] <= 2.5
    steps = read("step_cost").pivot_table(index="value", columns="way", values="seconds")
    assert {7, 20, 50, 100} <= set(steps["second order, whole Hessian"].dropna().index)
    assert (steps["second order, one direction"] < 0.2 * steps["second order, whole Hessian"])[[7, 20, 50, 100]].all()
    cotangent = steps["one cotangent"].dropna()
    assert cotangent.max() < 2 * cotangent.min()


def test_certificates_are_tight():
    """In double precision; the small networks as far as the tolerances go, price and deltas of the oversized one."""
    table = read("certificate").set_index(["surrogate", "precision", "quantity"])
    assert (table.proven >= table.sampled).all()
    ratio = (table.proven / table.sampled).xs("float64", level="precision").unstack()
    limits = {"price": 1.2, "delta": 1.3, "gamma": 1.5}
    for surrogate in ("pruned", "preserved", "sobolev_nn", "sobolev_reference", "last_digits"):
        assert all(ratio.loc[surrogate, quantity] <= limit + 1e-9 for quantity, limit in limits.items())
    assert (ratio.loc["oversized", ["price", "delta"]] <= 1.5).all()
    assert table.proven["last_digits", "float64", "price"] <= 1e-5


def test_the_provenance_is_that_of_the_committed_results():
    """Its checksums are those of the files, and none is missing but what holds clock readings."""
    results = ROOT / "results"
    recorded = json.loads((results / "provenance.json").read_text())["results"]
    files = [path for folder in ("tables", "figures", "models") for path in (results / folder).glob("[!.]*")]
    found = {path.relative_to(results).as_posix(): sha256(path.read_bytes()) for path in files}
    others = {name for name in found.keys() | recorded.keys() if found.get(name) != recorded.get(name)}
    assert {name for name in others if Path(name).name not in UNRECORDED} == set(), "see to it by `make reproduce`"


def test_a_second_run_is_the_same_to_the_byte_and_takes_no_time_where_nothing_changed():
    """As measured by `make bench`."""
    table = read("repeatability")
    again = table[table.compared.str.startswith("again")].result
    same = again[again.str.endswith("the same")].str.extract(r"(\d+) of (\d+)")
    assert len(same) > 6 and (same[0] == same[1]).all()
    assert (again[~again.str.endswith("the same")] == "1 to 1").all()
    (idle,) = table[table.what == "a run for which nothing changed"].result
    assert float(idle.removesuffix(" s")) <= 5


def test_another_number_of_cores_changes_less_than_another_seed(seeds):
    """1 - R^2 on one core over that on all, beside the largest of ten seeds over the smallest."""
    table = read("repeatability").query("compared == 'on 1 core'").set_index("what").result
    errors = (1 - seeds.set_index(KEYS).r2).groupby(KEYS)
    spread = (errors.max() / errors.min()).groupby("stage").min()
    for stage, widest in spread[list(PUBLISHED)].items():  # of those measured by `make bench`
        least, largest = map(float, table[f"1 - R^2, {stage}"].split(" to "))
        assert 1 / widest < least <= largest < widest


def test_no_accident_lost_anything():
    """As tried by `make faults`: a hundred kills at least, each accident there is, no kernel that ran on."""
    table = read("faults").set_index("fault")
    assert (table[["lost", "orphans", "unsaid"]] == 0).all(axis=None) and (table.tries > 0).all()
    assert table.tries[table.index.str.startswith("kill -9")].sum() >= 100
    assert (table.kernels[table.index.str.startswith("kill -9")] > 0).all() and (table.seconds < 10).all()


def test_a_notebook_and_the_study_of_many_seeds_train_alike():
    """Of notebook 02's seed the study has the same network, trained on one core, or one of them is older."""
    study = read("pruning").query("network == 'decayed' and method == 'oversized' and seed == 42")
    table = read("r2").query("budget == 'paths_8192' and stage == 'oversized'")
    np.testing.assert_allclose(1 - study.r2, 1 - table.r2, rtol=0.05)


def test_the_readme_shows_the_table():
    assert (TABLES / "missing_r2.md").read_text() in (ROOT / "README.md").read_text()


class TestTakenAway:
    """The committed ONNX models, of which nothing else that is committed holds the weights."""

    MODELS = ROOT / "results" / "models"
    BASKET = GaussianBasket.random(42)

    def test_they_are_there_and_small(self):
        files = {path.name: path.stat().st_size for path in self.MODELS.glob("*.onnx")}
        assert set(files) == {f"{stage}_{budget}_{dtype}.onnx" for stage, budget in TAKEN for dtype in DTYPES}
        assert max(files.values()) < 1e6 and sum(size < 12e3 for size in files.values()) == len(files) - 2

    @pytest.mark.parametrize("stage, budget", TAKEN)
    def test_they_have_the_errors_of_the_table(self, stage, budget):
        """At the spots of the test set, as notebook 01 draws them."""
        with jax.enable_x64(False):
            uniform = jax.random.uniform(jax.random.split(jax.random.key(42), 4)[2], (4096, 7))
        lower, upper = (np.float32(bound) for bound in self.BASKET.box)
        x = lower + (upper - lower) * np.asarray(uniform)
        truth = self.BASKET.value(x), self.BASKET.delta(x), self.BASKET.gamma(x)
        expected = read("r2").set_index(KEYS).r2[budget][stage][list(QUANTITIES)]
        for dtype in DTYPES:
            session = onnxruntime.InferenceSession(self.MODELS / f"{stage}_{budget}_{dtype}.onnx")
            scores = [r2(*pair) for pair in zip(truth, session.run(None, {"spots": x.astype(dtype)}), strict=True)]
            np.testing.assert_allclose(1 - np.array(scores), 1 - expected, rtol=1e-2, atol=1e-12)

    def test_the_runtime_agrees_with_jax(self):
        """Of the worst network: all spots together, and in float64 the worst spot too."""
        errors = read("onnx_agreement").set_index(["dtype", "spots", "output"])
        assert (errors.loc["float32", "together"] <= 1e-6).all() and (errors.loc["float64"] <= 1e-12).all(axis=None)
        assert (errors.loc["float32", "worst spot"] <= 1e-5).all() and len(errors) == 12

    def test_the_readme_example_runs_where_there_is_no_jax(self):
        assert EXAMPLE in (ROOT / "README.md").read_text() and EXAMPLE in (self.MODELS / "README.md").read_text()
        absent = "import sys; sys.modules.update(dict.fromkeys(['jax', 'jaxlib', 'flax', 'sobolev_utils']))\n"
        commands = [[sys.executable, "-c", absent + code] for code in ("import jax", EXAMPLE)]
        runs = [subprocess.run(each, cwd=ROOT, capture_output=True, text=True, check=False) for each in commands]
        assert [run.returncode for run in runs] == [1, 0], runs[1].stderr
        basket, *shown = np.array(re.findall(r"(?<= )-?[0-9.]+", runs[1].stdout), float).reshape(-1, 4).T
        x = basket[:, None] * np.ones(7)
        truth = self.BASKET.value(x), self.BASKET.delta(x).sum(axis=1), self.BASKET.gamma(x)
        # the basket is shown to three digits
        np.testing.assert_allclose(shown, truth, rtol=0, atol=0.02)


def test_a_run_finds_the_committed_errors_again(seeds):
    """Rounding differs between machines and training amplifies it, as it does a change of seed: so the errors of
    the run that nbval has just made must lie within three times the range of the seeds."""
    if "SOBOLEV_RESULTS" not in os.environ:
        pytest.skip("no run of the notebooks in $SOBOLEV_RESULTS: `make test` makes one first")
    errors = 1 - pd.read_csv(Path(os.environ["SOBOLEV_RESULTS"], "tables", "r2.csv")).set_index(KEYS).r2
    spread = (1 - seeds.set_index(KEYS).r2).groupby(KEYS, sort=False)
    assert (errors <= 3 * spread.max()).all() and (errors >= spread.min() / 3).all()


def test_a_notebook_runs_alone_with_other_parameters(tmp_path):
    """Plain papermill, from another folder, narrow and short."""
    settings = {
        "01_data_generation": ["-p", "n_assets", "3", "-p", "n_samples", "512", "-p", "n_test", "64"],
        "02_oversized_model": ["-p", "seed", "7", "-p", "width", "8", "-p", "depth", "2", "-p", "epochs", "2"],
    }
    for stem, parameters in settings.items():
        notebook = ROOT / "notebooks" / f"{stem}.ipynb"
        command = [sys.executable, "-m", "papermill", "--no-progress-bar", notebook, "out.ipynb", *parameters]
        environment = os.environ | {"MPLBACKEND": "", "SOBOLEV_RESULTS": str(tmp_path)}
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert (tmp_path / "data" / "oversized.npz").is_file()


def test_a_notebook_run_too_early_names_the_one_to_run_first(tmp_path):
    command = [sys.executable, "-m", "sobolev_utils.paper.reproduce", "03_iasa_pruning", "--results", tmp_path]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "run notebooks/01_data_generation.ipynb first" in run.stderr


def test_the_readme_example_runs():
    """The first steps that a reader copies, as they stand there."""
    example, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["small"].n_parameters == 433
    assert r2(names["basket"].value(names["samples"].x), names["price"]) > 0.99
    assert r2(names["basket"].delta(names["samples"].x), names["delta"]) > 0.98
