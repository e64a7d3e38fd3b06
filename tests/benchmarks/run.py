"""What things cost, into results/tables/timings.csv: `make bench`. Each task runs in a process of its own.

seconds: wall clock from start to the last result in memory; compile time is in it unless the note says otherwise.
peak_mb: the largest resident set of any process of the task. against, ratio: another way of doing the same in the
same run, and how many times longer that took.
"""

import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import optax
import pandas as pd
from flax import nnx
from scipy import optimize

from sobolev_utils.enclosures.branch_and_bound import Search
from sobolev_utils.enclosures.intervals import box
from sobolev_utils.learning.levenberg_marquardt import levenberg_marquardt, residual_function
from sobolev_utils.learning.losses import plain, sobolev
from sobolev_utils.learning.metrics import rmse
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.learning.training import fit, shuffled
from sobolev_utils.models.basket import GaussianBasket
from sobolev_utils.models.least_squares_monte_carlo import LeastSquaresMonteCarlo
from sobolev_utils.models.payoffs import call
from sobolev_utils.paper.artifacts import results_folder
from sobolev_utils.paper.case_study import load_problem
from sobolev_utils.paper.outputs import save_table
from sobolev_utils.paper.stages import load_stage
from sobolev_utils.pruning.attained import inside
from sobolev_utils.pruning.significance import METHODS, values_and_adjoints
from sobolev_utils.pruning.subdivision import analyse_subdivided
from sobolev_utils.studies.extensions import EXPERIMENTS, Laboratory

KEY = jax.random.key(42)
EPOCHS, BATCH, PATHS = 200, 512, 8192
SPOTS, BLOCK, PAIRS = 10**6, 4096, 2**16
EXPORTED = "price, deltas and gamma at 10^6 spots in blocks of 4,096, float32"


def oversized():
    samples = LeastSquaresMonteCarlo(GaussianBasket.random(42), call).sample(KEY, PATHS)
    return Surrogate(7, [128] * 6, rngs=nnx.Rngs(42)).normalise(samples.x, samples.y), samples


def seconds(function, *args):
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def training_step(model, optimiser, loss):
    """A step (parameters, moments), batch -> state, loss; and the first state."""
    graph, parameters, constants = nnx.split(model, nnx.Param, ...)

    def step(state, batch):
        parameters, moments = state
        value, gradient = jax.value_and_grad(lambda p: loss(nnx.merge(graph, p, constants), batch))(parameters)
        updates, moments = optimiser.update(gradient, moments, parameters)
        return (optax.apply_updates(parameters, updates), moments), value

    return step, (parameters, optimiser.init(parameters))


def by_sample(sample_loss):
    """A loss as usually written: that of single samples, under vmap."""
    return lambda model, batch: jnp.mean(jax.vmap(lambda *sample: sample_loss(model, *sample))(*batch))


def loop_of_batches(model, samples):
    """The same training as usually written: per-sample losses, a call of a compiled step for each batch."""
    optimiser = optax.adamw(optax.cosine_decay_schedule(1e-3, EPOCHS * PATHS // BATCH), weight_decay=0.0)
    loss = by_sample(lambda model, x, y: ((y - model(x)) / model.y_std[...]) ** 2)
    step, state = training_step(model, optimiser, loss)
    step, rng = jax.jit(step), np.random.default_rng(42)
    x, y = np.asarray(samples.x), np.asarray(samples.y)
    for _ in range(EPOCHS):
        for chosen in np.split(rng.permutation(PATHS), PATHS // BATCH):
            state, value = step(state, (x[chosen], y[chosen]))
    return value


def train_oversized():
    model, samples = oversized()
    with redirect_stdout(open(os.devnull, "w")):
        ours = seconds(lambda: fit(model, shuffled(samples), plain, key=KEY, epochs=EPOCHS, batch=BATCH)[1])
    loop = seconds(loop_of_batches, model, samples)
    return ours, "a loop over compiled steps", loop / ours, "3,200 steps of 512 at 6 x 128, compile included"


def step_seconds(model, samples, loss, steps=20):
    """Seconds of one step of Adam on these samples after compilation: the least of ten runs of some."""
    step, start = training_step(model, optax.adam(1e-3), loss)
    run = jax.jit(lambda state: jax.lax.scan(lambda state, _: step(state, samples), state, length=steps)[0])
    jax.block_until_ready(run(start))
    return min(seconds(run, start) for _ in range(10)) / steps


def sobolev_step_against_plain():
    model, samples = oversized()
    batch = jax.tree.map(lambda a: a[:BATCH], samples)
    ours, values = (step_seconds(model, batch, loss) for loss in (sobolev(), plain))
    return ours, "a step on values alone", values / ours, "batch 512 at 6 x 128, after compile"


def sobolev_step():
    """Against the usual way: value_and_grad of each sample under vmap, a call of a compiled step for each batch."""
    model, samples = oversized()
    ours = step_seconds(model, jax.tree.map(lambda a: a[:BATCH], samples), sobolev())
    scale = model.x_std[...] / model.y_std[...]

    def sample_loss(model, x, y, dydx):
        value, gradient = jax.value_and_grad(model)(x)
        return (((y - value) / model.y_std[...]) ** 2 + jnp.sum(((dydx - gradient) * scale) ** 2)) / 8

    step, start = training_step(model, optax.adam(1e-3), by_sample(sample_loss))
    step, arrays = jax.jit(step), [np.asarray(a) for a in samples[:3]]
    batches = [[a[i : i + BATCH] for a in arrays] for i in range(0, PATHS, BATCH)]
    jax.block_until_ready(step(start, batches[0]))

    def epoch(state):
        for batch in batches:
            state, _ = step(state, batch)
        return state

    usual = min(seconds(epoch, start) for _ in range(10)) / len(batches)
    return ours, "per-sample gradients, a call for each batch", usual / ours, "batch 512 at 6 x 128, after compile"


def lm_40():
    """The experiment of `make study`, from the problem that `make reproduce` leaves to its errors."""
    with jax.enable_x64(True), redirect_stdout(open(os.devnull, "w")):
        lab = Laboratory(load_problem(results_folder()), 42)
        ours = seconds(lambda: EXPERIMENTS["lm_40"](lab)(lab.problem.test.x))
    return ours, "", None, "one seed: oversized network, pruning, fine-tuning, compile included"


def lm_iterations():
    """200 iterations at 40 parameters and 8,192 residuals, by optimistix and by MINPACK on the same Jacobian."""
    with jax.enable_x64(True), redirect_stdout(open(os.devnull, "w")):
        lab = Laboratory(load_problem(results_folder()), 42)
        targets = lab.reference_targets(lab.problem.reference.paths(lab.key(72), 1024)[0])
        model = Surrogate(7, [3, 3], rngs=nnx.Rngs(42)).normalise(targets.x, targets.y)
        ours = seconds(lambda: levenberg_marquardt(model, targets, sobolev(), iterations=200)[1])
        residuals, start, _ = residual_function(model, targets, sobolev())
        functions = jax.jit(residuals), jax.jit(jax.jacfwd(residuals))
        settings = {"method": "lm", "max_nfev": 200, "xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15}
        scipys = seconds(lambda: optimize.least_squares(functions[0], start, functions[1], **settings).x)
    return ours, "scipy's MINPACK", scipys / ours, "200 iterations, 40 parameters, 8,192 residuals, compile included"


def analysed(method):
    """One analysis of the trained oversized network over the whole box; `make reproduce` leaves it."""
    model, inputs = trained()
    points = jax.jit(lambda x: values_and_adjoints(model, x))
    enclosure = jax.jit(METHODS[method](lambda x: values_and_adjoints(model, x)))
    jax.block_until_ready((points(inputs.midpoint), enclosure(inputs)))
    ours = min(seconds(enclosure, inputs) for _ in range(50))
    point = min(seconds(points, inputs.midpoint) for _ in range(50))
    return ours, "the same at one point", point / ours, "values and adjoints of all nodes of 6 x 128, after compile"


def trained():
    model = load_stage(results_folder(), "oversized")[0]["paths_8192"].model
    return model, box(*(np.asarray(bound, np.float32) for bound in GaussianBasket.random(42).box))


def iasa_subdivided():
    """As notebook 03 does it; compilation is outside of the clock, as it is of the time that a user may set."""
    model, inputs = trained()
    return splitting(model, inputs, inside(model, inputs), boxes=2**16), "", None, "65,536 sub-boxes, after compile"


def splitting(model, inputs, reached, boxes):
    """Seconds in which a box becomes so many: all of the analysis but its first sub-box, for which it is compiled."""
    split, taken = Search.split, []

    def timed(search):
        start = time.perf_counter()
        new = split(search)
        taken.append(time.perf_counter() - start)
        return new

    with mock.patch.object(Search, "split", timed), redirect_stdout(open(os.devnull, "w")):
        analyse_subdivided(model, inputs, reached, boxes=boxes)
    return sum(taken)


def spots_in_blocks(run):
    """Seconds for price, deltas and gamma at 10^6 spots of the domain, in blocks that fit into a cache."""
    lower, upper = GaussianBasket.random(42).box
    spots = np.random.default_rng(42).uniform(lower, upper, (SPOTS, len(lower))).astype(np.float32)
    blocks = [spots[i : i + BLOCK] for i in range(0, SPOTS, BLOCK)]
    run(blocks[0]), run(blocks[-1])
    return min(seconds(lambda: [run(block) for block in blocks]) for _ in range(3))


def by_onnxruntime(stage):
    session = onnxruntime.InferenceSession(results_folder() / "models" / f"{stage}_paths_8192_float32.onnx")
    return lambda x: session.run(None, {"spots": x})


def by_jax(stage):
    graph, state = nnx.split(load_stage(results_folder(), stage)[0]["paths_8192"].model)

    @jax.jit
    def run(state, x):
        model = nnx.merge(graph, state)
        return *model.value_and_delta(x), model.gamma(x)

    return lambda x: run(state, x)


def exported(ours, other, against):
    ours, other = (spots_in_blocks(run(stage)) for run, stage in (ours, other))
    return ours, against, other / ours, EXPORTED


def exported_small_and_monte_carlo():
    """Against a price alone, from antithetic pairs of paths of each spot's own, as many as give the same RMSE."""
    problem = load_problem(results_folder())
    basket, test, run = problem.basket, problem.test, by_onnxruntime("sobolev_nn")
    error = rmse(test.value, run(np.asarray(test.x))[0])

    @jax.jit
    def labels(key, x):
        p = (basket.maturity - basket.exposure) ** 0.5 * jax.random.normal(key, (PAIRS, 7)) @ basket.factor.T
        y = problem.reference.label(jnp.broadcast_to(x, p.shape), p)
        return y.mean(), y.var()

    keys = jax.random.split(KEY, 64)
    drawn = [labels(*pair) for pair in zip(keys, test.x[:64], strict=True)]
    elapsed = min(seconds(lambda: [labels(*pair) for pair in zip(keys, test.x[:64], strict=True)]) for _ in range(3))
    means, variances = np.array(drawn).T
    assert rmse(test.value[:64], means) < 5 * np.sqrt(variances.mean() / PAIRS)
    needed = variances.mean() / error**2
    ours, theirs = spots_in_blocks(run), SPOTS * needed * elapsed / (64 * PAIRS)
    note = f"extrapolated: {needed:,.0f} pairs a spot give its RMSE of {error:.1e}; measured {PAIRS:,} at 64 spots"
    return ours, "Monte Carlo of the price alone", theirs / ours, note


def reproduce():
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        command = [sys.executable, "-m", "sobolev_utils.paper.reproduce", "--results", scratch]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start, "", None, "all notebooks, environment in place"


SMALL, LARGE = (by_onnxruntime, "sobolev_nn"), (by_onnxruntime, "oversized")
TASKS = {
    "train_oversized": train_oversized,
    "sobolev_step": sobolev_step,
    "sobolev_step_against_plain": sobolev_step_against_plain,
    "lm_40": lm_40,
    "lm_iterations": lm_iterations,
    "iasa_intervals": partial(analysed, "intervals"),
    "iasa_zonotopes": partial(analysed, "zonotopes"),
    "iasa_subdivided": iasa_subdivided,
    "exported_small": partial(exported, SMALL, LARGE, "the oversized network in onnxruntime"),
    "exported_small_in_jax": partial(exported, SMALL, (by_jax, "sobolev_nn"), "the same network in JAX"),
    "exported_oversized_in_jax": partial(exported, LARGE, (by_jax, "oversized"), "the same network in JAX"),
    "exported_small_and_monte_carlo": exported_small_and_monte_carlo,
    "reproduce": reproduce,
}


def measured(name):
    """The row of a task; runs in a process of its own, so that its peak memory is its own."""
    elapsed, against, ratio, note = TASKS[name]()
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    kilobytes = max(usage) / (1024 if sys.platform == "darwin" else 1)
    return name, float(f"{elapsed:.3g}"), round(kilobytes / 1024), against, ratio and round(ratio, 2), note


if __name__ == "__main__":
    rows = []
    for task in TASKS:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            rows.append(pool.submit(measured, task).result())
        print(*rows[-1], sep=", ", flush=True)
    table = pd.DataFrame(rows, columns=["task", "seconds", "peak_mb", "against", "ratio", "note"])
    print(*save_table(Path(results_folder()), "timings", table, formats=("csv",)))
