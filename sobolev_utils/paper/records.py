"""Records of what made each notebook's last run and all results, with no date or host; and a lock on the results."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sobolev_utils.paper.artifacts import CHECKOUT, fingerprint
from sobolev_utils.paper.execution import INHERITED, ReproductionError
from sobolev_utils.paper.files import write_bytes
from sobolev_utils.paper.fingerprints import CODE, notebook_digest, surroundings, versions

__all__ = ["UNRECORDED", "alone", "known_before", "reason_to_run", "write_provenance", "write_record"]

SOURCE = "its source"
# Clock readings, which differ from run to run.
UNRECORDED = (
    "claims.csv", "timings.csv", "iasa_cost.csv", "iasa_cost.png", "faults.csv", "faults.md", "repeatability.csv",
    "certificate.csv",
)  # fmt: skip


def write_record(path: Path, results: Path, record: Mapping[str, object]) -> None:
    """Keep what a notebook has just been run with, what it read and wrote, and the checksum of its executed copy."""
    copy = f"notebooks/{path.name}"
    data = json.dumps({**record, copy: fingerprint(results / copy)}, indent=1).encode()
    write_bytes(results / "notebooks" / f"{path.stem}.json", data)


def known_before(path: Path, parameters: Mapping[str, object]) -> dict[str, object]:
    """The part of a record that is known before a run, and has to be taken then."""
    return {SOURCE: notebook_digest(path), **json.loads(json.dumps(parameters)), **surroundings()}


def reason_to_run(path: Path, results: Path, known: Mapping[str, object]) -> str:
    """Why a notebook has to run, or "" where all that made its last run, and all that it left, is unchanged."""
    try:
        was = dict(json.loads((results / "notebooks" / f"{path.stem}.json").read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        was = {}
    if not was:
        return "no record of a run"
    now = {name: CODE.get(name) or fingerprint(results / name) for name in was.keys() - known.keys()} | known
    for name in [*known, *was]:
        if now[name] != (before := was.get(name)):
            return f"{name} changed" if "/" in name or name == SOURCE else f"{name} = {now[name]}, was {before}"
    return ""


def write_provenance(
    results: Path, notebooks: Sequence[Path], parameters: Mapping[str, Mapping[str, object]]
) -> Path:
    """Write `<results>/provenance.json`: versions, parameters, and checksums of the sources and of the results.

    `parameters` maps the stem of each notebook just run to its parameters; those of the other `notebooks` stay as
    they are in the file. The same sources, parameters and results give the same bytes.
    """
    path, lock = results / "provenance.json", CHECKOUT / "requirements.lock"
    try:
        as_run = json.loads(path.read_text())["parameters"] | parameters
    except (OSError, ValueError, KeyError, TypeError):  # no record, or one that cannot be read
        as_run = dict(parameters)
    visible = [file for folder in ("tables", "figures", "models") for file in (results / folder).rglob("[!.]*")]
    recorded = [file for file in visible if file.is_file() and file.name not in UNRECORDED]
    digests = {f"notebooks/{notebook.name}": notebook_digest(notebook) for notebook in notebooks}
    record = {
        "versions": versions(),
        "parameters": {notebook.stem: as_run[notebook.stem] for notebook in notebooks if notebook.stem in as_run},
        "sources": CODE | digests | ({lock.name: fingerprint(lock)} if lock.is_file() else {}),
        "results": {file.relative_to(results).as_posix(): fingerprint(file) for file in recorded},
    }
    return write_bytes(path, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())


@contextmanager
def alone(results: Path) -> Iterator[None]:
    """Hold `results` for this process; if it is killed, its kernels hold them until the last has ended.

    Raises `ReproductionError` at once where another holds it.
    """
    path = results / "data" / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder, remedy = lock.read().strip() or "unknown", "wait for it, or name another folder with --results"
            busy = f"process {holder} or a kernel of it is at work in {results}: {remedy}"
            raise ReproductionError(busy) from None
        os.pwrite(lock.fileno(), f"{os.getpid():<20}".encode(), 0)  # one write, over the number of the last holder
        INHERITED.add(lock.fileno())
        try:
            yield
        finally:
            INHERITED.remove(lock.fileno())
            fcntl.flock(lock, fcntl.LOCK_UN)  # also for kernels that are still ending
