"""What one notebook hands to the next: a file of arrays with a checksum and what made it, refused when outdated."""

import io
import itertools
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from sobolev_utils.paper.files import NOTES, note, write_bytes
from sobolev_utils.paper.fingerprints import CODE, code_in_use, notebook_digest, sha256, versions

__all__ = ["MADE_BY", "ArtifactError", "fingerprint", "load", "results_folder", "save"]

# In the order in which they are made, each from those before it.
MADE_BY = {
    "problem": "01_data_generation",
    "oversized": "02_oversized_model",
    "pruned": "03_iasa_pruning",
    "preserved": "04_reconstruction",
    "preserved_values": "04_reconstruction",
    "sobolev_nn": "05_sobolev_nn_targets",
    "preserved_nn": "05_sobolev_nn_targets",
    "sobolev_reference": "06_sobolev_reference_targets",
    "preserved_reference": "06_sobolev_reference_targets",
    "last_digits": "14_last_digits",
    "certificates": "16_certificate",
}

CHECKOUT = Path(__file__).resolve().parents[2]
HEADER = "__header__"
# A change in these files makes no other artefacts: they draw and check.
DRAWS = ("figures.py", "node_figures.py", "outputs.py", "parameters.py", "paper.mplstyle")
SEAL = 64  # the last bytes of an artefact: the SHA-256, in hexadecimal digits, of all before them


class ArtifactError(RuntimeError):
    """An artefact is missing, damaged, outdated, or made with other parameters than the reader expects."""


def results_folder(folder: str | Path = "") -> Path:
    """The absolute folder of all results, not made: `folder`, else $SOBOLEV_RESULTS, else `results` in this checkout.

    Raises `ArtifactError` where none is named and the package runs outside its checkout.
    """
    if named := folder or os.environ.get("SOBOLEV_RESULTS", ""):
        return Path(named).expanduser().resolve()
    if not (CHECKOUT / "pyproject.toml").is_file():
        raise ArtifactError(f"no checkout around {CHECKOUT}: name a results folder, or set SOBOLEV_RESULTS")
    return CHECKOUT / "results"


def save(results: Path, name: str, arrays: Mapping[str, np.ndarray], *, parameters: Mapping[str, object]) -> Path:
    """Write `arrays` and the `parameters` behind them to `results/data/<name>.npz`; same content, same bytes.

    The header also holds what made it: code, versions, and the earlier artefacts of `results` that this process has
    read or written. Raises `ArtifactError` for a name that is not in `MADE_BY`, `TypeError` for an array of anything
    but numbers, booleans or text and for parameters that JSON cannot hold, `ValueError` for NaN among these.
    """
    path, parameters = _path(results, name), _plain(parameters)
    arrays = {key: np.asarray(value) for key, value in sorted(arrays.items())}
    digests = {}
    for key, array in arrays.items():
        if array.dtype.kind not in "biufcU":
            wrong = f"array {key!r} has dtype {array.dtype}"
            raise TypeError(f"{name}: {wrong}; only numbers, booleans and text are saved")
        digests[key] = sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    before = itertools.takewhile(lambda other: other != name, MADE_BY)
    read = {f"data/{other}.npz": NOTES.get(os.path.abspath(_path(results, other))) for other in before}
    made_with = {file: digest for file, digest in read.items() if digest}
    computing = {file: digest for file, digest in code_in_use().items() if Path(file).name not in DRAWS}
    header = {
        "parameters": parameters,
        "fingerprint": sha256(json.dumps({"parameters": parameters, "arrays": digests}).encode()),
        "made_with": made_with | computing | CELLS[name] | versions(),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **{HEADER: np.asarray(json.dumps(header)), **arrays})
    write_bytes(path, buffer.getvalue() + sha256(buffer.getvalue()).encode())
    note(path, header["fingerprint"])
    return path


def load(results: Path, name: str, /, **expected: object) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """The arrays and the parameters of `results/data/<name>.npz`, made with the `expected` parameters.

    Raises `ArtifactError`, which names the notebook to run, for a file missing, damaged, made otherwise, or made
    from artefacts or by code that have changed since.
    """
    path, expected = _path(results, name), _plain(expected)
    chosen = " ".join(f"-p {key} {value}" for key, value in expected.items() if not isinstance(value, dict))
    remedy = f"run notebooks/{MADE_BY[name]}.ipynb first" + (f" (with {chosen})" if chosen else "")
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: {remedy}")
    header, arrays = _read(results, name)
    flat = _flat(header["parameters"])
    for key, value in _flat(expected).items():
        if key not in flat or flat[key] != value:
            held = f"{key} = {flat[key]!r}" if key in flat else f"no parameter {key}"
            raise ArtifactError(f"{path} holds {held}, expected {key} = {value!r}: {remedy}")
    _check_up_to_date(results, name, header)
    note(path, header["fingerprint"])
    return arrays, header["parameters"]


def fingerprint(path: Path) -> str | None:
    """The SHA-256 of a file, None where there is none; of an artefact, of its content and not of what made it."""
    if not path.is_file():
        return None
    if path.suffix == ".npz" and path.stem in MADE_BY:
        with suppress(ArtifactError):
            return _read(path.parents[1], path.stem)[0]["fingerprint"]
    return sha256(path.read_bytes())


def _read(results: Path, name: str) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """The header and the arrays of an artefact that is there. Raises `ArtifactError` for a single wrong byte."""
    path = _path(results, name)
    data = path.read_bytes()
    if sha256(data[:-SEAL]).encode() != data[-SEAL:]:
        again = f"run notebooks/{MADE_BY[name]}.ipynb again"
        raise ArtifactError(f"{path} is truncated or altered (its bytes and its checksum disagree): {again}")
    with np.load(io.BytesIO(data[:-SEAL]), allow_pickle=False) as archive:
        arrays = dict(archive)
    return json.loads(str(arrays.pop(HEADER))), arrays


def _check_up_to_date(results: Path, name: str, header: Mapping[str, Mapping[str, str]]) -> None:
    """Raise `ArtifactError` where what made an artefact has changed since, for the first notebook to run again.

    An artefact or a notebook that is missing counts as unchanged; a module or a package that is missing, as changed.
    """
    made_with = header.get("made_with", {"version of this package": ""})  # which an older version did not write
    now = {what: was for what, was in made_with.items() if what.startswith(("data/", "notebooks/"))}
    for what in [what for what in now if what.startswith("data/") and (Path(results) / what).is_file()]:
        before = Path(what).stem
        upstream, _ = _read(results, before)
        _check_up_to_date(results, before, upstream)
        now[what] = upstream["fingerprint"]
    now |= CODE | _cells(name) | versions()
    if changed := [what for what, was in made_with.items() if now.get(what) != was]:
        again = f"run notebooks/{MADE_BY[name]}.ipynb again, in a new kernel"
        raise ArtifactError(f"{_path(results, name)} is outdated, made with another {changed[0]}: {again}")


def _path(results: Path, name: str) -> Path:
    """Where artefact `name` is. Raises `ArtifactError` for a name that is not in `MADE_BY`."""
    if name not in MADE_BY:
        raise ArtifactError(f"unknown artefact {name!r}: expected one of {', '.join(MADE_BY)}")
    return Path(results) / "data" / f"{name}.npz"


def _cells(name: str) -> dict[str, str | None]:
    """The fingerprint of the notebook that makes `name`: {} where it is missing, None where it cannot be read."""
    notebook = f"notebooks/{MADE_BY[name]}.ipynb"
    try:
        return {notebook: notebook_digest(CHECKOUT / notebook, code_only=True)}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        return {notebook: None}


# Read when this process begins, like `CODE`: cells that are edited while it computes did not make its results.
CELLS = {name: _cells(name) for name in MADE_BY}


def _plain(parameters: Mapping[str, object]) -> dict[str, object]:
    """`parameters` as JSON returns them, so that tuples and NumPy scalars compare equal to what was saved."""

    def scalar(value: object) -> object:
        if np.ndim(value) == 0 and hasattr(value, "item"):
            return value.item()
        raise TypeError(f"parameters hold {value!r}; only text, numbers, booleans, None and lists are saved")

    return json.loads(json.dumps(dict(parameters), allow_nan=False, sort_keys=True, default=scalar))


def _flat(parameters: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested parameters by dotted names."""
    flat = {}
    for key, value in parameters.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
