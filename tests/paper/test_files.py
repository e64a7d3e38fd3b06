"""Files are written whole or not at all, and noted; what a dead process had begun is removed."""

import json
import os
import subprocess
import sys

import pytest

from sobolev_utils.paper.files import NOTES, note, remove_dead_parts, write_bytes
from sobolev_utils.paper.fingerprints import CODE, sha256


def files_under(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_writing_makes_the_folder_and_replaces_the_file(tmp_path):
    path = tmp_path / "a" / "b.txt"
    for data in (b"one", b"two"):
        assert write_bytes(path, data) == path and path.read_bytes() == data
    assert files_under(tmp_path) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step):
    path = write_bytes(tmp_path / "b.txt", b"old")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="no space"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert files_under(tmp_path) == [path]


def test_notes_tell_what_was_read_and_written_and_by_which_code(tmp_path, monkeypatch):
    kept = tmp_path / "notes.json"
    monkeypatch.setenv("SOBOLEV_NOTES", str(kept))
    note(tmp_path / "x" / ".." / "absent.csv", None)
    path = write_bytes(tmp_path / "b.txt", b"new")
    notes = json.loads(kept.read_text())
    assert notes[str(tmp_path / "absent.csv")] is None
    assert notes[str(path)] == sha256(b"new") == NOTES[str(path)]
    assert notes["sobolev_utils/paper/files.py"] == CODE["sobolev_utils/paper/files.py"]


def test_only_parts_of_the_dead_are_removed(tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    gone, living = tmp_path / f".a.npz.{int(dead.stdout)}.part", tmp_path / f".a.npz.{os.getpid()}.part"
    other = tmp_path / ".notes.part"
    for path in (gone, living, other):
        path.touch()
    remove_dead_parts(tmp_path)
    assert sorted(files_under(tmp_path)) == sorted([living, other])
