"""JupyterLab as a person has it: a server on this machine, a browser without a screen, cells run from the menu."""

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page

__all__ = ["Sheet", "browse", "faults_of", "run_together", "serve"]

SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},  # every cell is in the page
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
STARTING = 90  # seconds for the server, a page or a kernel
PROMPTS = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(prompt => prompt.innerText.trim())"
STATUS = "document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status"
CELLS = "jupyterapp.shell.currentWidget.content.model.toJSON().cells.filter(cell => cell.cell_type == 'code')"
WIDGETS = "[...document.querySelectorAll('.jp-OutputArea-output')].map(output => output.innerText)"
LOADING = 10  # seconds for a widget whose kernel is idle


@contextmanager
def serve(notebooks: Path, scratch: Path, results: Path) -> Iterator[str]:
    """JupyterLab on the folder `notebooks`, on 127.0.0.1 with a token; yields its address, token included.

    Its settings, workspaces and log go to `scratch`, and what the notebooks write to `results`. Its kernels end with
    it. Raises TimeoutError where it does not answer.
    """
    for name, setting in SETTINGS.items():
        path = scratch / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(setting))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
           "JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython"}  # fmt: skip
    environment = os.environ | {name: str(scratch / folder) for name, folder in own.items()}
    environment |= {"JUPYTER_TOKEN": secrets.token_hex(), "SOBOLEV_RESULTS": str(results), "MPLBACKEND": ""}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root",
               "--expose-app-in-browser", "--ServerApp.port_retries=0", "--LabApp.extension_manager=readonly",
               f"--ServerApp.root_dir={notebooks}"]  # fmt: skip
    with open(scratch / "server.log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        address = f"http://127.0.0.1:{port}/{{}}?token={environment['JUPYTER_TOKEN']}"
        try:
            _until(lambda: _answers(address.format("api/status")), STARTING, f"no JupyterLab: see {log.name}")
            yield address
        finally:
            server.terminate()  # and so its kernels, in good order
            server.wait(STARTING)


@contextmanager
def browse(browser: Browser) -> Iterator[BrowserContext]:
    """A browser's window of its own."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        context.set_default_timeout(1e3 * STARTING)
        yield context


class Sheet:
    """A notebook open in a browser, all its cells sent to run by the menu."""

    def __init__(self, context: BrowserContext, address: str, path: Path):
        self.path, self._address, self._began = path, address, time.monotonic()
        self.page: Page = context.new_page()
        self.page.goto(address.format(f"lab/workspaces/{path.stem}/tree/{path.name}"))
        self.page.wait_for_function(f"{STATUS} == 'idle' && document.body.innerText.includes('| Idle')")
        # What an earlier run has saved would look like a run that is over
        for entry in ("Edit", "Clear Outputs of All Cells", "Run", "Run All Cells"):
            self.page.get_by_role("menuitem", name=entry, exact=True).click()
        self.page.wait_for_function(f"{PROMPTS}.some(prompt => prompt != '[ ]:')")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def finished(self) -> bool:
        """Whether the kernel is idle and no cell waits for it."""
        status, prompts = self.page.evaluate(f"[{STATUS}, {PROMPTS}]")
        return status == "idle" and "[*]:" not in prompts

    def report(self, picture: Path) -> list[str]:
        """What is wrong, a line each, and a `picture` of all that is seen."""
        end = time.monotonic() + LOADING
        while any("Loading widget" in text for text in self.page.evaluate(WIDGETS)) and time.monotonic() < end:
            time.sleep(0.2)
        if dialogs := [dialog.inner_text() for dialog in self.page.locator(".jp-Dialog-content").all()]:
            self.page.keyboard.press("Escape")
        height = self.page.evaluate("document.querySelector('.jp-Notebook .jp-WindowedPanel-viewport').scrollHeight")
        self.page.set_viewport_size({"width": 1280, "height": min(int(height) + 150, 16_000)})
        self.page.evaluate("document.querySelector('.jp-Notebook .jp-WindowedPanel-outer').scrollTop = 0")
        picture.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=picture)
        faults = faults_of(self.page.evaluate(CELLS), self.page.evaluate(WIDGETS))
        running = [] if self.finished() else [f"still running after {self.seconds:.0f} s"]
        return [" ".join(dialog.split()) for dialog in dialogs] + running + faults

    def close(self) -> None:
        """Shut the page and the kernel."""
        self.page.close()
        for session in json.loads(_request(self._address.format("api/sessions"))):
            if session["path"] == self.path.name:
                _request(self._address.format(f"api/sessions/{session['id']}"), method="DELETE")


def faults_of(cells: Sequence[Mapping], widgets: Sequence[str]) -> list[str]:
    """What is wrong with code cells after a full run, and with the text of the widgets: a line each."""
    faults = []
    for number, cell in enumerate(cells, start=1):
        first_line = "".join(cell["source"]).strip().partition("\n")[0]
        if cell["execution_count"] is None:
            faults.append(f"cell {number} `{first_line}` was left unrun")
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                faults.append(f"cell {number} `{first_line}` ended in {output['ename']}: {output['evalue']}")
    return faults + [text for text in widgets if re.match("Loading widget|Error displaying widget", text)]


def run_together(
    needs: Mapping[Path, Sequence[str]],
    open_sheet: Callable[[Path], Sheet],
    pictures: Path,
    *,
    at_once: int,
    limit: float,
) -> dict[str, list[str]]:
    """Run notebooks, `at_once` at a time, each after the stems that it needs; return the faults of each, by stem.

    One that takes more than `limit` seconds is reported as it stands.
    """
    waiting, running, reports = list(needs), [], {}
    while waiting or running:
        ready = [path for path in waiting if not set(needs[path]) - reports.keys()]
        for path in ready[: at_once - len(running)]:
            waiting.remove(path)
            running.append(open_sheet(path))
        for sheet in tuple(running):
            if sheet.finished() or sheet.seconds > limit:
                stem = sheet.path.stem
                reports[stem] = sheet.report(pictures / f"{stem}.png")
                print(f"{stem:<32}{sheet.seconds:.0f} s", flush=True)
                sheet.close()
                running.remove(sheet)
        time.sleep(0.3)
    return reports


def _answers(url: str) -> bool:
    try:
        return bool(_request(url))
    except OSError:
        return False


def _request(url: str, method: str = "GET") -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=STARTING) as response:
        return response.read()


def _until(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(otherwise)
        time.sleep(0.2)
