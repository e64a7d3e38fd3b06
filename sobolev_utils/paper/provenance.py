"""What made the results: versions, parameters, sources, checksums, with no date, host or clock among them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from sobolev_utils.paper.files import write_bytes
from sobolev_utils.paper.fingerprints import CODE, notebook_digest, sha256, versions

__all__ = ["write_provenance"]

# Clock readings differ from run to run
UNRECORDED = (
    "claims.csv", "timings.csv", "iasa_cost.csv", "iasa_cost.png", "faults.csv", "faults.md", "repeatability.csv"
)  # fmt: skip


def write_provenance(
    results: Path, notebooks: Sequence[Path], parameters: Mapping[str, Mapping[str, object]]
) -> Path:
    """Write `<results>/provenance.json`; the same sources, parameters and results give the same bytes.

    `parameters` maps the stem of each notebook just run to its parameters as run. A notebook of `notebooks`
    that was not run keeps what the file already says of it, so that a partial run can be recorded too.
    """
    path = Path(results) / "provenance.json"
    stems = [notebook.stem for notebook in notebooks]
    as_run = {**_recorded_parameters(path), **parameters}
    record = {
        "versions": versions(),
        "parameters": {stem: as_run[stem] for stem in stems if stem in as_run},
        "sources": _source_digests(notebooks),
        "results": {
            file.relative_to(results).as_posix(): sha256(file.read_bytes())
            for folder in ("tables", "figures", "models")
            for file in sorted((Path(results) / folder).rglob("*"))
            if file.is_file() and not file.name.startswith(".") and file.name not in UNRECORDED
        },
    }
    return write_bytes(path, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())


def _recorded_parameters(path: Path) -> dict[str, object]:
    """The parameters in an earlier record; none where there is no record, or one that cannot be read."""
    try:
        return dict(json.loads(path.read_text())["parameters"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _source_digests(notebooks: Sequence[Path]) -> dict[str, str]:
    """The SHA-256 of the lock, of each module, and of each notebook: its cells and tags, not its outputs."""
    lock = Path(__file__).resolve().parents[2] / "requirements.lock"
    locked = {lock.name: sha256(lock.read_bytes())} if lock.is_file() else {}
    return CODE | locked | {f"notebooks/{path.name}": notebook_digest(path) for path in notebooks}
