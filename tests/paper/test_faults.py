"""A few of the accidents that `make faults` tries many times: nothing is lost, nothing runs on, one line tells."""

import ast
import errno
import json
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import faults
import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure
from stubs import command, write_notebook

from sobolev_utils.paper.artifacts import save
from sobolev_utils.paper.outputs import save_figure
from sobolev_utils.paper.reproduce import NOTEBOOKS, main

ROOT = Path(__file__).parents[2]
TOLD = {
    "cut": "is truncated or altered",
    "flip": "is truncated or altered",
    "kill": "",
    "hang": "import time; time.sleep(600)`: the cell did not end within 2 s; every file is whole",
    "fills": "No space left on device",
}


def needs(wrapper):
    if not faults.permitted(wrapper):
        pytest.skip(f"{shlex.join(wrapper)} is not permitted here")


@pytest.mark.parametrize("name", TOLD)
def test_nothing_is_lost_nothing_runs_on_and_one_line_tells(name):
    around = faults.WITH_MOUNTS if name in faults.MOUNTS else []
    if around:
        needs(around)
    inside = [*around, sys.executable, faults.__file__, "--inside", name, "1"]
    run = subprocess.run(inside, capture_output=True, text=True, check=True, timeout=300)
    outcome = json.loads(run.stdout)
    assert (outcome["lost"], outcome["orphans"], outcome["unsaid"]) == (0, 0, 0), outcome
    assert TOLD[name] in outcome["told"] and "\n" not in outcome["told"]
    assert outcome["seconds"] < faults.SECONDS and outcome["exit_code"] != "0"


def test_only_what_still_runs_is_struck_and_a_bad_end_is_a_loss():
    def strike(code):
        def start():
            return subprocess.Popen(["sh", "-c", f"sleep 0.2; exit {code}"], stderr=subprocess.PIPE, text=True)

        outcome = faults.Outcome("")
        faults.strike(outcome, 1, 1, start, faults.kill_all, list)
        return outcome

    well, badly = strike(0), strike(1)
    assert (well.tries, well.exit_code, well.lost) == (1, "-9", 0)
    assert (badly.tries, badly.exit_code) == (1, "-9") and badly.lost > 0


def test_a_file_cut_anywhere_is_not_whole(tmp_path):
    made = [
        save(tmp_path, "problem", {"x": np.arange(3)}, parameters={}),
        save_figure(tmp_path, "a", Figure(figsize=(0.2, 0.2))),
        write_notebook(tmp_path, "01_a"),
    ]
    for path in made:
        data = path.read_bytes()
        assert faults.whole(path)
        for length in [*range(0, len(data) - 1, 37), len(data.rstrip()) - 1]:
            path.write_bytes(data[:length])
            assert not faults.whole(path)


def test_a_reproduction_needs_no_network(tmp_path):
    needs(faults.WITHOUT_NETWORK)
    ask = "import socket; print(socket.socket().connect_ex(('127.0.0.1', 9)))"
    write_notebook(tmp_path, "01_a", "import sobolev_utils.paper.figures, sobolev_utils.learning.training", ask)
    run = [*faults.WITHOUT_NETWORK, *command(tmp_path, tmp_path / "results")]
    subprocess.run(run, check=True, capture_output=True)
    copy = nbformat.read(tmp_path / "results" / "notebooks" / "01_a.ipynb", as_version=4)
    assert copy.cells[-1].outputs[0].text == f"{errno.ENETUNREACH}\n"  # not even this machine's own


SOURCES = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "sobolev_utils").rglob("*.py")} | {
    path.name: "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    for path in NOTEBOOKS.glob("*.ipynb")
}
UNSAFE = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
NETWORK = {"http", "requests", "socket", "ssl", "urllib", "urllib3", "ftplib", "smtplib", "httpx", "aiohttp"}


def unsafe(source):
    """What in a program could run an input or ask the network, a line each."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names) | ast.ImportFrom(names=names):
                modules = {getattr(node, "module", None) or name.name for name in names} - {"urllib.parse"}
                yield from sorted({module.partition(".")[0] for module in modules} & (UNSAFE | NETWORK))
            case ast.Call(ast.Name("eval" | "exec" | "compile" as name)):
                yield name
            case ast.Call(ast.Attribute(attr="read_pickle" | "to_pickle" as name)):
                yield name
            case ast.Call(ast.Attribute(ast.Name("np" | "numpy"), "load"), keywords=words):
                if not any(word.arg == "allow_pickle" and word.value.value is False for word in words):
                    yield "numpy.load"
            case ast.keyword("allow_pickle", ast.Constant(True)):
                yield "allow_pickle"


@pytest.mark.parametrize("name", SOURCES)
def test_no_source_unpickles_evaluates_or_asks_the_network(name):
    assert list(unsafe(SOURCES[name])) == []


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from urllib.request import urlopen", "eval(x)", "np.load(f)", "pd.read_pickle(f)",
     "np.load(f, allow_pickle=True)", "np.save(f, a, allow_pickle=True)", "import http.client as c"],
)  # fmt: skip
def test_what_is_unsafe_is_found(source):
    assert list(unsafe(source))


def test_an_expression_on_the_command_line_is_not_evaluated(tmp_path, capfd):
    write_notebook(tmp_path, "01_a", "1")
    arguments = ["-p", "seed", "__import__('os').getpid()", "--results", str(tmp_path / "results")]
    assert main(arguments, notebooks=tmp_path) == 1
    assert "seed = \"__import__('os').getpid()\" is not admissible, expected an int" in capfd.readouterr().err


def test_lab_listens_on_this_machine_alone_and_asks_for_a_token(tmp_path):
    """The command of `make lab`, in a folder of its own and without a browser."""
    recipe = re.search(r"^lab: .*\n\t@\$\(PY\) (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE).group(1)
    (tmp_path / "notebooks").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start = [sys.executable, *shlex.split(recipe), "--no-browser", "--allow-root", f"--port={port}"]
    with subprocess.Popen(start, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as lab:
        try:
            told = next(line for line in lab.stderr if f"http://127.0.0.1:{port}/" in line)
            token = re.search(r"\?token=(\w{48,})", told).group(1)
            while not (places := listening(port)):
                time.sleep(0.1)
            assert places == {"0100007F"}
            straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            contents = f"http://127.0.0.1:{port}/api/contents"
            with pytest.raises(HTTPError, match="403"):
                straight.open(contents)
            with straight.open(f"{contents}?token={token}") as answer:
                assert answer.status == 200
        finally:
            lab.kill()


def listening(port):
    """The addresses, in hexadecimal digits, at which this machine listens at a port, as Linux lists them."""
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]
    ]
    places = [place.split(":") for _, place, _, state, *_ in lines if state == "0A"]
    return {address for address, number in places if int(number, 16) == port}
