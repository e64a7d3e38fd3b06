"""Fingerprints see what makes a result, and nothing else."""

import ast
import os
import subprocess
import sys
from importlib.metadata import requires

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from packaging.requirements import Requirement

from sobolev_utils.paper.fingerprints import CODE, cells, notebook_digest, surroundings, versions


def test_cells_are_those_of_nbformat(tmp_path):
    story = [new_markdown_cell("# Ä\nb"), new_code_cell("a = 1\nb = 2", metadata={"tags": ["parameters"]})]
    nbformat.write(new_notebook(cells=story), tmp_path / "a.ipynb")
    assert cells(tmp_path / "a.ipynb") == [("markdown", "# Ä\nb", []), ("code", "a = 1\nb = 2", ["parameters"])]


def test_outputs_never_count_and_prose_only_where_it_is_asked_for(tmp_path):
    def digests(*story):
        nbformat.write(new_notebook(cells=list(story)), tmp_path / "a.ipynb")
        return notebook_digest(tmp_path / "a.ipynb"), notebook_digest(tmp_path / "a.ipynb", code_only=True)

    prose = new_markdown_cell("prose")
    ran = new_code_cell("1", execution_count=1, outputs=[new_output("stream", text="1")])
    tagged = new_code_cell("1", metadata={"tags": ["nbval-ignore-output"]})
    whole, code = digests(prose, new_code_cell("1"))
    assert digests(prose, ran) == (whole, code)
    for others in (digests(prose, tagged), digests(new_markdown_cell("other prose"), ran)):
        assert others[0] != whole and others[1] == code
    assert digests(prose, new_code_cell("2"))[1] != code


def test_code_in_use_is_what_a_process_has_imported():
    program = """import sobolev_utils.models.payoffs
from sobolev_utils.paper.fingerprints import *
print(code_in_use())"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = "__init__ arrays models/__init__ models/payoffs paper/__init__ paper/fingerprints".split()
    files = [*(f"sobolev_utils/{module}.py" for module in modules), "sobolev_utils/paper/paper.mplstyle"]
    assert ast.literal_eval(run.stdout) == {file: CODE[file] for file in files}


def test_versions_are_of_what_the_package_requires_to_run():
    required = {Requirement(one) for one in requires("sobolev_utils")}
    names = {one.name for one in required if not one.marker}
    assert versions().keys() == {"python", *names}
    assert {"jax", "equinox", "ipykernel"} <= names and {"ruff", "pytest"}.isdisjoint(names)


def test_surroundings_tell_of_the_cores_this_process_may_use_but_versions_do_not():
    def told(cores):
        program = "from sobolev_utils.paper.fingerprints import *; print(surroundings()); print(versions())"
        pin = "" if cores is None else f"import os; os.sched_setaffinity(0, {cores}); "
        run = subprocess.run([sys.executable, "-c", pin + program], capture_output=True, text=True, check=True)
        return [ast.literal_eval(line) for line in run.stdout.splitlines()]

    (free, versions_free), (pinned, versions_pinned) = told(None), told({min(os.sched_getaffinity(0))})
    cores = "the number of usable cores"
    assert free == pinned | {cores: str(len(os.sched_getaffinity(0)))} and pinned[cores] == "1"
    assert versions_free == versions_pinned and cores not in versions_free


def test_what_jax_heeds_belongs_to_the_surroundings(monkeypatch):
    plain = surroundings()
    assert {"python", "jax", "system"} <= plain.keys()
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    assert surroundings() == plain | {"JAX_ENABLE_X64": "1"}
