"""A notebook runs again for a reason, which is told, or is skipped; two reproductions do not meet."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from stubs import await_pids, command, is_running, write_notebook

from sobolev_utils.paper import records, reproduce
from sobolev_utils.paper.execution import ReproductionError
from sobolev_utils.paper.files import write_bytes
from sobolev_utils.paper.fingerprints import CODE, cells, sha256
from sobolev_utils.paper.reproduce import main
from sobolev_utils.paper.schedule import declared

USED = "sobolev_utils/learning/losses.py"


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def reproduced(tmp_path, results, monkeypatch, capfd):
    """A way to reproduce three notebooks in a row, by a stand-in for running them; it returns what is told of each.

    What one writes depends on the code of its cells, its parameters and what it reads; all use one module.
    """

    def run(path, results, given, *, timeout):
        read = {name: records.fingerprint(results / name) for name in declared(path, "Reads")}
        code = [source for kind, source, _ in cells(path) if kind == "code"]
        (writes,) = declared(path, "Writes")
        made = write_bytes(results / writes, json.dumps([code, read, given]).encode())
        write_bytes(results / "notebooks" / path.name, path.read_bytes())
        return {USED: CODE[USED], **read, writes: sha256(made.read_bytes())}

    folder = tmp_path / "notebooks"
    monkeypatch.setattr(reproduce, "run_notebook", run)
    write_notebook(folder, "01_a", "1", writes="`tables/a.csv`")
    write_notebook(folder, "02_b", "2", reads="`tables/a.csv`", writes="`tables/b.csv`")
    write_notebook(folder, "03_c", "3", reads="`tables/b.csv`", writes="`tables/c.csv`", parameters="")

    def call(*arguments):
        status = main([*arguments, "--results", str(results)], notebooks=folder)
        out, err = capfd.readouterr()
        assert (status, err) == (0, "")
        return {line[:4]: line[32:].removeprefix("runs: ") for line in out.splitlines()[:-1]}

    call.folder, call.results = folder, results
    assert set(call().values()) == {"no record of a run"}
    return call


SKIPPED = "skipped, nothing changed"


def edit(path, cell, source):
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[cell].source = source
    nbformat.write(notebook, path)


def test_nothing_runs_when_nothing_changed(reproduced):
    assert reproduced() == dict.fromkeys(["01_a", "02_b", "03_c"], SKIPPED)


def test_an_edit_runs_a_notebook_and_those_that_read_what_comes_out_otherwise(reproduced):
    edit(reproduced.folder / "02_b.ipynb", 2, "4")
    assert reproduced() == {"01_a": SKIPPED, "02_b": "its source changed", "03_c": "tables/b.csv changed"}
    assert set(reproduced().values()) == {SKIPPED}


def test_an_edit_that_changes_no_result_runs_one_notebook_and_outputs_are_no_edit(reproduced):
    path = reproduced.folder / "01_a.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].update(execution_count=1, outputs=[nbformat.v4.new_output("stream", text="1")])
    nbformat.write(notebook, path)
    assert set(reproduced().values()) == {SKIPPED}
    edit(path, 0, notebook.cells[0].source + " More prose.")
    assert reproduced() == {"01_a": "its source changed", "02_b": SKIPPED, "03_c": SKIPPED}


def test_another_parameter_runs_those_that_have_it_and_their_heirs(reproduced):
    told = reproduced("-p", "seed", "7")
    assert told == {"01_a": "seed = 7, was 42", "02_b": "seed = 7, was 42", "03_c": "tables/b.csv changed"}
    assert set(reproduced("-p", "seed", "7").values()) == {SKIPPED}


def test_another_version_of_the_package_runs_those_that_use_it(reproduced, monkeypatch):
    monkeypatch.setitem(CODE, "sobolev_utils/models/payoffs.py", "another")
    assert set(reproduced().values()) == {SKIPPED}
    monkeypatch.setitem(CODE, USED, "another")
    assert set(reproduced().values()) == {f"{USED} changed"}


def test_other_surroundings_run_all(reproduced, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--one")
    assert set(reproduced().values()) == {"XLA_FLAGS = --one, was None"}
    monkeypatch.delenv("XLA_FLAGS")
    assert set(reproduced().values()) == {"XLA_FLAGS = None, was --one"}


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("altered")])
@pytest.mark.parametrize("file", ["tables/b.csv", "notebooks/02_b.ipynb"])
def test_a_result_that_is_lost_or_altered_is_made_again(reproduced, results, file, damage):
    """Made again as it was, it runs no other notebook."""
    whole = (results / file).read_bytes()
    damage(results / file)
    told = reproduced()
    assert told["02_b"] == f"{file} changed" and told["01_a"] == told["03_c"] == SKIPPED
    assert (results / file).read_bytes() == whole
    assert set(reproduced().values()) == {SKIPPED}


def test_records_of_runs_that_ended_outlive_a_fault(reproduced, monkeypatch, capfd):
    """So does a kill of the process, for they are on the disk by then."""
    run = reproduce.run_notebook

    def fail(path, results, given, *, timeout):
        if path.stem == "02_b":
            raise ReproductionError("it failed")
        return run(path, results, given, timeout=timeout)

    with monkeypatch.context() as patch:
        patch.setattr(reproduce, "run_notebook", fail)
        assert main(["--force", "--results", str(reproduced.results)], notebooks=reproduced.folder) == 1
    assert capfd.readouterr().err == "reproduce: it failed\n"
    assert reproduced() == {"01_a": SKIPPED, "02_b": SKIPPED, "03_c": SKIPPED}


@pytest.mark.parametrize("record", [b"{", b"{}", b"[1]", b"\xff"])
def test_a_damaged_record_is_no_record(reproduced, results, record):
    (results / "notebooks" / "02_b.json").write_bytes(record)
    assert reproduced() == {"01_a": SKIPPED, "02_b": "no record of a run", "03_c": SKIPPED}


def test_force_runs_all(reproduced):
    assert set(reproduced("--force").values()) == {"all are to run"}


def test_without_notes_any_change_of_the_package_counts(tmp_path, results, capfd, monkeypatch):
    write_notebook(tmp_path, "01_a", "1")
    assert main(["--results", str(results)], notebooks=tmp_path) == 0
    monkeypatch.setitem(CODE, "sobolev_utils/models/payoffs.py", "another")
    assert main(["--results", str(results)], notebooks=tmp_path) == 0
    assert "runs: sobolev_utils/models/payoffs.py changed" in capfd.readouterr().out


def test_the_second_of_two_at_once_says_so_and_stops(tmp_path, results, capfd):
    write_notebook(tmp_path, "01_a", "1")
    program = (
        "import sys; from pathlib import Path; from sobolev_utils.paper.records import alone\n"
        f"with alone(Path({str(results)!r})): print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        first.stdout.readline()
        assert main(["--results", str(results)], notebooks=tmp_path) == 1
        told = f"process {first.pid} or a kernel of it is at work in {results}: wait for it, or name another folder"
        assert capfd.readouterr() == ("", f"reproduce: {told} with --results\n")
        first.kill()
    assert main(["--results", str(results)], notebooks=tmp_path) == 0


def test_the_kernels_of_a_killed_process_hold_its_folder(tmp_path, results):
    pid = tmp_path / "pid"
    stop = f"import os, pathlib, signal\npathlib.Path({str(pid)!r}).write_text(str(os.getpid()))"
    write_notebook(tmp_path, "01_a", f"{stop}\nos.kill(os.getpid(), signal.SIGSTOP)")
    with subprocess.Popen(command(tmp_path, results), stdout=subprocess.DEVNULL) as driver:
        (kernel,) = await_pids(driver, pid)
        driver.kill()
    with pytest.raises(ReproductionError, match=f"process {driver.pid} or a kernel of it is"), records.alone(results):
        pass
    os.kill(kernel, signal.SIGKILL)
    while is_running(kernel):
        time.sleep(0.05)
    with records.alone(results):
        pass


@pytest.mark.parametrize("step", ["run_notebooks", "keep_outputs", "write_provenance"])
def test_no_other_comes_between_the_steps(tmp_path, results, monkeypatch, step):
    write_notebook(tmp_path, "01_a", "1")
    busy = []

    def meet(*_, **__):
        with pytest.raises(ReproductionError), records.alone(results):
            pass
        busy.append(step)

    monkeypatch.setattr(reproduce, "run_notebook", lambda *_, **__: {})
    monkeypatch.setattr(reproduce, "keep_outputs", lambda *_: None)
    monkeypatch.setattr(reproduce, step, meet)
    assert main(["--keep-outputs", "--results", str(results)], notebooks=tmp_path) == 0
    assert busy == [step]


MAKES = """from sobolev_utils.paper import artifacts
import numpy as np
folder = artifacts.results_folder()
saved = artifacts.save(folder, "problem", {"x": np.ones(3)}, parameters={})"""
TAKES = """from sobolev_utils.paper import artifacts
folder = artifacts.results_folder()
arrays, parameters = artifacts.load(folder, "problem")"""


def test_kernels_tell_what_they_read_and_wrote(tmp_path, results):
    write_notebook(tmp_path, "01_a", MAKES, writes="`data/problem.npz`", parameters="")
    write_notebook(tmp_path, "02_b", TAKES, reads="`data/problem.npz`", parameters="")
    assert main(["--results", str(results)], notebooks=tmp_path) == 0
    one, two = (json.loads((results / "notebooks" / f"{stem}.json").read_text()) for stem in ("01_a", "02_b"))
    assert {"data/problem.npz", "notebooks/01_a.ipynb", "sobolev_utils/paper/artifacts.py"} <= one.keys()
    assert "its source" in one and "sobolev_utils/models/payoffs.py" not in two
    assert one["data/problem.npz"] == two["data/problem.npz"]


@pytest.mark.parametrize("cell", [TAKES, MAKES])
def test_what_a_head_does_not_name_is_a_fault_of_every_run(tmp_path, results, capfd, cell):
    write_notebook(tmp_path, "01_a", MAKES, writes="`data/problem.npz`", parameters="")
    write_notebook(tmp_path, "02_b", cell, parameters="")
    assert main(["01_a", "--results", str(results)], notebooks=tmp_path) == 0
    for _ in range(2):
        assert main(["02_b", "--results", str(results)], notebooks=tmp_path) == 1
        assert "02_b: its head does not name data/problem.npz" in capfd.readouterr().err
