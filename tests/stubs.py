"""Small notebooks for the tests of what runs notebooks."""

import os

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


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
