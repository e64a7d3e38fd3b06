"""Certificates of surrogates of many baskets, held against points: results/tables/certificate_baskets.csv.

python tests/benchmarks/certificates.py [--baskets 40] [--points 100000000]

Twelve assets, another strike, a put, and random baskets: for each a network of two layers of 8 nodes is fitted to the
closed form, certified, and its errors searched for from inside. Then the price of the case study's own surrogate is
compared at many points. The exit code is 1 where a point exceeds what is proven, or a bound is more than 1.5 times
what is found. The table holds no clock reading.
"""

import argparse
import sys
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx

from sobolev_utils.enclosures import box
from sobolev_utils.learning import Surrogate, fit, shuffled, sobolev
from sobolev_utils.models import GaussianBasket, Samples
from sobolev_utils.paper import load_problem, load_stage
from sobolev_utils.paper.artifacts import results_folder
from sobolev_utils.paper.outputs import save_table
from sobolev_utils.pruning import certify
from sobolev_utils.pruning.attained import largest

LIMIT = 1.5
BATCH = 2**18
FIRST = 201  # the seed of the first random basket


@dataclass(frozen=True)
class Put:
    """The put of a basket, by put-call parity."""

    basket: GaussianBasket

    def value(self, x):
        return self.basket.value(x) - self.basket.underlying(x) + self.basket.strike

    def delta(self, x):
        return self.basket.delta(x) - jnp.asarray(self.basket.weights, x.dtype)

    def gamma(self, x):
        return self.basket.gamma(x)


def cases(n_baskets):
    """Names, baskets and references."""
    contract = {"strike": 1.1, "exposure": 1.0, "maturity": 2.0}
    random = partial(GaussianBasket.random, volatility=0.2)
    yield "twelve assets", (basket := random(112, 12, **contract)), basket
    yield "strike 0.9", (basket := random(42, 7, **{**contract, "strike": 0.9})), basket
    yield "put", (basket := random(42, 7, **contract)), Put(basket)
    for seed in range(FIRST, FIRST + n_baskets):
        yield f"basket {seed}", (basket := random(seed, 7, **contract)), basket


def fitted(basket, reference):
    """A small surrogate, fitted to values and deltas of the closed form at random spots, as well as it can be."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(*basket.box, (8192, basket.n_assets)), jnp.float32)
    samples = Samples(x, reference.value(x), reference.delta(x))
    model = Surrogate(basket.n_assets, [8, 8], rngs=nnx.Rngs(0)).normalise(samples.x, samples.y)
    settings = {"epochs": 60, "batch": 512, "learning_rate": 1e-2, "optimiser": "muon"}
    model, _ = fit(model, shuffled(samples), sobolev(), key=jax.random.key(0), **settings)
    with jax.enable_x64(True):
        x = jnp.asarray(x[: len(x) // (basket.n_assets + 1)], float)
        exact = Samples(x, reference.value(x), reference.delta(x))
        settings = {"epochs": 50, "optimiser": "levenberg_marquardt"}
        return fit(model, lambda key: exact, sobolev(), key=jax.random.key(0), **settings)[0]


def errors_of(model, reference):
    """|errors| of price, deltas and gamma and the norm of the deltas', by JAX's derivatives of the surrogate."""

    def along(f, x):
        return jax.jvp(f, (x,), (jnp.ones_like(x),))[1]

    def errors(x):
        delta = jax.grad(model)(x) - reference.delta(x)
        gamma = along(lambda x: along(model, x), x) - reference.gamma(x)
        price = model(x) - reference.value(x)
        return jnp.abs(jnp.concatenate([price[None], delta, jnp.linalg.norm(delta)[None], gamma[None]]))

    return errors


def examine(name, basket, reference):
    """A row for each quantity."""
    model, inputs = fitted(basket, reference), box(*basket.box)
    bounds = certify(model, reference, inputs).bounds
    with jax.enable_x64(True):
        found = np.asarray(largest(errors_of(model, reference), inputs, samples=2**18, rounds=40)[0])
    found = {"price": found[[0, 0]], "delta": found[1:-1], "gamma": found[[-1, -1]]}
    for quantity, bound in bounds.items():
        sampled = np.maximum(found[quantity], bound.found)
        worst = int(np.argmax(bound.proven / sampled))
        exceeded = bool((found[quantity] > bound.proven).any())
        yield {
            "case": name,
            "quantity": quantity,
            "proven": bound.proven[worst],
            "sampled": sampled[worst],
            "ratio": bound.proven[worst] / sampled[worst],
            "exceeded": exceeded,
            "boxes": bound.boxes,
            "points": 2**18 + 40 * len(found),
        }


def at_many_points(n_points):
    """The price of the case study's surrogate: random points, and steps from the worst of them."""
    folder = results_folder("")
    basket = load_problem(folder).basket
    model = load_stage(folder, "sobolev_reference")[0]["paths_8192"].model
    bound = certify(model, basket, box(*basket.box), tolerances={"price": 1.2}).bounds["price"]
    lower, upper = basket.box
    with jax.enable_x64(True):

        @jax.jit
        def step(key, best):
            """The worst of a batch: half of it anywhere, half of it near the worst so far."""
            most, where = best
            near, far, size = jax.random.split(key, 3)
            anywhere = jax.random.uniform(far, (BATCH // 2, len(lower)), minval=lower, maxval=upper)
            scale = 10 ** jax.random.uniform(size, (BATCH // 2, 1), minval=-5.0, maxval=-0.5)
            moved = where + scale * (upper - lower) * jax.random.normal(near, anywhere.shape)
            x = jnp.concatenate([anywhere, jnp.clip(moved, lower, upper)])
            errors = jnp.abs(model(x) - basket.value(x))
            i = errors.argmax()
            return jax.tree.map(partial(jnp.where, errors[i] > most), (errors[i], x[i]), best)

        best = jnp.zeros(()), jnp.asarray(lower)
        for key in jax.random.split(jax.random.key(0), -(-n_points // BATCH)):
            best = step(key, best)
    sampled, proven = float(best[0]), bound.proven[0]
    yield {
        "case": "case study",
        "quantity": "price",
        "proven": proven,
        "sampled": sampled,
        "ratio": proven / sampled,
        "exceeded": sampled > proven,
        "boxes": bound.boxes,
        "points": -(-n_points // BATCH) * BATCH,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baskets", type=int, default=40)
    parser.add_argument("--points", type=int, default=10**8)
    arguments = parser.parse_args()
    rows = []
    for case in cases(arguments.baskets):
        rows += examine(*case)
        print(pd.DataFrame(rows[-3:]).to_string(index=False, header=len(rows) == 3), flush=True)
    rows += at_many_points(arguments.points)
    table = pd.DataFrame(rows)
    save_table(results_folder(""), "certificate_baskets", table, formats=("csv",))
    print(table.tail(1).to_string(index=False))
    return int(table.exceeded.any() or (table.ratio > LIMIT).any())


if __name__ == "__main__":
    sys.exit(main())
