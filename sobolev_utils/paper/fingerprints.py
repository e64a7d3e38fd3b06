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
    modules = {file: file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for file in CODE}
    used = (file for file, module in modules.items() if module in sys.modules or not file.endswith(".py"))
    return {file: CODE[file] for file in used}


def cells(notebook: Path) -> list[tuple[str, str, list[str]]]:
    """Kind, source and tags of each cell, without nbformat, which takes a second to import.

    Raises OSError, ValueError, KeyError or TypeError for a file that is no notebook.
    """
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [(cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in found]


def notebook_digest(notebook: Path, *, code_only: bool = False) -> str:
    """The SHA-256 of a notebook's cells and tags, or of its code alone; never of outputs."""
    story = cells(notebook)
    content = [source for kind, source, _ in story if kind == "code"] if code_only else story
    return sha256(json.dumps(content).encode())


@cache
def versions() -> Mapping[str, str]:
    """Of Python and of the packages that this one requires, by name."""
    names = [re.match(r"[\w.-]+", line).group() for line in requires("sobolev_utils") if "extra ==" not in line]
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def surroundings() -> dict[str, str]:
    """`versions`, the kind of machine, its cores, and the environment variables that JAX and XLA heed."""
    heeded = {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "XLA_"))}
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = {"system": f"{platform.system()} {platform.machine()}", "the number of usable cores": str(usable)}
    return {**versions(), **machine, **heeded}
