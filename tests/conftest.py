"""Every test runs in float64, without a screen."""

import jax
import matplotlib

jax.config.update("jax_enable_x64", True)
matplotlib.use("agg")
