"""Every test runs in float64, without a screen."""

import jax
import matplotlib
import pytest

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")


def pytest_collection_modifyitems(items):
    """Side by side, a file stays together and in order; so do the notebooks and the tests of what they leave."""
    for item in items:
        shared = item.path.parent.name == "notebooks"
        item.add_marker(pytest.mark.xdist_group("notebooks" if shared else item.path.stem))
