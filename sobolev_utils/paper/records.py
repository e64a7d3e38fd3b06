"""What each notebook was run with, read and wrote: kept beside its executed copy, so that a run can be skipped."""

import fcntl
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sobolev_utils.paper.artifacts import fingerprint
from sobolev_utils.paper.execution import INHERITED
from sobolev_utils.paper.files import write_bytes
from sobolev_utils.paper.fingerprints import CODE, notebook_digest, sha256, surroundings

__all__ = ["BusyError", "alone", "asked", "reason_to_run", "within", "write_record"]


class BusyError(RuntimeError):
    """Another process reproduces into the same folder."""


# What a record holds, and how a difference in it is told.
TOLD = {
    "notebook": "its {name} changed",
    "parameters": "{name} = {now!r}, was {was!r}",
    "surroundings": "{name} is {now}, was {was}",
    "code": "{name} changed",
    "reads": "{name} changed",
    "writes": "{name} is not as it left it",
}


def asked(path: Path, parameters: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """The parts of a record that are known before a run, and have to be taken then."""
    return {
        "notebook": {"source": notebook_digest(path)},
        "parameters": json.loads(json.dumps(parameters)),
        "surroundings": surroundings(),
    }


def reason_to_run(
    path: Path, results: Path, asked: Mapping[str, Mapping[str, object]], pending: Collection[str] = ()
) -> str:
    """Why a notebook has to run, or "" where all that made its last run, and all that this left, is as it was.

    What it read of the files `pending`, which may be made anew before its turn, is no reason yet.
    """
    try:
        was = json.loads(_record(results, path).read_text())
        now = {
            **asked,
            "code": {file: CODE.get(file) for file in was["code"]},
            "reads": {
                file: digest if file in pending else fingerprint(results / file)
                for file, digest in was["reads"].items()
            },
            "writes": {file: _digest(results / file) for file in was["writes"]},
        }
        for kind, told in TOLD.items():
            for name in sorted(now[kind].keys() | was[kind].keys()):
                values = {"now": now[kind].get(name), "was": was[kind].get(name)}
                if values["now"] != values["was"]:
                    return told.format(name=name, **values)
    except FileNotFoundError:
        return "no record of a run"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its record is damaged"
    return ""


def within(results: Path, notes: Mapping[str, Mapping[str, str | None]]) -> dict[str, dict[str, str | None]]:
    """What a kernel noted as `files.note` does, files by their path from `results`; its own are not among its reads.

    Without notes all code counts as used.
    """
    reads, writes = (
        {os.path.relpath(file, results): digest for file, digest in notes.get(kind, {}).items()}
        for kind in ("reads", "writes")
    )
    reads = {file: digest for file, digest in reads.items() if file not in writes}
    return {"code": dict(notes.get("code", CODE)), "reads": reads, "writes": writes}


def write_record(
    path: Path,
    results: Path,
    asked: Mapping[str, Mapping[str, object]],
    notes: Mapping[str, Mapping[str, str | None]],
) -> None:
    """Keep what was `asked`, what was noted `within` the results, and the executed copy's checksum."""
    copy = f"notebooks/{path.name}"
    record = {**asked, **notes, "writes": {**notes["writes"], copy: _digest(results / copy)}}
    write_bytes(_record(results, path), json.dumps(record, indent=1, sort_keys=True).encode())


@contextmanager
def alone(results: Path) -> Iterator[None]:
    """Hold `results` for this process, and if it is killed for its kernels until the last is gone.

    Raises `BusyError` at once where another holds it.
    """
    lock = results / "data" / ".lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(lock, os.O_RDWR | os.O_CREAT, 0o666), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read().strip() or "unknown"
            raise BusyError(
                f"process {holder} or a kernel of it is at work in {results}: wait for it, or name another folder"
                " with --results"
            ) from None
        os.pwrite(file.fileno(), f"{os.getpid():<20}".encode(), 0)  # at once, over the last one's
        INHERITED.add(file.fileno())
        try:
            yield
        finally:
            INHERITED.remove(file.fileno())
            fcntl.flock(file, fcntl.LOCK_UN)  # for kernels that are about to end, too


def _record(results: Path, path: Path) -> Path:
    return results / "notebooks" / f"{path.stem}.json"


def _digest(path: Path) -> str | None:
    return sha256(path.read_bytes()) if path.is_file() else None
