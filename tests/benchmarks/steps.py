"""What a training step costs: results/tables/step_cost.csv and vjp_accuracy.csv, by `make bench`.

Seconds of one step at 4 x 64 and batch 512 after compilation, the least of ten runs of twenty; and what sampled
cotangents and the whole Jacobian of a strip of 16 strikes reach in equal time, under ten seeds.
"""

import os
from contextlib import redirect_stdout
from pathlib import Path

import jax
import jax.numpy as jnp
import pandas as pd
from flax import nnx
from run import step_seconds

from sobolev_utils.learning.hessian_products import all_directions, random_directions, with_hvp
from sobolev_utils.learning.losses import SumOfSquares, plain, sampled_sobolev, second_order, sobolev
from sobolev_utils.learning.metrics import rmse
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.learning.training import fit
from sobolev_utils.models.basket import GaussianBasket
from sobolev_utils.models.samples import Samples, StripSamples
from sobolev_utils.paper.artifacts import results_folder
from sobolev_utils.paper.outputs import save_study

INPUTS, OUTPUTS, BATCH = (7, 20, 50, 100), (1, 4, 16, 64), 512
KEY = jax.random.key(42)


def of_inputs(n):
    basket = GaussianBasket.random(42, n)
    x = 1 + 0.3 * jax.random.normal(KEY, (BATCH, n))
    samples = Samples(x, basket.value(x), basket.delta(x))
    model = Surrogate(n, [64] * 4, rngs=nnx.Rngs(42)).normalise(x, samples.y)
    random = with_hvp(samples, basket.value, random_directions(KEY, BATCH, 1, n))
    yield "values", step_seconds(model, samples, plain)
    yield "first order", step_seconds(model, samples, sobolev())
    yield "second order, one direction", step_seconds(model, random, second_order())
    whole = with_hvp(samples, basket.value, all_directions(n))
    yield "second order, whole Hessian", step_seconds(model, whole, second_order())


def strip(m, x):
    """Prices at m strikes, (n_samples, m): that of the basket less the strike."""
    basket = GaussianBasket.random(42, x.shape[1])
    return jax.vmap(lambda k: basket.value(x + basket.strike - k), out_axes=-1)(jnp.linspace(0.9, 1.3, m))


def labelled(m, x, u):
    y, pullback = jax.vjp(lambda x: strip(m, x), x)
    return StripSamples(x, y[:, 0] if m == 1 else y, u, jax.vmap(pullback, 1, 1)(u)[0])


def of_outputs(m):
    x = 1 + 0.3 * jax.random.normal(KEY, (BATCH, 7))
    model = Surrogate(7, [64] * 4, n_outputs=m, rngs=nnx.Rngs(42)).normalise(x, strip(m, x))
    sampled, whole = random_directions(KEY, BATCH, 1, m), everything(m, BATCH)
    yield "one cotangent", step_seconds(model, labelled(m, x, sampled), sampled_sobolev())
    yield "whole Jacobian, reverse", step_seconds(model, labelled(m, x, whole), sampled_sobolev())
    yield "whole Jacobian, forward", step_seconds(model, labelled(m, x, whole), by_tangents)


def _terms(model, samples):
    """Those of `sampled_sobolev` for all cotangents, by a tangent for each input: cheaper where outputs are more."""

    def along(v):
        return jax.jvp(model, (samples.x,), (jnp.broadcast_to(v, samples.x.shape),))

    y, columns = jax.vmap(along, out_axes=(None, -1))(jnp.eye(model.n_inputs))
    jacobian = model.n_outputs**0.5 * columns.reshape(samples.vjp.shape)
    products = (samples.vjp - jacobian) * (model.x_std[...] / model.y_std[...])
    entries = model.n_outputs * model.n_inputs
    return [(1.0, model.n_outputs, (samples.y - y) / model.y_std[...]), (1.0, entries, products)]


by_tangents = SumOfSquares(_terms)


def everything(m, n):
    return jnp.broadcast_to(all_directions(m), (n, m, m))


def accuracy(seed, cost, m=16):
    """RMSE of prices and deltas of a strip after equal times: as many steps as the ratio of their costs allows."""
    x = 1 + 0.3 * jax.random.normal(KEY, (8192, 7))
    x_test = 1 + 0.3 * jax.random.normal(jax.random.key(1), (1024, 7))
    model = Surrogate(7, [64] * 4, n_outputs=m, rngs=nnx.Rngs(seed)).normalise(x, strip(m, x))
    ways = {"one cotangent": (sampled_sobolev(), lambda key: random_directions(key, 8192, 1, m)),
            "whole Jacobian, forward": (by_tangents, lambda key: everything(m, 8192))}  # fmt: skip
    for way, (loss, directions) in ways.items():
        epochs = max(round(60 * cost["one cotangent"] / cost[way]), 1)

        def draw(key, directions=directions):
            one, two = jax.random.split(key)
            return labelled(m, x[jax.random.permutation(one, 8192)], directions(two))

        key = jax.random.key(seed)
        with redirect_stdout(open(os.devnull, "w")):
            trained, _ = fit(model, draw, loss, key=key, epochs=epochs, learning_rate=3e-3)
        jacobians = [jax.vmap(jax.jacrev(f))(x_test) for f in (lambda x: strip(m, x[None])[0], trained)]
        yield way, seed, epochs * 8192 // BATCH, rmse(strip(m, x_test), trained(x_test)), rmse(*jacobians)


if __name__ == "__main__":
    rows = [("inputs", way, n, s) for n in INPUTS for way, s in of_inputs(n)]
    rows += [("outputs", way, m, s) for m in OUTPUTS for way, s in of_outputs(m)]
    table = pd.DataFrame(rows, columns=["varied", "way", "value", "seconds"])
    table["seconds"] = [float(f"{s:.3g}") for s in table.seconds]
    cost = {way: s for varied, way, value, s in rows if (varied, value) == ("outputs", 16)}
    reached = [row for seed in range(42, 52) for row in accuracy(seed, cost)]
    reached = pd.DataFrame(reached, columns=["way", "seed", "steps", "rmse_prices", "rmse_deltas"])
    folder = Path(results_folder())
    basket = {"basket_seed": 42, "volatility": 0.2, "maturity": 2.0}
    for name, frame, n in (("step_cost", table, f"{INPUTS[0]} to {INPUTS[-1]}"), ("vjp_accuracy", reached, 7)):
        written = save_study(folder, name, frame, {"n_assets": n, **basket}, {})
        print(frame.to_string(), written, sep="\n", flush=True)
