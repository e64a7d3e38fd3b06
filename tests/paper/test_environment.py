"""A reproduction runs alike whatever the environment holds, or says in one line what keeps JAX from starting."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stubs import command, write_notebook

from sobolev_utils.paper import environment

ROOT = Path(__file__).parents[2]
SAME = f"""import os, sys, matplotlib, matplotlib.backends.registry
import sobolev_utils
assert sobolev_utils.__file__ == {str(ROOT / "sobolev_utils" / "__init__.py")!r}, sobolev_utils.__file__
assert sys.executable == {sys.executable!r} and __debug__ and sys.flags.utf8_mode
assert not matplotlib.rcParams["text.usetex"] and "inline" in os.environ["MPLBACKEND"]
assert "stray" not in globals()"""


def reproduce(folder, **variables):
    """A run of one notebook that looks at its surroundings, in a process of its own with these variables."""
    write_notebook(folder, "01_a", SAME)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    return subprocess.run(
        command(folder, folder / "results"), env=own | variables, capture_output=True, text=True, check=False
    )


def test_what_a_user_has_set_changes_nothing_for_a_notebook(tmp_path):
    """All at once, so that it takes the time of one run: each of them alone has ended a notebook."""
    home, other, far = tmp_path / "home", tmp_path / "other", tmp_path / ("far" * 40)
    startup, kernel = home / ".ipython/profile_default/startup", tmp_path / "jupyter/kernels/python3"
    for folder in (startup, other / "sobolev_utils", far, kernel):
        folder.mkdir(parents=True)
    (startup / "00.py").write_text("stray = 1")
    (other / "sobolev_utils/__init__.py").write_text("raise ImportError('another package')")
    (other / "matplotlibrc").write_text("text.usetex: True")
    (other / "start.py").write_text("stray = 2")
    (kernel / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "", "language": "python"}))
    run = reproduce(
        tmp_path / "a",
        TMPDIR=str(far),
        HOME=str(home),
        PYTHONPATH=str(other),
        PYTHONSTARTUP=str(other / "start.py"),
        PYTHONOPTIMIZE="1",
        PYTHONUTF8="0",
        LC_ALL="C",
        MATPLOTLIBRC=str(other),
        MPLBACKEND="nonsense",
        JUPYTER_PATH=str(tmp_path / "jupyter"),
    )
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert list(far.iterdir()) == []


def test_nor_does_a_home_that_is_not_there(tmp_path):
    nowhere = "/proc/nowhere"
    run = reproduce(tmp_path, HOME=nowhere, IPYTHONDIR=nowhere, JUPYTER_RUNTIME_DIR=nowhere, XDG_CACHE_HOME=nowhere)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("JAX_PLATFORMS", "cuda", "Error"),
        ("XLA_FLAGS", "--xla_no_such_flag=1", "Unknown flag in XLA_FLAGS: --xla_no_such_flag=1"),
        ("JAX_ENABLE_X64", "perhaps", "ValueError: invalid truth value 'perhaps' for environment 'JAX_ENABLE_X64'"),
    ],
)
def test_what_keeps_jax_from_starting_is_told_before_any_notebook_runs(tmp_path, name, value, told):
    if name == "JAX_PLATFORMS" and Path("/dev/nvidia0").exists():
        pytest.skip("there is such a device")
    run = reproduce(tmp_path, **{name: value})
    (line,) = run.stderr.splitlines()
    assert run.returncode == 1
    assert line.startswith("reproduce: 01_a did not run: JAX does not start: ") and told in line
    assert line.endswith(f"; correct or unset what it heeds, {name}={value}")
    assert not list((tmp_path / "results").rglob("*.ipynb"))


def test_without_a_variable_to_blame_the_installation_is(monkeypatch):
    environment.jax_fault.cache_clear()
    for name in [name for name in os.environ if name.startswith(("JAX_", "XLA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(environment, "START", "import os; os.kill(os.getpid(), 9)")
    assert environment.jax_fault() == "JAX does not start: exit code -9; make .venv anew: remove it"
    monkeypatch.setattr(environment, "START", "import time; time.sleep(60)")
    monkeypatch.setattr(environment, "PATIENCE", 0.1)
    environment.jax_fault.cache_clear()
    assert "no answer within 0.1 s" in environment.jax_fault()
    environment.jax_fault.cache_clear()


def test_where_no_folder_is_short_enough_for_sockets_it_is_said(monkeypatch):
    monkeypatch.setattr(environment, "SOCKET_PATH", 1)
    with pytest.raises(OSError, match="set TMPDIR to one of at most 1 bytes that can be written"):
        environment.socket_folder()
