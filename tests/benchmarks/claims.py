"""What each headline of the README rests on, and what it takes to make that again: results/tables/claims.csv.

python tests/benchmarks/claims.py [NAME ...]

Runs the commands of the claims named, as a user would, and takes down seconds of wall clock and peak_mb, the largest
sum over all processes at a time of what each holds in memory, pages that they share counted once. What was measured
of the others stays; without a name nothing is measured.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil

from sobolev_utils.paper.artifacts import results_folder
from sobolev_utils.paper.outputs import save_table

ROOT = Path(__file__).resolve().parents[2]
INTERVAL = 0.5  # seconds between two looks at the memory
# What is claimed, where it stands, and the command that makes it again.
CLAIMS = {
    "reproduce": (
        "R^2 of all stages, proven changes and errors, all figures and tables but those below, ONNX models",
        "tables/r2_table.md; tables/changes.csv; tables/certificate.csv; figures; models",
        "make reproduce FORCE=1",
    ),
    "seeds": ("the same table under ten seeds", "tables/r2_seeds.csv; figures/seed_spread.png", "make seeds"),
    "beyond": (
        "40 parameters: 1 - R^2 of values below 1e-10 from exact derivatives, below 1e-4 from 8,192 paths; ten seeds",
        "tables/beyond.csv; figures/beyond.png",
        "python -m sobolev_utils.studies.run beyond",
    ),
    "pruning": (
        "ways to prune compared on five networks under ten seeds",
        "tables/pruning.csv; figures/pruning_before.png; figures/pruning_after.png",
        "python -m sobolev_utils.studies.run pruning",
    ),
    "sweep": (
        "under other parameters the notebooks end well or are refused with a reason",
        "tables/sweep.csv",
        "make sweep",
    ),
    "verify": ("enclosures hold against ball arithmetic and samples", "make verify", "make verify"),
    "repeat": (
        "tables, figures and models repeat to the byte on one machine",
        "tables/repeatability.csv",
        "python tests/benchmarks/repeat.py",
    ),
    "faults": ("whatever ends a run, each file is whole", "tables/faults.csv", "make faults"),
    "timings": ("time and memory of each stage", "tables/timings.csv", "python tests/benchmarks/run.py"),
    "steps": (
        "time of a training step of first and second order, and accuracy at equal time",
        "tables/step_cost.csv; tables/vjp_accuracy.csv; figures/step_cost.png",
        "python tests/benchmarks/steps.py",
    ),
    "growth": (
        "time of an analysis over depth, width and inputs",
        "tables/iasa_cost.csv; figures/iasa_cost.png",
        "python tests/benchmarks/growth.py",
    ),
    "test": ("what the notebooks show is still true", "make test", "make test"),
    "install": ("the lock installs whatever has been published since", "make test-install", "make test-install"),
}


def held(process: psutil.Process) -> float:
    """Megabytes that a process holds, shared pages in proportion where the system tells; none once it has ended."""
    try:
        memory = process.memory_full_info()
        return getattr(memory, "pss", memory.rss) / 2**20
    except psutil.Error:
        return 0.0


def measured(command: str) -> tuple[float, float]:
    """Seconds and peak megabytes of a command and all that it starts. Raises CalledProcessError if it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # `python` is that of the environment
    start, peak = time.monotonic(), 0.0
    with subprocess.Popen(command, shell=True, cwd=ROOT, env=os.environ | {"PATH": path}) as run:
        whole = psutil.Process(run.pid)
        while run.poll() is None:
            try:
                tree = [whole, *whole.children(recursive=True)]
            except psutil.Error:
                tree = []
            peak = max(peak, sum(map(held, tree)))
            time.sleep(INTERVAL)
    if run.returncode:
        raise subprocess.CalledProcessError(run.returncode, command)
    return float(f"{time.monotonic() - start:.3g}"), float(f"{peak:.3g}")


def write(results: Path, measure: dict[str, tuple[float, float]]) -> Path:
    """The table, with what was measured now, or else earlier by the same command."""
    path = results / "tables" / "claims.csv"
    earlier = pd.read_csv(path).itertuples() if path.exists() else ()
    known = {row.command: (row.seconds, row.peak_mb) for row in earlier}
    known |= {CLAIMS[name][2]: cost for name, cost in measure.items()}
    rows = [(*claim, *known.get(claim[2], (None, None))) for claim in CLAIMS.values()]
    table = pd.DataFrame(rows, columns=["claim", "where", "command", "seconds", "peak_mb"])
    return save_table(results, "claims", table, formats=("csv",))[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what it takes to make each claim of the README again.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to measure: {', '.join(CLAIMS)}")
    names = parser.parse_args().names
    if unknown := set(names) - CLAIMS.keys():
        parser.error(f"no claim {', '.join(sorted(unknown))}; there are: {', '.join(CLAIMS)}")
    written = write(results_folder(), {})
    for name in names:
        written = write(results_folder(), {name: measured(CLAIMS[name][2])})
    print(written)
