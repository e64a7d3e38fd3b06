"""One notebook, run to its end without a screen, or a `ReproductionError` that says where and why not."""

import ast
import asyncio
import json
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sobolev_utils.paper.environment import jax_fault, kernel_environment, socket_folder
from sobolev_utils.paper.files import write_bytes
from sobolev_utils.paper.fingerprints import cells

# Jupyter, which takes more than a second to import, is imported where it runs something.
if TYPE_CHECKING:
    import nbformat

CELL_TIMEOUT = 900  # seconds: twenty times what the slowest cell takes on two cores
WIDGET = "application/vnd.jupyter.widget-view+json"
PARSING = threading.Lock()  # ast.parse of Python 3.11 may fail where another thread parses, too
INHERITED: set[int] = set()  # descriptors that kernels keep open, too
SAFE = "every file is whole, old or new, and the next run goes on from here"

__all__ = [
    "CELL_TIMEOUT",
    "INHERITED",
    "SAFE",
    "ReproductionError",
    "end_in_good_order",
    "keep_outputs",
    "read_parameters",
    "run_notebook",
    "tell",
]


class ReproductionError(RuntimeError):
    """A notebook cannot be run as asked, or did not run to its end."""


def read_parameters(path: Path) -> dict[str, object]:
    """The names and defaults in the cell tagged `parameters`, which holds only literals; none without one.

    Read from the syntax tree: papermill's own inspection misses a line whose comment has a second `=` in it.
    """
    parameters = {}
    try:
        tagged = [source for _, source, tags in cells(path) if "parameters" in tags]
        with PARSING:
            tree = ast.parse("\n".join(tagged))
        for node in tree.body:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            parameters[target.id] = ast.literal_eval(node.value)
    except (OSError, ValueError, SyntaxError, AttributeError, KeyError, TypeError) as error:
        expected = "expected a notebook with nothing but `name: type = literal` in its parameters cell"
        raise ReproductionError(f"{path}: {expected}, got {error!r}") from error
    return parameters


def run_notebook(
    path: Path,
    results: Path,
    parameters: Mapping[str, object],
    *,
    begin: Callable[[Callable[[], None]], None] = lambda kill: None,
    hold: Callable[[], None] = lambda: None,
    timeout: float = CELL_TIMEOUT,
) -> dict[str, dict[str, str | None]]:
    """Execute a notebook in its own folder, a copy of it into `<results>/notebooks`; return what its kernel noted.

    Prints one line at its end: the stem, a dot for each code cell, the time. The kernel is gone on return. Raises
    `ReproductionError` unless every code cell ran within `timeout` seconds, without an error, in a kernel that lived
    to the end; then the copy is in `<results>/notebooks/failed`, and that of an earlier run stays. Before any of them
    runs, it raises where JAX does not start.

    `begin(kill)` is called when the kernel has started: another thread can end it by `kill`. The imports, cells
    before the one tagged `parameters`, run at once; before each of the others `hold()` is called, which may wait, or
    raise to end the run.
    """
    if why := jax_fault():
        raise ReproductionError(f"{path.stem} did not run: {why}")
    import papermill
    from ipykernel.kernelspec import make_ipkernel_cmd
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from nbclient.exceptions import CellTimeoutError

    start, started, ended = time.monotonic(), [], ""
    importing, waited = bool(read_parameters(path)), 0.0

    def tick(cell: "nbformat.NotebookNode", **_: object) -> None:
        nonlocal importing, waited
        importing = importing and "parameters" not in cell.metadata.get("tags", [])
        if not importing:
            before = time.monotonic()
            hold()
            waited += time.monotonic() - before
        started.append(cell)

    class Kernel(AsyncKernelManager):
        """A kernel of this Python, whatever `python3` is for Jupyter here, that writes to `results`."""

        kernel_spec = KernelSpec(argv=make_ipkernel_cmd(), language="python")

        async def start_kernel(self, **options: object) -> None:
            # Sockets that are files of its own: a free port may be taken by another kernel before this one is up
            self.transport, self.ip = "ipc", str(Path(scratch) / "kernel")
            own = {"SOBOLEV_RESULTS": str(results), "SOBOLEV_NOTES": str(notes)}
            env = kernel_environment(Path(scratch)) | own
            options |= {"cwd": str(path.parent), "env": env, "pass_fds": tuple(INHERITED)}
            await super().start_kernel(**options)
            begin(self.provisioner.process.kill)

    with socket_folder() as scratch:
        draft, notes = Path(scratch) / "draft.ipynb", Path(scratch) / "notes.json"
        try:
            papermill.execute_notebook(
                str(path).replace("{", "{{").replace("}", "}}"),  # papermill formats the path it is given
                draft,
                parameters=dict(parameters),
                kernel_name="python3",
                language="python",
                progress_bar=False,
                on_cell_execute=tick,
                execution_timeout=timeout,
                coalesce_streams=True,  # of a progress bar, the last state
                store_widget_state=False,  # a widget dies with its kernel, its picture stays
                kernel_manager_class=Kernel,  # not papermill's `cwd`, which moves the whole process
                shutdown_kernel="immediate",  # all is on the disk by then, and leaving in good order takes a second
                extra_arguments=["--log-level=CRITICAL"],  # what a kernel logs, the executed copy holds too
            )
        except CellTimeoutError:
            ended = f"the cell did not end within {timeout:g} s"
        except Exception as error:
            ended = f"{type(error).__name__}: {error}"
        finally:
            _close_event_loop()
        copy = results / "notebooks" / path.name
        failed = copy.parent / "failed" / path.name
        try:
            fault, seen = _first_fault(draft, len(started), ended), f"; see {failed}"
        except (OSError, ValueError):  # no draft, or one that a full disk cut off
            raise ReproductionError(f"{path.stem} did not run: {' '.join(ended.split())}; {SAFE}") from None
        try:
            write_bytes(failed if fault else copy, draft.read_bytes())
        except OSError as error:
            fault, seen = fault or f"{type(error).__name__}: {error}", ""
        if fault:
            raise ReproductionError(f"{path.stem}, {' '.join(fault.split())}; {SAFE}{seen}")
        failed.unlink(missing_ok=True)
        noted = json.loads(notes.read_text()) if notes.exists() else {}
    tell(path.stem, f"{'.' * len(started)} {time.monotonic() - start - waited:.1f} s")
    return noted


def end_in_good_order() -> None:
    """Let what ends a process end it as Ctrl-C does; a hangup that is to be ignored, as after `nohup`, still is."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, signal.default_int_handler)


def tell(stem: str, what: str) -> None:
    """Print a line on a notebook, in one piece also among threads."""
    print(f"{stem:<32}{what}\n", end="", flush=True)


def _close_event_loop() -> None:
    """Close the event loop of this thread, which papermill leaves open, with tasks in it after a timeout."""
    from jupyter_core.utils import ensure_event_loop

    loop = ensure_event_loop()
    for task in (tasks := asyncio.all_tasks(loop)):
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()


def keep_outputs(path: Path, copy: Path) -> None:
    """Put the outputs and counts of the executed `copy` into the notebook at `path`, and nothing else.

    Of a widget, which died with its kernel, what stands in for it. Raises `ReproductionError`, and changes nothing,
    where the cells are no longer those that were executed.
    """
    import nbformat

    if [cell[:2] for cell in cells(path)] != [cell[:2] for cell in cells(copy)]:
        raise ReproductionError(f"{path.stem} was edited while it ran, and keeps its outputs: run it again; {SAFE}")
    notebook = nbformat.read(path, as_version=4)
    for cell, executed in zip(notebook.cells, nbformat.read(copy, as_version=4).cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = executed.outputs, executed.execution_count
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET, None)
    write_bytes(path, (nbformat.writes(notebook).rstrip() + "\n").encode())


def _first_fault(copy: Path, started: int, ended: str) -> str:
    """Where and why an executed copy is not a full run, or "": papermill alone accepts `sys.exit(0)`.

    `started` code cells began; `ended` is what ended the execution early, seen from outside its kernel.
    """
    import nbformat

    code = [cell for cell in nbformat.read(copy, as_version=4).cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        errors = [f"{out.ename}: {out.evalue}".rstrip(": ") for out in cell.outputs if out.output_type == "error"]
        if errors or cell.execution_count is None or (ended and number == started):
            first_line = cell.source.strip().partition("\n")[0] or "(empty)"
            return f"In [{number}] `{first_line}`: {(errors or [ended or 'did not run'])[0]}"
    return ended
