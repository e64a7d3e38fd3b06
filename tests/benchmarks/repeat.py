"""How far a reproduction repeats: results/tables/repeatability.csv, by `make bench`.

python tests/benchmarks/repeat.py [STEM ...]

Runs the notebooks (default: all) into folders of their own: on all cores, on all cores again and with no network, and
on one. The second and the third are compared with the first. result: of files, how many are the same to the byte; of
1 - R^2, the least and the largest ratio to the first run's, over both budgets and over values, deltas and gammas; at
last the seconds of a run for which nothing changed. Linux alone lets a process choose its cores, or have no network.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from sobolev_utils.paper.artifacts import results_folder
from sobolev_utils.paper.case_study import BUDGETS
from sobolev_utils.paper.outputs import save_table
from sobolev_utils.paper.stages import STAGES, load_stage

CORES = sorted(os.sched_getaffinity(0))
ALONE = ["unshare", "--map-root-user", "--net"]
RUNS = {
    f"on {len(CORES)} cores": ([], CORES),
    f"again on {len(CORES)} cores, no network": (ALONE, CORES),
    "on 1 core": ([], CORES[:1]),
}
FIRST, *OTHERS = RUNS


def reproduce(stems, results, around=(), cores=CORES):
    """The seconds that it takes."""
    command = [*around, sys.executable, "-m", "sobolev_utils.paper.reproduce", *stems, "--results", results]
    start = time.perf_counter()
    subprocess.run(command, check=True, preexec_fn=lambda: os.sched_setaffinity(0, cores))
    return time.perf_counter() - start


def written(results):
    """The bytes of each file, by its path in a group: an artefact alone, else figures, models or tables."""
    groups = {}
    for folder in ("data", "figures", "models", "tables"):
        for path in sorted((results / folder).glob("[!.]*")):
            group = f"data/{path.name}" if folder == "data" else folder
            groups.setdefault(group, {})[path.name] = path.read_bytes()
    return groups


def missed(results):
    """1 - R^2 of each stage that ran: (budgets, quantities)."""
    ran = [stage for stage in STAGES if (results / "data" / f"{stage}.npz").is_file()]
    return {stage: 1 - np.array([load_stage(results, stage)[0][budget].r2 for budget in BUDGETS]) for stage in ran}


def compare(first, other):
    """What was compared, and the result."""
    files, others = written(first), written(other)
    for group in sorted(files.keys() | others.keys()):
        ours, theirs = files.get(group, {}), others.get(group, {})
        names = ours.keys() | theirs.keys()
        yield group, f"{sum(ours.get(name) == theirs.get(name) for name in names)} of {len(names)} the same"
    errors = missed(first)
    for stage, again in missed(other).items():
        ratios = again / errors[stage]
        yield f"1 - R^2, {stage}", f"{ratios.min():.6g} to {ratios.max():.6g}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for run, how in RUNS.items():
            reproduce(sys.argv[1:], Path(scratch) / run, *how)
        idle = reproduce(sys.argv[1:], Path(scratch) / FIRST)
        rows = [(*row, run) for run in OTHERS for row in compare(Path(scratch) / FIRST, Path(scratch) / run)]
    rows += [("a run for which nothing changed", f"{idle:.1f} s", FIRST)]
    table = pd.DataFrame(rows, columns=["what", "result", "compared"])[["what", "compared", "result"]]
    print(table.to_string(index=False))
    print(*save_table(results_folder(), "repeatability", table, formats=("csv",)))
