"""Which notebook waits for which, by what their heads say they read and write; and running them side by side."""

import os
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

from sobolev_utils.paper.execution import ReproductionError
from sobolev_utils.paper.fingerprints import cells

__all__ = ["declared", "run_together", "undeclared", "waits"]

AT_ONCE = min(3, os.cpu_count() or 1)  # notebooks; one that waits holds 0.3 GB


def declared(path: Path, part: str) -> list[str]:
    """The files, as `data/problem.npz`, that the head of a notebook names after **Reads** or **Writes**.

    Raises `ReproductionError` where it does not say what it reads: files, or nothing.
    """
    head = "".join(source for _, source, _ in cells(path)[:1])
    told = head.partition(f"**{part}**")[2].partition("**")[0]
    files = re.findall(r"`((?:data|tables|figures|models)/[^`]+)`", told)
    if part == "Reads" and not files and not told.strip().startswith("nothing"):
        raise ReproductionError(f"the head of {path.stem} names no file after **Reads**: add them, or say `nothing`")
    return files


def undeclared(path: Path, part: str, files: Iterable[str]) -> list[str]:
    """The artefacts and tables among `files`, by their path from the results, that the head omits after `part`.

    A table is named by any of its formats.
    """
    told = {os.path.splitext(file)[0] for file in declared(path, part)}
    return [file for file in files if file.startswith(("data/", "tables/")) and os.path.splitext(file)[0] not in told]


def waits(paths: Sequence[Path]) -> dict[Path, list[str]]:
    """For each notebook, those first that wait for the fewest, the stems of all that it waits for: the makers of what
    its head **Reads**, and theirs. A file that none of `paths` **Writes** holds none up.

    Raises `ReproductionError` where notebooks wait for one another, and as `declared` does.
    """
    made_by = {file: path.stem for path in paths for file in declared(path, "Writes")}
    direct = {path.stem: {made_by[file] for file in declared(path, "Reads") if file in made_by} for path in paths}
    found = {}
    while ready := [stem for stem in direct if stem not in found and direct[stem] <= found.keys()]:
        found |= {stem: direct[stem].union(*(found[other] for other in direct[stem])) for stem in ready}
    if stuck := [path.stem for path in paths if path.stem not in found]:
        raise ReproductionError(f"the heads of {', '.join(stuck)} make them wait for one another: see **Reads**")
    return {path: sorted(found[path.stem]) for path in sorted(paths, key=lambda path: len(found[path.stem]))}


def run_together(waits: Mapping[Path, Collection[str]], run: Callable) -> None:
    """Call `run(path, begin, hold)` for notebooks `AT_ONCE` at a time, those first that wait for the fewest.

    begin, hold: those of `run_notebook`; `hold` returns when all that a notebook waits for is done. Raises what the
    first to fail raises, or KeyboardInterrupt, when all others have been stopped.
    """
    runs, kills, stopped = {}, set(), threading.Event()

    def begin(kill: Callable[[], None]) -> None:
        kills.add(kill)
        if stopped.is_set():
            kill()

    def hold(needed: Sequence[Future]) -> None:
        for maker in needed:
            maker.result()
        if stopped.is_set():
            raise ReproductionError("stopped")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for path, stems in waits.items():
                needed = [runs[stem] for stem in stems]
                runs[path.stem] = pool.submit(run, path, begin, partial(hold, needed))
            done = wait(runs.values(), return_when=FIRST_EXCEPTION).done
            for future in runs.values():
                if future in done:
                    future.result()
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for kill in tuple(kills):
                kill()
            raise
