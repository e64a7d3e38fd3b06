"""Every test runs in float64, without a screen; notebooks run after those whose files they read."""

import jax
import matplotlib

from sobolev_utils.schedule import waits

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")


def pytest_collection_modifyitems(items):
    """nbval takes notebooks by name, and 00 reads what 05 writes."""
    order = list(waits(sorted({item.path for item in items if item.path.suffix == ".ipynb"})))
    items.sort(key=lambda item: order.index(item.path) if item.path in order else len(order))
