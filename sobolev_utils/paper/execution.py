"""Running one notebook to its end without a screen; a `ReproductionError` tells where and why it failed.

Jupyter, which takes more than a second to import, is imported where it runs something.
"""

import ast
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn
from weakref import WeakSet

from sobolev_utils.paper.environment import jax_fault, kernel_environment, socket_folder
from sobolev_utils.paper.files import write_bytes
from sobolev_utils.paper.fingerprints import CODE, cells

__all__ = [
    "CELL_TIMEOUT",
    "SAFE",
    "ReproductionError",
    "end_in_good_order",
    "keep_outputs",
    "read_parameters",
    "run_notebook",
    "tell",
]

CELL_TIMEOUT = 900  # seconds; the slowest cell takes a twentieth of that on two cores
WIDGET = "application/vnd.jupyter.widget-view+json"
INHERITED: set[int] = set()  # file descriptors that kernels hold open, too
KERNELS: WeakSet[subprocess.Popen] = WeakSet()  # those that may be running
SAFE = "every file is whole, old or new, and the next run goes on from here"


class ReproductionError(RuntimeError):
    """A notebook cannot be run as asked, or did not run to its end."""


def read_parameters(path: Path) -> dict[str, object]:
    """The names and defaults in the cell tagged `parameters`, which holds only literals; none without one.

    Read from the syntax tree: papermill's own inspection misses a line whose comment has a second `=` in it.
    Raises `ReproductionError` for a file that is no notebook and for a cell of anything but literals.
    """
    parameters = {}
    try:
        tagged = [source for _, source, tags in cells(path) if "parameters" in tags]
        for node in ast.parse("\n".join(tagged)).body:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            parameters[target.id] = ast.literal_eval(node.value)
    except (OSError, ValueError, SyntaxError, AttributeError, KeyError, TypeError) as error:
        expected = "expected a notebook with nothing but `name: type = literal` in its parameters cell"
        raise ReproductionError(f"{path}: {expected}, got {error!r}") from error
    return parameters


def run_notebook(
    path: Path, results: Path, parameters: Mapping[str, object], *, timeout: float = CELL_TIMEOUT
) -> dict[str, str | None]:
    """Execute a notebook in its own folder, keep the executed copy in `<results>/notebooks`, and print one line.

    Returns the checksum of each module that its kernel, which has ended, used, and of each file that it read or
    wrote, by the path from `results`. Raises `ReproductionError` where JAX does not start or a cell fails or takes
    longer than `timeout` seconds; then the copy is in `<results>/notebooks/failed`, and that of an earlier run stays.
    """
    if why := jax_fault():
        raise ReproductionError(f"{path.stem} did not run: {why}")
    import papermill
    from jupyter_core.utils import ensure_event_loop
    from nbclient.exceptions import CellTimeoutError

    start, started, ended, seen = time.monotonic(), [], "", ""
    copy, failed = (results / "notebooks" / folder / path.name for folder in ("", "failed"))
    with socket_folder() as scratch, asyncio.Runner(loop_factory=ensure_event_loop):
        draft, notes = Path(scratch) / "draft.ipynb", Path(scratch) / "notes.json"
        try:
            papermill.execute_notebook(
                str(path).replace("{", "{{").replace("}", "}}"),  # papermill formats the path it is given
                draft,
                parameters=dict(parameters),
                kernel_name="python3",
                language="python",
                progress_bar=False,
                on_cell_execute=lambda cell, **_: started.append(cell),
                execution_timeout=timeout,
                coalesce_streams=True,  # of a progress bar, the last state
                store_widget_state=False,  # a widget ends with its kernel, its picture stays
                kernel_manager_class=_kernel(path, results, Path(scratch), notes),
                shutdown_kernel="immediate",  # all is written by then, and an orderly shutdown takes a second
                extra_arguments=["--log-level=CRITICAL"],  # what a kernel logs, the executed copy holds too
            )
        except CellTimeoutError:
            ended = f"the cell did not end within {timeout:g} s"
        except Exception as error:
            ended = f"{type(error).__name__}: {error}"
        if fault := _fault(started, ended):
            with suppress(OSError, ValueError):  # no draft, or one that a full disk cut off
                json.loads(data := draft.read_bytes())
                seen = f"; see {write_bytes(failed, data)}"
            raise ReproductionError(f"{' '.join(f'{path.stem}{fault}'.split())}; {SAFE}{seen}")
        write_bytes(copy, draft.read_bytes())
        failed.unlink(missing_ok=True)
        noted = json.loads(notes.read_text()) if notes.exists() else CODE
    tell(path.stem, f"{'.' * len(started)} {time.monotonic() - start:.1f} s")
    # modules are noted by a relative path already, which this leaves as it is
    return {os.path.relpath(results / name, results): was for name, was in noted.items()}


def _kernel(path: Path, results: Path, scratch: Path, notes: Path) -> type:
    """The class of kernels of this Python, whichever Jupyter calls `python3`; they write to `results` and `notes`."""
    from ipykernel.kernelspec import make_ipkernel_cmd
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class Kernel(AsyncKernelManager):
        kernel_spec = KernelSpec(argv=make_ipkernel_cmd(), language="python")

        async def start_kernel(self, **options: object) -> None:
            # Sockets in the file system: another kernel could take a free port before this one listens
            self.transport, self.ip = "ipc", str(scratch / "kernel")
            env = kernel_environment(scratch) | {"SOBOLEV_RESULTS": str(results), "SOBOLEV_NOTES": str(notes)}
            # not papermill's `cwd`, which moves the whole process
            await super().start_kernel(**options | {"cwd": str(path.parent), "env": env, "pass_fds": (*INHERITED,)})
            KERNELS.add(self.provisioner.process)

    return Kernel


def _fault(started: list, ended: str) -> str:
    """Where and why an execution failed, or "". An error among the outputs counts: papermill accepts `sys.exit(0)`.

    started: the code cells that began; ended: what ended them, as seen from outside the kernel.
    """
    if not started:
        return ended and f" did not run: {ended}"
    errors = [f"{out.ename}: {out.evalue}".rstrip(": ") for out in started[-1].outputs if out.output_type == "error"]
    first_line = started[-1].source.strip().partition("\n")[0]
    return next((f", In [{len(started)}] `{first_line}`: {why}" for why in [*errors, ended] if why), "")


def end_in_good_order(main: Callable[[], int]) -> NoReturn:
    """Leave this process with the exit code of `main()`, which SIGTERM and SIGHUP interrupt as Ctrl-C does.

    A hangup that `nohup` ignores is still ignored. Once `main` has returned, nothing is left to interrupt.
    """
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, signal.default_int_handler)
    code = main()
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.SIG_IGN)
    sys.exit(code)


def tell(stem: str, what: str) -> None:
    """Print a line about a notebook, by a single write, so that lines of several threads do not mix."""
    print(f"{stem:<32}{what}\n", end="", flush=True)


def keep_outputs(path: Path, copy: Path) -> None:
    """Put the outputs and counts of the executed `copy` into the notebook `path`; of a widget, its picture or text.

    Raises `ReproductionError`, and changes nothing, where the cells are no longer those that were executed.
    """
    import nbformat

    if cells(path) != cells(copy):
        raise ReproductionError(f"{path.stem} was edited while it ran, and keeps its outputs: run it again; {SAFE}")
    notebook, executed = (nbformat.read(file, as_version=4) for file in (path, copy))
    for cell, ran in zip(notebook.cells, executed.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET, None)
    write_bytes(path, (nbformat.writes(notebook).rstrip() + "\n").encode())
