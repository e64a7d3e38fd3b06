"""All notebooks under a few dozen combinations of parameters: results/tables/sweep.csv, by `make sweep`.

python tests/benchmarks/sweep.py [STEM ...]

Each combination runs the notebooks (default: all) into a folder of its own, which is removed afterwards. It is to end
well, or, where it is not admissible, to be refused in one line before any work; the exit code is 1 where one does
neither, or the other of the two. Most are small, so one takes two to three minutes. The table holds no clock reading.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from sobolev_utils.paper.artifacts import results_folder
from sobolev_utils.paper.execution import read_parameters
from sobolev_utils.paper.outputs import save_table
from sobolev_utils.paper.reproduce import NOTEBOOKS, NUMBERED

COLUMNS = ["combination", "parameters", "outcome", "notebook", "reason"]
WELL, REFUSED, STOPPED = "ended well", "refused", "stopped"

SMALL = {
    "n_samples": 1024, "n_test": 512, "width": 16, "depth": 2, "keep": 4, "boxes": 256, "epochs": 5,
    "epochs_between": 5, "small_width": 4, "small_depth": 2, "iterations": 5, "n_truth": 8, "n_nets": 4,
}  # fmt: skip
ENDING_WELL = {
    "1 asset": {"n_assets": 1},
    "2 assets, tanh nodes": {"n_assets": 2, "activation": "tanh"},
    "12 assets, another basket and seed": {"n_assets": 12, "basket_seed": 5, "seed": 117},
    "50 assets, softplus nodes": {"n_assets": 50, "activation": "softplus"},
    "100 assets": {"n_assets": 100},
    "200 assets": {"n_assets": 200},
    "integer strike, narrow spread": {"strike": 1, "spread": 0.5},
    "strike near below, sigmoid nodes": {"strike": 0.9, "activation": "sigmoid"},
    "strike far below, relu nodes": {"strike": 0.5, "activation": "relu"},
    "strike far above, pseudo-random points": {"strike": 1.6, "points": "pseudo_random"},
    "strike near, little volatility": {"strike": 1.02, "volatility": 0.05},
    "least volatility": {"volatility": 0.01, "strike": 1.0, "n_test": 4096},
    "much volatility": {"volatility": 1},
    "most volatility": {"volatility": 10},
    "short maturity, adam": {"maturity": 1.05, "optimiser": "adam", "learning_rate": 1e-3},
    "long maturity, wide spread and smoothing": {"maturity": 10, "spread": 4, "smoothing": 0.1},
    "early exposure": {"exposure": 0.25, "maturity": 0.5},
    "largest seeds": {"seed": 2**32 - 1, "basket_seed": 2**32 - 1},
    "few labels": {"n_samples": 32, "batch": 8, "n_test": 16},
    "labels of no power of two": {"n_samples": 1000, "batch": 100},
    "one batch, no decay": {"batch": 1024, "weight_decay": 0},
    "no smoothing to speak of": {"smoothing": 1e-6},
    "one node a layer": {"width": 1, "keep": 1, "small_width": 1},
    "one layer, adam": {"depth": 1, "small_depth": 1, "optimiser": "adam"},
    "deep": {"depth": 10, "small_depth": 10},
    "wide": {"width": 256, "keep": 32},
    "keep all, no weight on derivatives": {"keep": 16, "sobolev_weight": 0, "curvature_weight": 0},
    "keep one, much weight on derivatives": {"keep": 1, "sobolev_weight": 100, "curvature_weight": 100},
    "one epoch, one iteration, one box": {"epochs": 1, "epochs_between": 1, "iterations": 1, "boxes": 1},
    "largest rate": {"learning_rate": 0.1},
    "another model": {
        "lower": [0.5, 0.2, 0, -0.5], "upper": [2, 0.5, 1, 0.5], "reversion": 0, "n_steps": 5, "floor": 0.01,
    },
    "several at once": {"n_assets": 2, "strike": 1, "points": "pseudo_random", "activation": "tanh", "seed": 3},
}  # fmt: skip
WHOLE = {
    "12 assets, another basket and seed, as they are": {"n_assets": 12, "basket_seed": 5, "seed": 117},
    "100 assets, as they are": {"n_assets": 100},
}
INADMISSIBLE = {
    "no depth": {"depth": 0},
    "no assets": {"n_assets": 0},
    "too many assets": {"n_assets": 20_000},
    "no epochs": {"epochs": 0},
    "negative seed": {"seed": -1},
    "half a node": {"width": 0.5},
    "a flag for a count": {"keep": "true"},
    "text for a number": {"strike": "high"},
    "negative strike": {"strike": -1.0},
    "infinite strike": {"strike": "1e999"},
    "no volatility": {"volatility": 0.0},
    "no rate": {"learning_rate": 0},
    "negative weight": {"sobolev_weight": -1},
    "unknown points": {"points": "halton"},
    "unknown activation": {"activation": "gelu"},
    "unknown optimiser": {"optimiser": "sgd"},
    "unknown stage": {"stage": "large"},
    "unknown name": {"strikes": 1.1},
    "strike out of reach": {"strike": 0.5, "volatility": 0.05},
    "batch that divides no epoch": {"batch": 100},
    "keep more than there are": {"keep": 17},
    "maturity before exposure": {"maturity": 0.5},
    "box upside down": {"lower": [1.5, 0.1, 0.1, -0.9]},
    "box of three": {"lower": [0.7, 0.1, 0.1]},
}


def combinations() -> Iterator[tuple[str, dict[str, object], str]]:
    """Name, parameters, and the outcome that it is to have."""
    yield from ((name, {**SMALL, **given}, WELL) for name, given in ENDING_WELL.items())
    yield from ((name, given, WELL) for name, given in WHOLE.items())
    yield from ((name, {**SMALL, **given}, REFUSED) for name, given in INADMISSIBLE.items())


def outcome(stems: Sequence[str], parameters: Mapping[str, object]) -> tuple[str, str, str]:
    """How a run of the notebooks ends; of one that does not end well, the notebook and the reason, too."""
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch) / "results"
        command = [sys.executable, "-m", "sobolev_utils.paper.reproduce", *stems, "--results", results]
        command += [text for name, value in parameters.items() for text in ("-p", name, str(value))]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        worked = results.exists()
    if not run.returncode:
        return WELL, "", ""
    lines = run.stderr.strip().replace(scratch, "").splitlines() or ["nothing said"]
    last = lines[-1].removeprefix("reproduce: ")
    stem = next((path.stem for path in NOTEBOOKS.glob(NUMBERED) if last.startswith(path.stem)), "")
    refused = run.returncode == 1 and len(lines) == 1 and not worked
    return REFUSED if refused else STOPPED, stem, last.removeprefix(stem).lstrip(":, ")


def sweep(stems: Sequence[str], chosen: Sequence[tuple[str, dict[str, object], str]]) -> pd.DataFrame:
    """A row for each of the combinations `chosen`: one at once for two cores, or of a single notebook for each."""
    paths = [path for path in NOTEBOOKS.glob(NUMBERED) if not stems or path.stem in stems]
    known = {name for path in paths for name in read_parameters(path)}

    def row(combination: tuple[str, dict[str, object], str]) -> list[str]:
        name, parameters, expected = combination
        given = {key: value for key, value in parameters.items() if key in known or key not in SMALL}
        start = time.perf_counter()
        found = outcome(stems, given)
        trouble = "" if found[0] == expected else f", and not {expected}: {': '.join(found[1:])}"
        print(f"{name}: {found[0]}{trouble} ({time.perf_counter() - start:.0f} s)", flush=True)
        changed = " ".join(f"{key}={value}" for key, value in parameters.items() if SMALL.get(key) != value)
        return [name, changed, *found]

    with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)) // min(len(paths), 2))) as pool:
        return pd.DataFrame(pool.map(row, chosen), columns=COLUMNS)


if __name__ == "__main__":
    every = list(combinations())
    with tempfile.TemporaryDirectory() as programs:  # compiled once for all combinations
        os.environ |= {"JAX_COMPILATION_CACHE_DIR": programs, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        table = sweep(sys.argv[1:], every)
    print(save_table(Path(results_folder()), "sweep", table, formats=("csv",))[0])
    sys.exit(list(table.outcome) != [expected for _, _, expected in every])
