"""SHA-256 of what makes a result: the package as it runs here, and notebooks without outputs; and the versions."""

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import requires, version
from pathlib import Path

__all__ = ["CODE", "cells", "code_in_use", "notebook_digest", "sha256", "surroundings", "versions"]


def sha256(data: bytes) -> str:
    """The SHA-256 of `data`, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


# Of each file of the package, read when this process begins: later edits are not what runs here.
PACKAGE = Path(__file__).resolve().parents[1]
CODE = {
    file.relative_to(PACKAGE.parent).as_posix(): sha256(file.read_bytes())
    for file in sorted(PACKAGE.rglob("*"))
    if file.suffix in (".py", ".mplstyle")
}


def code_in_use() -> dict[str, str]:
    """The entries of `CODE` for the modules that this process has imported, and for files that are no modules."""

    def module(file: str) -> str:
        return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    return {file: digest for file, digest in CODE.items() if not file.endswith(".py") or module(file) in sys.modules}


def cells(notebook: Path) -> list[tuple[str, str, list[str]]]:
    """Kind, source and tags of each cell, without nbformat, which takes a second to import.

    Raises OSError, ValueError, KeyError or TypeError for a file that is no notebook.
    """
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [(cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in found]


def notebook_digest(notebook: Path, *, code_only: bool = False) -> str:
    """The SHA-256 of a notebook's cells and tags, or of its code alone; never of outputs."""
    story = [cell for cell in cells(notebook) if cell[0] == "code" or not code_only]
    return sha256(json.dumps([source for _, source, _ in story] if code_only else story).encode())


@cache
def versions() -> Mapping[str, str]:
    """Of Python and of the packages that this one requires, by name."""
    required = [name for name in requires("sobolev_utils") if "extra ==" not in name]
    names = [re.match(r"[\w.-]+", name).group() for name in required]
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def surroundings() -> dict[str, str]:
    """`versions`, the kind of machine, its cores, and the environment variables that JAX and XLA heed."""
    heeded = {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "XLA_"))}
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = {"system": f"{platform.system()} {platform.machine()}", "the number of usable cores": str(usable)}
    return {**versions(), **machine, **heeded}
