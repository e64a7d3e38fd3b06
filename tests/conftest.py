"""Every test runs in float64, without a screen; notebooks run after those whose files they read."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import jax
import matplotlib
import pytest
from xdist.scheduler import LoadFileScheduling

from sobolev_utils.paper.environment import jax_fault
from sobolev_utils.paper.schedule import waits

jax.config.update("jax_enable_x64", True)
# Kernels may keep what they compile: one at a time. Of two processes at once one may read what the other half wrote.
jax.config.update("jax_enable_compilation_cache", False)
matplotlib.use("agg")
# in kernels, where it would be one more output
os.environ["PYTHONWARNINGS"] = "ignore:the error bounds of elementary functions:UserWarning"
gc.set_threshold(50_000)  # what JAX traces is many small objects, of which few die soon


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """What `make html` builds, in a folder of its own."""
    folder, docs = tmp_path_factory.mktemp("site"), Path(__file__).parents[1] / "docs"
    options = ["--quiet", "--fail-on-warning", "--keep-going", "-d", folder / "doctrees"]
    command = [sys.executable, "-m", "sphinx", *options, docs, folder / "html"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder / "html"


def pytest_configure(config):
    if not hasattr(config, "workerinput") and (why := jax_fault()):
        raise pytest.UsageError(why)


def pytest_collection_modifyitems(items):
    order = list(waits(sorted({item.path for item in items if item.path.suffix == ".ipynb"})))
    items.sort(key=lambda item: order.index(item.path) if item.path in order else len(order))


class TogetherScheduling(LoadFileScheduling):
    """Side by side, a file stays together and in order; so do all notebooks, with the tests of what they leave."""

    def _split_scope(self, nodeid):
        file = super()._split_scope(nodeid)
        return "notebooks" if "notebooks/" in file else file


def pytest_xdist_make_scheduler(config, log):
    return TogetherScheduling(config, log)
