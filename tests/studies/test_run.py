"""Studies on Dask: no row lost, none made twice, the same digits from any workers, errors in one line."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import nnx

from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.paper.artifacts import MADE_BY, ArtifactError
from sobolev_utils.paper.case_study import BUDGETS
from sobolev_utils.paper.execution import SAFE, ReproductionError
from sobolev_utils.paper.fingerprints import CODE
from sobolev_utils.paper.stages import Trained, save_stage
from sobolev_utils.studies import cases, distribute, run
from sobolev_utils.studies import tasks as rows
from sobolev_utils.studies.cases import NETWORKS
from sobolev_utils.studies.distribute import cluster, gather
from sobolev_utils.studies.run import main, run_study

TABLE = ["seed", "r2"]


@pytest.fixture(scope="module")
def client():
    with cluster(workers=2) as client:
        yield client


def product(seed):
    """A task whose last digit depends on how many threads share it."""

    def task():
        a, b = jax.random.normal(jax.random.key(seed), (2, 500, 500))
        return pd.DataFrame({"seed": seed, "r2": jnp.sin(a @ b).sum(axis=0)[:4]})

    return task


def tasks(n=4):
    return {f"seed_{seed}": product(seed) for seed in range(n)}


def test_the_same_digits_with_one_worker_or_four(tmp_path):
    frames = []
    for workers in (1, 4):
        with cluster(workers=workers) as client:
            frames.append(gather(tmp_path / str(workers), tasks(), client, {}))
    assert len(frames[0]) == 16 and list(frames[0].seed) == sorted(frames[0].seed)
    pd.testing.assert_frame_equal(*frames, check_exact=True)


def test_a_killed_worker_costs_its_task_alone(client, tmp_path):
    began, killed = tmp_path / "began", tmp_path / "killed"
    began.mkdir()

    def noted(name, task):
        def noted():
            (began / f"{name}-{len(list(began.iterdir()))}").touch()
            if name == "seed_1" and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return task()

        return noted

    whole = gather(tmp_path / "whole", tasks(), client, {})
    found = gather(tmp_path / "work", {name: noted(name, task) for name, task in tasks().items()}, client, {})
    pd.testing.assert_frame_equal(found, whole, check_exact=True)
    times = [path.name.partition("-")[0] for path in began.iterdir()]
    assert killed.exists() and times.count("seed_1") == 2 and len(times) == 5


def test_an_interrupted_study_goes_on(client, tmp_path, capsys):
    def broken():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        gather(tmp_path, tasks(3) | {"broken": broken}, client, {})
    kept = {path.stem for path in tmp_path.glob("seed_*.csv")}
    capsys.readouterr()
    found = gather(tmp_path, tasks(3), client, {})
    done = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert done == tasks(3).keys() - kept
    pd.testing.assert_frame_equal(found, gather(tmp_path / "whole", tasks(3), client, {}), check_exact=True)


@pytest.mark.parametrize("was", [{"sobolev_utils/learning/losses.py": "another"}, {"n_assets": 7}, {"jax": "0.1"}])
def test_rows_of_other_code_versions_or_parameters_are_not_added_to(client, tmp_path, was):
    (tmp_path / "made_by.json").write_text(json.dumps(was))
    with pytest.raises(ArtifactError, match=f"were made with another {next(iter(was))}: remove it, and begin"):
        gather(tmp_path, tasks(), client, {"n_assets": 5})
    (tmp_path / "made_by.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"cannot be read .*: remove it, and begin anew"):
        gather(tmp_path, tasks(), client, {})


def test_a_worker_with_other_code_is_an_error(client, tmp_path, monkeypatch):
    monkeypatch.setattr(distribute, "CODE", {**CODE, "sobolev_utils/learning/losses.py": "another"})
    with pytest.raises(RuntimeError, match=r"a worker has another sobolev_utils/learning/losses.py: start it from"):
        gather(tmp_path, tasks(1), client, {})


def test_a_seed_is_the_table_of_notebooks_01_to_06(monkeypatch):
    ran = []
    has = {stem: {"n_assets": 7} for stem in MADE_BY.values()}

    def save(path, results, parameters):
        ran.append((path.stem, parameters))
        trained = Trained(Surrogate(7, [3, 3], rngs=nnx.Rngs(0)), np.ones(5), np.full(3, parameters["seed"] / 100))
        for name in (name for name, stem in MADE_BY.items() if stem == path.stem):
            save_stage(results, name, dict.fromkeys(BUDGETS, trained), parameters)

    monkeypatch.setattr(cases, "run_notebook", save)
    table = rows.seed_rows(has, 43)
    assert ran == [(stem, {"n_assets": 7, "seed": 43}) for stem in dict.fromkeys(MADE_BY.values())]
    assert list(table.columns) == ["budget", "stage", "quantity", "seed", "r2"] and len(table) == 3 * 8 * 3
    assert (table.r2 == 0.43).all() and (table.seed == 43).all()


@pytest.fixture
def tiny(monkeypatch):
    """One study, which makes the table `r2_seeds`."""

    def rows(has, seed):
        return pd.DataFrame({"seed": [seed], "r2": [1 / seed]})

    monkeypatch.setattr(run, "STUDIES", {"tiny": ("r2_seeds", rows, [()])})


class TestRunStudy:
    def test_the_table_has_a_seed_for_each_and_nothing_else_is_left(self, tiny, client, tmp_path):
        table = pd.read_csv(run_study(tmp_path, "tiny", 2, client, {"n_assets": 12}))
        assert list(table.seed.unique()) == [42, 43] and list(table.columns) == TABLE
        assert not (tmp_path / "data" / "study" / "tiny").exists()
        made_with = json.loads((tmp_path / "tables" / "studies.json").read_text())["r2_seeds"]
        assert made_with["given"] == {"n_assets": 12} and made_with["problem"]["n_assets"] == 12

    def test_every_study_has_a_task_for_each_seed(self):
        for name in run.STUDIES:
            made = run.tasks_of(name, {}, range(42, 45))
            assert len(made) == 3 * (len(NETWORKS) if name == "pruning" else 1)
            assert {task.args[1] for task in made.values()} == {42, 43, 44}


class TestCommandLine:
    def test_on_a_cluster_by_its_address(self, tiny, client, capsys, tmp_path):
        assert main(["--scheduler", client.scheduler.address, "--results", str(tmp_path), "--seeds", "2"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("the dashboard is at http://127.0.0.1:")
        assert lines[-1] == f"the table is {tmp_path / 'tables' / 'r2_seeds.csv'}"
        assert client.submit(lambda: 7).result() == 7  # it still works

    @pytest.mark.parametrize(
        "error, code, message",
        [
            (ReproductionError("no kernel"), 1, "study: no kernel\n"),
            (KeyboardInterrupt(), 130, f"study: interrupted; {SAFE}\n"),
        ],
    )
    def test_a_fault_is_one_line(self, monkeypatch, capsys, client, tmp_path, error, code, message):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr(run, "run_study", fail)
        assert main(["--scheduler", client.scheduler.address, "--results", str(tmp_path)]) == code
        assert capsys.readouterr().err == message

    def test_one_at_a_time(self, monkeypatch, capsys, client, tmp_path):
        again = ["--scheduler", client.scheduler.address, "--results", str(tmp_path)]
        monkeypatch.setattr(run, "run_study", lambda *_: main(again))
        assert main(["seeds", *again]) == 0
        assert f"is at work in {tmp_path}: wait for it" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "given, message",
        [
            (["-p", "widht", "4"], "no notebook has a parameter 'widht'"),
            (["-p", "n_assets", "0"], "is not admissible"),
        ],
    )
    def test_parameters_are_checked_before_any_work(self, capsys, tmp_path, given, message):
        assert main([*given, "--results", str(tmp_path / "results")]) == 1
        output = capsys.readouterr()
        assert message in output.err and output.err.count("\n") == 1 and output.out == ""

    def test_a_scheduler_that_does_not_answer_is_one_line(self, monkeypatch, capsys, tmp_path):
        monkeypatch.setattr(distribute, "PATIENCE", "1s")
        assert main(["--scheduler", "tcp://127.0.0.1:9", "--results", str(tmp_path)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("study: ") and "127.0.0.1:9" in error and error.count("\n") == 1

    @pytest.mark.parametrize(
        "given, message",
        [(["--seeds", "0"], "--seeds must be positive, got 0"),
         (["prunning"], "no study prunning; there are: pruning, beyond, seeds")],
    )  # fmt: skip
    def test_what_makes_no_sense_is_refused(self, capsys, given, message):
        with pytest.raises(SystemExit) as exit:
            main(given)
        assert exit.value.code == 2 and message in capsys.readouterr().err
