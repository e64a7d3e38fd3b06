"""Which notebook waits for which, by the files that their heads name; and running them side by side."""

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from sobolev_utils.paper.execution import KERNELS, ReproductionError
from sobolev_utils.paper.fingerprints import cells

__all__ = ["declared", "run_time", "run_together", "undeclared", "waits"]

AT_ONCE = min(2, os.cpu_count() or 1)  # notebooks


def _head(path: Path, part: str) -> str:
    """The text after **part** in the first cell of a notebook, up to the next bold word."""
    head = "".join(source for _, source, _ in cells(path)[:1])
    return head.partition(f"**{part}**")[2].partition("**")[0]


def declared(path: Path, part: str) -> list[str]:
    """The files, as `data/problem.npz`, that the head of a notebook names after **Reads** or **Writes**.

    Raises `ReproductionError` where it names neither files nor `nothing` after **Reads**.
    """
    text = _head(path, part)
    files = re.findall(r"`((?:data|tables|figures|models)/[^`]+)`", text)
    if part == "Reads" and not files and not text.strip().startswith("nothing"):
        raise ReproductionError(f"the head of {path.stem} names no file after **Reads**: add them, or say `nothing`")
    return files


def run_time(path: Path) -> float:
    """The seconds in the head of a notebook, "**Run time** about 110 s"; 0 where it names none."""
    found = re.search(r"([\d.]+) s\b", _head(path, "Run time"))
    return float(found.group(1)) if found else 0.0


def undeclared(path: Path, files: Iterable[str]) -> list[str]:
    """The artefacts and tables among `files`, by their path from the results, that the head does not name.

    A table is named by any of its formats."""
    named = {os.path.splitext(file)[0] for part in ("Reads", "Writes") for file in declared(path, part)}
    used = [file for file in files if file.startswith(("data/", "tables/"))]
    return [file for file in used if os.path.splitext(file)[0] not in named]


def waits(paths: Sequence[Path]) -> dict[Path, list[Path]]:
    """For each notebook those that write what it **Reads**, in an order in which they can run.

    Raises `ReproductionError` where notebooks wait for one another, and as `declared` does.
    """
    made_by = {file: path for path in paths for file in declared(path, "Writes")}
    needs = {path: sorted({made_by[file] for file in declared(path, "Reads") if file in made_by}) for path in paths}
    try:
        return {path: needs[path] for path in TopologicalSorter(needs).static_order()}
    except CycleError as error:
        stuck = ", ".join(sorted({path.stem for path in error.args[1]}))
        raise ReproductionError(f"the heads of {stuck} make them wait for one another: see **Reads**") from None


def run_together(
    waits: Mapping[Path, Sequence[Path]], run: Callable[[Path], None], seconds: Mapping[Path, float]
) -> None:
    """Call `run(path)` for notebooks `AT_ONCE` at a time, each after those that it waits for.

    Of those that are ready, the one with the longest critical path of `seconds` starts first. Raises what the first
    to fail raises, or KeyboardInterrupt, when all others have been ended.
    """
    order, ready, running, longest = TopologicalSorter(waits), [], {}, {}
    for path in reversed(tuple(TopologicalSorter(waits).static_order())):
        longest[path] = seconds[path] + max((longest[other] for other in longest if path in waits[other]), default=0)
    order.prepare()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            while order.is_active():
                ready = sorted([*ready, *order.get_ready()], key=lambda path: -longest[path])
                while ready and len(running) < AT_ONCE:
                    path = ready.pop(0)
                    running[pool.submit(run, path)] = path
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    future.result()
                    order.done(running.pop(future))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            while any(future.running() for future in running):  # one of them may be about to start a kernel
                for kernel in tuple(KERNELS):
                    kernel.kill()
                time.sleep(0.05)
            raise
