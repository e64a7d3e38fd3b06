"""The driver stops at every kind of fault with one line, and what it leaves behind is the same every time."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import nbformat
import papermill
import pytest
from stubs import await_pids, command, is_running, write_notebook

from sobolev_utils.paper import artifacts, reproduce, schedule
from sobolev_utils.paper.execution import SAFE, ReproductionError, read_parameters, run_notebook
from sobolev_utils.paper.fingerprints import cells
from sobolev_utils.paper.reproduce import main
from sobolev_utils.paper.stages import STAGES

REPORT = """from pathlib import Path
import os
folder = Path(os.environ["SOBOLEV_RESULTS"]) / "tables"
folder.mkdir(parents=True, exist_ok=True)
written = (folder / "seen.csv").write_text(f"{Path.cwd().name},{seed!r}")
written = (folder / "timings.csv").write_text(str(os.getpid()))"""


@pytest.fixture
def notebooks(tmp_path):
    return tmp_path / "a {folder} of notebooks"


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


def test_a_full_run_leaves_copies_and_the_same_provenance_twice(notebooks, results, capfd, monkeypatch):
    monkeypatch.setenv("SOBOLEV_RESULTS", "kept")
    monkeypatch.setenv("MPLBACKEND", "agg")
    inline = "import os; assert 'inline' in os.environ['MPLBACKEND']"
    write_notebook(notebooks, "01_first", REPORT, inline, writes="`tables/seen.csv`")
    write_notebook(notebooks, "02_second", "6 * 7", parameters="", reads="`tables/seen.csv`")
    arguments = ["--results", str(results), "-p", "seed", "7"]
    assert main(arguments, notebooks=notebooks) == 0

    lines = ["01_first +runs: no record of a run", r"01_first +\.{4} [\d.]+ s", "02_second +runs: no record of a run",
             r"02_second +\. [\d.]+ s", re.escape(f"the results are in {results}")]  # fmt: skip
    assert re.fullmatch("\n".join([*lines, ""]), capfd.readouterr().out)
    assert (results / "tables" / "seen.csv").read_text() == f"{notebooks.name},7"
    executed = nbformat.read(results / "notebooks" / "02_second.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].data["text/plain"] == "42"
    kernel = int((results / "tables" / "timings.csv").read_text())
    assert not is_running(kernel)
    assert (os.environ["SOBOLEV_RESULTS"], os.environ["MPLBACKEND"]) == ("kept", "agg")

    written = (results / "provenance.json").read_bytes()
    record = json.loads(written)
    assert record["parameters"] == {"01_first": {"seed": 7}, "02_second": {}}
    assert record["versions"]["python"].startswith("3.")
    assert record["results"].keys() == {"tables/seen.csv"}
    sources = {"requirements.lock", "sobolev_utils/paper/reproduce.py", "notebooks/01_first.ipynb"}
    assert sources <= record["sources"].keys()

    assert main([*arguments, "01_first"], notebooks=notebooks) == 0
    assert (results / "provenance.json").read_bytes() == written


FAULTS = {
    "error": (["1", "# why\n1 / 0", "2"], "In [4] `# why`: ZeroDivisionError: division by zero"),
    "error of two lines": (["raise OSError('a\\nb')"], "In [3] `raise OSError('a\\nb')`: OSError: a b"),
    "killed kernel": (
        ["import os", "os.kill(os.getpid(), 9)", "2"],
        "In [4] `os.kill(os.getpid(), 9)`: DeadKernelError: Kernel died",
    ),
    "exit": (["import sys", "sys.exit(0)", "2"], "In [4] `sys.exit(0)`: SystemExit: 0"),
    "exit in the last cell": (["raise SystemExit"], "In [3] `raise SystemExit`: SystemExit"),
}


@pytest.mark.parametrize("sources, fault", FAULTS.values(), ids=FAULTS)
def test_every_fault_is_one_line_that_says_where(notebooks, results, capfd, sources, fault):
    write_notebook(notebooks, "01_first", *sources, writes="`tables/one.csv`")
    write_notebook(notebooks, "02_second", "raise SystemError('must not be reached')", reads="`tables/one.csv`")
    assert main(["--results", str(results), "-p", "seed", "7"], notebooks=notebooks) == 1
    out, err = capfd.readouterr()
    copy = results / "notebooks" / "failed" / "01_first.ipynb"
    assert (out.count("\n"), err) == (1, f"reproduce: 01_first, {fault}; {SAFE}; see {copy}\n")
    assert nbformat.read(copy, as_version=4).cells
    assert not (results / "provenance.json").exists()


def test_a_kernel_that_does_not_start_is_a_fault_too(notebooks, results, monkeypatch):
    earlier = write_notebook(results / "notebooks", "01_first", "1")

    def refuse(*_, **__):
        raise RuntimeError("no kernel\nhere")

    def fill(_, draft, **__):
        draft.touch()
        raise OSError("No space left on device")

    path = write_notebook(notebooks, "01_first", "1")
    for end, told in ((refuse, "RuntimeError: no kernel here"), (fill, "OSError: No space left on device")):
        monkeypatch.setattr(papermill, "execute_notebook", end)
        with pytest.raises(ReproductionError, match=f"^01_first did not run: {told}; every file"):
            run_notebook(path, results, {})
    assert earlier.exists()


@pytest.mark.parametrize(
    ("name", "ignored", "told"),
    [("SIGTERM", False, "interrupted"), ("SIGHUP", False, "interrupted"), ("SIGHUP", True, "went on")],
)
def test_what_ends_a_process_ends_it_as_ctrl_c_does_but_nohup_holds(name, ignored, told):
    program = f"""
import atexit, os, signal
from sobolev_utils.paper.execution import end_in_good_order
if {ignored}:
    signal.signal(signal.{name}, signal.SIG_IGN)


def main():
    try:
        os.kill(os.getpid(), signal.{name})
        print("went on")
    except KeyboardInterrupt:
        print("interrupted")
    atexit.register(os.kill, os.getpid(), signal.SIGINT)  # comes too late
    return 0


end_in_good_order(main)"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == f"{told}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "sed", "7"], "no notebook has a parameter 'sed'; there are: rate, seed, tight"),
        (["-p", "results", "x"], "the results folder is chosen with --results, not with -p results"),
        (["-p", "seed", "x"], "01_first: seed = 'x' is not admissible, expected an int"),
        (["-p", "tight", "1"], "02_second: tight = 1 is not admissible, expected a bool"),
        (["-p", "seed", "-1"], "01_first: seed = -1 is not admissible, expected a number from 0 to 4,294,967,295"),
        (["03_third"], "no notebook 03_third in {folder}; there are: 01_first, 02_second"),
    ],
)
def test_what_cannot_be_run_is_told_before_any_work(notebooks, results, capfd, arguments, message):
    write_notebook(notebooks, "01_first", "1")
    write_notebook(notebooks, "02_second", "1", parameters="rate: float = 1e-3\ntight: bool = False")
    assert main(["--results", str(results), *arguments], notebooks=notebooks) == 1
    out, err = capfd.readouterr()
    assert (out, err) == ("", f"reproduce: {message.replace('{folder}', str(notebooks))}\n")
    assert not results.exists()


def test_no_notebooks_is_a_fault(tmp_path, capfd):
    assert main(["--results", str(tmp_path)], notebooks=tmp_path) == 1
    assert "no notebook named like 01_name.ipynb" in capfd.readouterr().err


@pytest.mark.parametrize("source", ["seed: int = 6 * 7", "import os", "seed: int =", "a.b = 1", None])
def test_a_parameters_cell_of_anything_but_literals_is_a_fault(notebooks, source):
    """So is a file that is no notebook."""
    path = write_notebook(notebooks, "01_first", parameters=source)
    if source is None:
        path.write_text("{")
    with pytest.raises(ReproductionError, match=r"expected a notebook with nothing but .*Error"):
        read_parameters(path)


def test_each_notebook_gets_the_parameters_it_has(notebooks, results, monkeypatch):
    calls = {}

    def run(path, results, given, **_):
        calls[path.stem] = given
        return {}

    monkeypatch.setattr(reproduce, "run_notebook", run)
    parameters = "rate: float = 1e-3\npoints: str = 'sobol'\ntight: bool = False"
    write_notebook(notebooks, "01_first")
    write_notebook(notebooks, "02_second", parameters=parameters)
    arguments = "-p rate 1 -p points pseudo_random -p tight true -p seed 7".split()
    assert main([*arguments, "--results", str(results)], notebooks=notebooks) == 0
    assert calls == {"01_first": {"seed": 7}, "02_second": {"rate": 1.0, "points": "pseudo_random", "tight": True}}
    record = json.loads((results / "provenance.json").read_text())
    assert record["parameters"]["02_second"] == {"rate": 1.0, "points": "pseudo_random", "tight": True}


def test_a_partial_run_keeps_what_is_recorded_of_the_others(notebooks, results, monkeypatch):
    monkeypatch.setattr(reproduce, "run_notebook", lambda *_, **__: {})
    write_notebook(notebooks, "01_first")
    write_notebook(notebooks, "02_second")
    main(["--results", str(results)], notebooks=notebooks)
    main(["--results", str(results), "02_second", "-p", "seed", "7"], notebooks=notebooks)
    path = results / "provenance.json"
    assert json.loads(path.read_text())["parameters"] == {"01_first": {"seed": 42}, "02_second": {"seed": 7}}
    path.write_text("<<<<<<< a merge conflict")
    main(["--results", str(results), "02_second"], notebooks=notebooks)
    assert json.loads(path.read_text())["parameters"] == {"02_second": {"seed": 42}}


def meet(me, other):
    """A cell that leaves its kernel's number in a file, and ends when it sees that of another."""
    return f"""import os, pathlib, time
written = pathlib.Path({me!r}).write_text(str(os.getpid()))
while not (pathlib.Path({other!r}).exists() and pathlib.Path({other!r}).read_text()):
    time.sleep(0.05)"""


class TestAtOnce:
    @pytest.fixture(autouse=True)
    def two(self, monkeypatch):
        monkeypatch.setattr(schedule, "AT_ONCE", 2)

    def test_notebooks_that_do_not_need_each_other_run_together_in_the_right_place(self, notebooks, results, capfd):
        before = os.getcwd()
        for me, other in ("ab", "ba"):
            checks = [meet(me, other), "from os import environ; environ['SOBOLEV_RESULTS'], environ['MPLBACKEND']"]
            write_notebook(notebooks, f"01_{me}", *checks)
        assert main(["--results", str(results)], notebooks=notebooks) == 0
        out, err = capfd.readouterr()
        assert (sorted({line.split()[0] for line in out.splitlines()[:-1]}), err) == (["01_a", "01_b"], "")
        assert os.getcwd() == before
        for me in "ab":
            last = nbformat.read(results / "notebooks" / f"01_{me}.ipynb", as_version=4).cells[-1]
            assert str(results) in last.outputs[0].data["text/plain"]
            assert not is_running(int((notebooks / me).read_text()))

    def test_a_fault_ends_the_others(self, notebooks, results, capfd):
        write_notebook(notebooks, "01_a", meet("a", "b"), "import time; time.sleep(60)")
        write_notebook(notebooks, "02_b", meet("b", "a"), "1 / 0")
        write_notebook(notebooks, "03_c", "open('c', 'x')")
        start = time.monotonic()
        assert main(["--results", str(results)], notebooks=notebooks) == 1
        assert time.monotonic() - start < 30
        out, err = capfd.readouterr()
        assert ("..." in out, err.count("\n")) == (False, 1)
        assert err.startswith("reproduce: 02_b, In [3] `1 / 0`: ZeroDivisionError")
        assert not (notebooks / "c").exists() and not (results / "provenance.json").exists()
        assert not any(is_running(int((notebooks / me).read_text())) for me in "ab")

    def test_an_interrupt_ends_the_kernels_and_is_one_line(self, notebooks, results):
        for me in "ab":
            write_notebook(notebooks, f"01_{me}", meet(me, "never"), parameters="")
        run = command(notebooks, results, before="schedule.AT_ONCE = 2")
        with subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as driver:
            pids = await_pids(driver, notebooks / "a", notebooks / "b")
            driver.send_signal(signal.SIGINT)
            err = driver.communicate(timeout=30)[1]
        assert (driver.returncode, err) == (130, f"reproduce: interrupted; {SAFE}\n")
        assert not any(map(is_running, pids))


class TestThePaper:
    """The notebooks of the paper, as they are."""

    @pytest.fixture
    def makers(self):
        """For each notebook those that it waits for."""
        found = schedule.waits(sorted(reproduce.NOTEBOOKS.glob("*.ipynb")))
        return {path.stem: {maker.stem for maker in needed} for path, needed in found.items()}

    def test_their_heads_name_the_artefacts_that_they_make(self):
        for name, stem in artifacts.MADE_BY.items():
            assert f"data/{name}.npz" in schedule.declared(reproduce.NOTEBOOKS / f"{stem}.ipynb", "Writes")

    def test_their_heads_name_the_tables_that_they_write(self):
        for path in reproduce.NOTEBOOKS.glob("*.ipynb"):
            written = [f"tables/{name}.csv" for name in saved_tables(path.stem)]
            assert schedule.undeclared(path, written) == []
        assert set(saved_tables("07_results")) == {"r2", "r2_table", "missing_r2", "r2_spread"}

    def test_they_wait_for_all_that_they_load(self, makers):
        for stem, done in makers.items():
            assert {artifacts.MADE_BY[name] for name in loaded(stem)} <= {*done, stem}

    def test_04_and_05_run_at_once_and_nothing_too_early(self, makers, notebooks, results, monkeypatch):
        both, ended = threading.Barrier(2, timeout=30), set()

        def run(path, results, parameters, timeout):
            assert makers[path.stem] <= ended
            if "sobolev" in path.stem:
                both.wait()
            ended.add(path.stem)
            return {}

        monkeypatch.setattr(reproduce, "run_notebook", run)
        monkeypatch.setattr(schedule, "AT_ONCE", 2)
        assert main(["--results", str(results)]) == 0
        assert ended == makers.keys()


def nodes(stem):
    """The syntax tree of a notebook's code, node by node."""
    code = [source for kind, source, _ in cells(reproduce.NOTEBOOKS / f"{stem}.ipynb") if kind == "code"]
    return ast.walk(ast.parse("\n".join(code)))


def saved_tables(stem):
    for node in nodes(stem):
        match node:
            case ast.Call(ast.Attribute(attr="save_table"), [_, ast.Constant(name), *_]):
                yield name


def loaded(stem):
    """The artefacts that the code of a notebook loads; all where it loads them by anything but their name."""
    for node in nodes(stem):
        match node:
            case ast.Call(ast.Name("load_problem")):
                yield "problem"
            case ast.Call(ast.Name("load_stage") | ast.Attribute(attr="load"), [_, ast.Constant(name), *_]):
                yield name
            case ast.Call(ast.Name("load_stage" | "collect_r2") | ast.Attribute(attr="load")):
                yield from STAGES


def test_the_command_line_is_quiet_on_success(tmp_path):
    write_notebook(tmp_path, "01_first", "import warnings; warnings.warn('in the copy only')")
    imports = "import sobolev_utils.learning.surrogate, sobolev_utils.paper.case_study, sobolev_utils.paper.stages"
    python, *program = command(tmp_path, tmp_path / "results", before=imports)
    run = subprocess.run([python, "-W", "default", *program], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


class TestKeepOutputs:
    def test_puts_outputs_and_counts_into_the_notebook_and_nothing_else(self, notebooks, results):
        path = write_notebook(notebooks, "01_a", "for i in range(3):\n    print(i, end='\\r')\nprint('done', seed)")
        before = nbformat.read(path, as_version=4)
        assert main(["--keep-outputs", "--results", str(results)], notebooks=notebooks) == 0
        after = nbformat.read(path, as_version=4)
        assert after.cells[-1].outputs[0].text == "done 42\n"
        assert [cell.get("execution_count") for cell in after.cells] == [None, 1, 2]
        for cell in after.cells[1:]:
            cell.outputs, cell.execution_count = [], None
        assert after == before

    @pytest.mark.parametrize("edit", [lambda cells: cells[-1].update(source="2"), lambda cells: cells.pop()])
    def test_refuses_a_notebook_edited_while_it_ran(self, notebooks, results, capfd, monkeypatch, edit):
        path = write_notebook(notebooks, "01_a", "1")

        def run(path, results, given, **_):
            notebook = nbformat.read(write_notebook(results / "notebooks", path.stem, "1"), as_version=4)
            edit(notebook.cells)
            nbformat.write(notebook, path)
            return {}

        monkeypatch.setattr(reproduce, "run_notebook", run)
        assert main(["--keep-outputs", "--results", str(results)], notebooks=notebooks) == 1
        told = f"01_a was edited while it ran, and keeps its outputs: run it again; {SAFE}"
        assert capfd.readouterr().err == f"reproduce: {told}\n"
        assert not any(cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells)

    def test_is_for_the_default_parameters(self, capfd):
        with pytest.raises(SystemExit):
            main(["--keep-outputs", "-p", "seed", "7"])
        assert "--keep-outputs is for the default parameters" in capfd.readouterr().err
