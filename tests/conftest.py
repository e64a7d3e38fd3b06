"""Every test runs in float64, without a screen; notebooks run after those whose files they read."""

import gc
import os
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
def gallery(tmp_path_factory):
    """Pages of the committed notebooks, in a folder of results that holds the committed tables and figures."""
    from sobolev_utils.paper.gallery import write_gallery  # nbconvert takes a second to import

    results = tmp_path_factory.mktemp("results")
    for name in ("figures", "tables"):
        (results / name).symlink_to(Path(__file__).parents[1] / "results" / name)
    return write_gallery(results).parent


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
