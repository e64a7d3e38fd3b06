"""What made the last run of each notebook, a value by name for each reason to run it again; and a lock on results."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sobolev_utils.paper.artifacts import fingerprint
from sobolev_utils.paper.execution import INHERITED, ReproductionError
from sobolev_utils.paper.files import write_bytes
from sobolev_utils.paper.fingerprints import CODE, notebook_digest, surroundings

__all__ = ["alone", "asked", "last_run", "reason_to_run", "write_record"]

SOURCE = "its source"


def _path(path: Path, results: Path) -> Path:
    return results / "notebooks" / f"{path.stem}.json"


def last_run(path: Path, results: Path) -> dict[str, object]:
    """The record of a notebook's last run, empty where there is none, or a damaged one."""
    try:
        return dict(json.loads(_path(path, results).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def write_record(path: Path, results: Path, record: Mapping[str, object]) -> None:
    """Keep what a notebook has just been run with, and what it read and wrote."""
    write_bytes(_path(path, results), json.dumps(record, indent=1).encode())


def asked(path: Path, parameters: Mapping[str, object]) -> dict[str, object]:
    """The part of a record that is known before a run, and has to be taken then."""
    return {SOURCE: notebook_digest(path), **json.loads(json.dumps(parameters)), **surroundings()}


def reason_to_run(results: Path, was: Mapping[str, object], asked: Mapping[str, object]) -> str:
    """Why a notebook has to run, or "" where all that made its last run, and all that this left, is as it was."""
    if not was:
        return "no record of a run"
    now = {name: CODE.get(name) or fingerprint(results / name) for name in was.keys() - asked.keys()} | dict(asked)
    for name in [*asked, *was]:
        if now[name] != (before := was.get(name)):
            return f"{name} changed" if "/" in name or name == SOURCE else f"{name} = {now[name]}, was {before}"
    return ""


@contextmanager
def alone(results: Path) -> Iterator[None]:
    """Hold `results` for this process, and if it is killed for its kernels until the last is gone.

    Raises `ReproductionError` at once where another holds it.
    """
    lock = results / "data" / ".lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(lock, os.O_RDWR | os.O_CREAT, 0o666), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder, remedy = file.read().strip() or "unknown", "wait for it, or name another folder with --results"
            busy = f"process {holder} or a kernel of it is at work in {results}: {remedy}"
            raise ReproductionError(busy) from None
        os.pwrite(file.fileno(), f"{os.getpid():<20}".encode(), 0)  # at once, over the last one's
        INHERITED.add(file.fileno())
        try:
            yield
        finally:
            INHERITED.remove(file.fileno())
            fcntl.flock(file, fcntl.LOCK_UN)  # for kernels that are about to end, too
