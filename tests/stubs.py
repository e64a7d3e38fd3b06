"""Small notebooks, and reproductions of them, for the tests of what runs notebooks."""

import os
import sys
import time
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PARAMETERS = 'results: str = ""  # folder, if not the usual one\nseed: int = 42  # seed = 42 in the paper'


def write_notebook(folder, stem, *sources, parameters=PARAMETERS, reads="nothing", writes="nothing"):
    """A notebook of a head, a parameters cell unless it is empty, and one cell for each source."""
    cells = [new_markdown_cell(f"# Title\n**Reads** {reads}. **Writes** {writes}. **Run time** none")]
    if parameters:
        cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    cells += [new_code_cell(source) for source in sources]
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), folder / f"{stem}.ipynb")
    return folder / f"{stem}.ipynb"


def command(notebooks, results, *arguments, before="pass"):
    """The command line of a process that reproduces `notebooks`, after a statement; Ctrl-C reaches it in any case."""
    program = f"""import signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from sobolev_utils.paper import execution, reproduce, schedule
{before}
signal.signal(signal.SIGINT, signal.default_int_handler)
arguments, notebooks = {[*arguments, "--results", str(results)]!r}, Path({str(notebooks)!r})
execution.end_in_good_order(lambda: reproduce.main(arguments, notebooks=notebooks))"""
    return [sys.executable, "-c", program]


def await_pids(driver, *files):
    """The process ids that the kernels of a running `driver` leave in files, once all are there."""
    while not all(file.exists() and file.read_text() for file in files):
        assert driver.poll() is None
        time.sleep(0.05)
    return [int(file.read_text()) for file in files]


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
