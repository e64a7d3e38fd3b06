"""Which notebook waits for which, by what their heads say they read and write; and running them side by side."""

import os
import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

from sobolev_utils.execution import ReproductionError
from sobolev_utils.fingerprints import cells

__all__ = ["declared", "run_together", "waits"]

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
    """Call `run(path, finish_makers, hold)` for notebooks `AT_ONCE` at a time, those first that wait for the fewest.

    `finish_makers` returns when the notebooks that one waits for are done, `hold` as well, see `run_notebook`. Raises
    what the first to fail raises, or KeyboardInterrupt, when all others have been stopped.
    """
    runs, kills, stopped = {}, set(), threading.Event()

    def one(path: Path, needed: Sequence[Future]) -> None:
        from jupyter_core.utils import ensure_event_loop

        def finish_makers() -> None:
            for maker in needed:
                maker.result()

        def hold(kill: Callable[[], None]) -> None:
            finish_makers()
            kills.add(kill)
            if stopped.is_set():
                raise ReproductionError("stopped")

        try:
            run(path, finish_makers, hold)
        finally:
            ensure_event_loop().close()  # of this thread, which papermill leaves open

    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for path, needed in waits.items():
                runs[path.stem] = pool.submit(one, path, [runs[stem] for stem in needed])
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
