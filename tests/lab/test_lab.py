"""Every notebook runs to its end in JupyterLab, in a browser, and what goes wrong there is reported.

They run under small parameters: what a browser may do otherwise than papermill and nbval does not depend on these.
`make test-lab` runs these; without Chromium they are skipped, never passed.
"""

import os
import time
from pathlib import Path

import nbformat
import pytest
from benchmarks.sweep import SMALL
from browser import Sheet, browse, run_together, serve
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from sobolev_utils.paper.execution import read_parameters
from sobolev_utils.paper.reproduce import NOTEBOOKS, NUMBERED
from sobolev_utils.paper.schedule import waits

ROOT = Path(__file__).resolve().parents[2]
PATHS = sorted(NOTEBOOKS.glob(NUMBERED))
PICTURES = ROOT / "build" / "lab"
AT_ONCE = min(3, 1 + (os.cpu_count() or 1))
LIMIT = 900  # seconds for a notebook: against one that hangs, not one on a busy machine
MOVES = 12


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Copies of the notebooks, under small parameters, as if they had never run."""
    folder = tmp_path_factory.mktemp("notebooks")
    for path in PATHS:
        small = {name: value for name, value in SMALL.items() if name in read_parameters(path)}
        notebook = parameterize_notebook(load_notebook_node(str(path)), small)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, folder / path.name)
    return folder


@pytest.fixture(scope="session")
def open_sheet(folder, chromium, tmp_path_factory):
    """A way to open a notebook of `folder` in JupyterLab and run it."""
    scratch, results = tmp_path_factory.mktemp("lab"), tmp_path_factory.mktemp("results")
    with serve(folder, scratch, results) as address, browse(chromium) as context:
        yield lambda path: Sheet(context, address, path)


@pytest.fixture(scope="session")
def reports(folder, open_sheet):
    """Faults of each notebook, by stem: all run, each as soon as its data are there."""
    print()
    found = waits([folder / path.name for path in PATHS])
    needs = {path: [maker.stem for maker in makers] for path, makers in found.items()}
    return run_together(needs, open_sheet, PICTURES, at_once=AT_ONCE, limit=LIMIT)


@pytest.mark.parametrize("stem", [path.stem for path in PATHS])
def test_runs_to_its_end(reports, stem):
    assert reports[stem] == []
    assert (PICTURES / f"{stem}.png").stat().st_size > 10_000


@pytest.fixture
def sheet_of(folder, open_sheet, request):
    """A way to run a notebook of these code cells; returns its sheet, when it is done or `limit` seconds are over."""
    sheets = []

    def run(*sources, limit=LIMIT):
        path = folder / f"broken_{len(list(folder.iterdir()))}.ipynb"
        cells = [new_markdown_cell("# Broken"), *map(new_code_cell, sources)]
        kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
        sheets.append(open_sheet(path))
        while not sheets[-1].finished() and sheets[-1].seconds < limit:
            time.sleep(0.2)
        return sheets[-1].report(PICTURES / f"{request.node.name}.png")

    yield run
    for sheet in sheets:
        sheet.close()


def test_no_fault_is_found_where_there_is_none(sheet_of):
    assert sheet_of("import sys; print('a warning', file=sys.stderr)", "1 + 1") == []


def test_a_cell_that_raises_and_those_after_it_are_reported(sheet_of):
    raised, unrun = sheet_of("1 + 1", "1 / 0", "3")
    assert raised == "cell 2 `1 / 0` ended in ZeroDivisionError: division by zero"
    assert unrun == "cell 3 `3` was left unrun"


def test_a_kernel_that_dies_is_reported(sheet_of):
    faults = sheet_of("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "2")
    assert any("restart" in fault for fault in faults), faults
    assert "cell 2 `2` was left unrun" in faults


def test_a_cell_that_hangs_is_reported(sheet_of):
    faults = sheet_of("import time; time.sleep(3600)", "2", limit=8)
    assert faults[0].startswith("still running after") and "cell 2 `2` was left unrun" in faults


def test_a_widget_that_does_not_show_is_reported(sheet_of):
    view = (
        "{'application/vnd.jupyter.widget-view+json': {'version_major': 2, 'version_minor': 0, 'model_id': 'gone'}}"
    )
    (fault,) = sheet_of(f"from IPython.display import display; display({view}, raw=True)")
    assert fault.startswith(("Loading widget", "Error displaying widget"))


def wait_until_at_rest(page, selector, seconds=2):
    """Return when what these elements show has not changed for so long: messages may still be under way."""
    shown, since = [], time.monotonic()
    while time.monotonic() - since < seconds:
        now = page.locator(selector).evaluate_all("found => found.map(one => one.src ?? one.innerText)")
        if now != shown:
            shown, since = now, time.monotonic()
        time.sleep(0.1)


def test_a_slider_moves_the_numbers(reports, folder, open_sheet):
    """The higher the strike, the lower the price; the time is from the key to number and picture on the screen."""
    sheet = open_sheet(folder / "08_explore.ipynb")
    page = sheet.page
    while not sheet.finished() and sheet.seconds < LIMIT:
        time.sleep(0.2)
    handle = page.locator(".widget-slider", has_text="strike").locator(".noUi-handle")
    price, picture = ".jupyter-widgets tbody tr:nth-child(2) td", ".widget-image"
    both_are_new = """([price, old, picture, shown]) => document.querySelector(price).innerText != old
        && document.querySelector(picture).src != shown"""
    prices, pictures, times = [], [], []
    wait_until_at_rest(page, f"{price}, {picture}")  # the notebook has moved the sliders a hundred times
    for _ in range(MOVES):
        prices.append(float(page.locator(price).first.inner_text()))
        pictures.append(page.locator(picture).first.get_attribute("src"))
        began = time.perf_counter()
        handle.press("ArrowRight")
        page.wait_for_function(both_are_new, arg=[price, f"{prices[-1]:.3g}", picture, pictures[-1]])
        times.append(time.perf_counter() - began)
    page.screenshot(path=PICTURES / "slider.png")
    sheet.close()
    print(f"\na move of a slider, from the key to the screen: {1e3 * sorted(times)[MOVES // 2]:.0f} ms")
    assert prices == sorted(prices, reverse=True) and len(set(prices)) == MOVES
    assert len(set(pictures)) == MOVES
    assert sorted(times)[MOVES // 2] < 0.5
