"""What a kernel gets of the environment that a run was started in, and whether JAX starts there."""

import os
import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

__all__ = ["jax_fault", "kernel_environment", "socket_folder"]

START = """import sys
try:
    import jax
    jax.block_until_ready(jax.numpy.ones(2) + 1)
except Exception as error:
    sys.exit("\\n" + " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":"))"""
PATIENCE = 300  # seconds; JAX usually starts within one
SOCKET_PATH = 80  # bytes: a socket's path may have 103 on some systems, and the names below the folder take 23


def kernel_environment(scratch: Path) -> dict[str, str]:
    """The variables of this process, without the settings of a user that would change what a notebook does."""
    ours = str(Path(__file__).resolve().parents[2])
    return os.environ | {
        # this package before any other of its name
        "PYTHONPATH": os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH")])),
        "PYTHONOPTIMIZE": "",  # assertions count
        "PYTHONSTARTUP": "",
        "PYTHONUTF8": "1",
        # threads of two kernels at once would wait for each other
        "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "1"),
        "IPYTHONDIR": str(scratch / "ipython"),  # not the settings of the home folder
        "MATPLOTLIBRC": os.devnull,
        "MPLBACKEND": "",  # figures enter the notebook
    }


def socket_folder() -> tempfile.TemporaryDirectory:
    """A new folder whose path is short enough for sockets, even if $TMPDIR is too long.

    Raises OSError if there is none.
    """
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):
        if len(os.fsencode(parent)) <= SOCKET_PATH and os.access(parent, os.W_OK | os.X_OK):
            return tempfile.TemporaryDirectory(dir=parent)
    raise OSError(f"no folder for sockets: set TMPDIR to one of at most {SOCKET_PATH} bytes that can be written")


@cache
def jax_fault() -> str:
    """Why JAX does not start in the environment of this process, in one line, or "".

    Tried in a process of its own, since XLA ends a process that has a flag which it does not know.
    """
    env = kernel_environment(Path(os.devnull))
    command = [sys.executable, "-c", START]
    try:
        run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if not run.returncode:
            return ""
        fatal = re.findall(r"^F\d{4} .*?\] (.*)", run.stderr, re.MULTILINE)  # of XLA's log
        reason = [f"exit code {run.returncode}", *filter(str.strip, run.stderr.splitlines()), *fatal][-1].strip()
    except subprocess.TimeoutExpired:
        reason = f"no answer within {PATIENCE} s"
    heeded = [f"{name}={value}" for name, value in sorted(env.items()) if name.startswith(("JAX_", "XLA_"))]
    remedy = f"correct or unset what it heeds, {', '.join(heeded)}" if heeded else "make .venv anew: remove it"
    return f"JAX does not start: {reason}; {remedy}"
