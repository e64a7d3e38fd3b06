"""Writing files whole or not at all; and notes of what a process has read and written."""

import json
import os
from pathlib import Path

from sobolev_utils.paper.fingerprints import code_in_use, sha256

__all__ = ["NOTES", "note", "remove_dead_parts", "write_bytes"]

# By absolute path: the fingerprint of what this process read or wrote last, None where there was no file.
NOTES: dict[str, str | None] = {}


def note(path: Path, digest: str | None) -> None:
    """Enter a file in `NOTES`, and write these and the code in use to the file $SOBOLEV_NOTES where that is set."""
    NOTES[os.path.abspath(path)] = digest
    if file := os.environ.get("SOBOLEV_NOTES"):
        Path(file).write_text(json.dumps(code_in_use() | NOTES))


def write_bytes(path: Path, data: bytes) -> Path:
    """Write `data` at `path` whole or not at all, making its folder; readers see the old file or the new."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    note(path, sha256(data))
    return path


def remove_dead_parts(folder: Path) -> None:
    """Remove the unfinished files of `write_bytes` in `folder` or below it whose process has ended."""
    for part in Path(folder).rglob(".*.part"):
        try:
            os.kill(int(part.name.split(".")[-2]), 0)
        except ProcessLookupError:
            part.unlink(missing_ok=True)
        except (ValueError, OSError):
            pass  # another file of that name, or one that is still being written
