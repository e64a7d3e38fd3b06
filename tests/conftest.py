"""Every test runs in float64, without a screen; notebooks run after those whose files they read."""

import jax
import matplotlib
import pytest

from sobolev_utils.schedule import waits

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")


def pytest_collection_modifyitems(items):
    """Notebooks in the order of their data. Side by side, a file stays together; so do notebooks and their tests."""
    order = list(waits(sorted({item.path for item in items if item.path.suffix == ".ipynb"})))
    items.sort(key=lambda item: order.index(item.path) if item.path in order else len(order))
    for item in items:
        shared = item.path.parent.name == "notebooks"
        item.add_marker(pytest.mark.xdist_group("notebooks" if shared else item.path.stem))
