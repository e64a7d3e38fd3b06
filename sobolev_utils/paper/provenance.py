"""What made the results: versions, parameters, sources, checksums, with no date, host or clock among them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from sobolev_utils.paper.artifacts import fingerprint
from sobolev_utils.paper.files import write_bytes
from sobolev_utils.paper.fingerprints import CODE, notebook_digest, versions

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
    lock = Path(__file__).resolve().parents[2] / "requirements.lock"
    try:
        as_run = json.loads(path.read_text())["parameters"] | parameters
    except (OSError, ValueError, KeyError, TypeError):  # no record, or one that cannot be read
        as_run = dict(parameters)
    record = {
        "versions": versions(),
        "parameters": {notebook.stem: as_run[notebook.stem] for notebook in notebooks if notebook.stem in as_run},
        "sources": {
            **CODE,
            **({lock.name: fingerprint(lock)} if lock.is_file() else {}),
            **{f"notebooks/{notebook.name}": notebook_digest(notebook) for notebook in notebooks},
        },
        "results": {
            file.relative_to(results).as_posix(): fingerprint(file)
            for folder in ("tables", "figures", "models")
            for file in sorted((Path(results) / folder).rglob("*"))
            if file.is_file() and not file.name.startswith(".") and file.name not in UNRECORDED
        },
    }
    return write_bytes(path, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())
