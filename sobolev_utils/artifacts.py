"""What one notebook hands to the next, and how results are written: safe formats, checksums, never half."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "MADE_BY",
    "ArtifactError",
    "load",
    "read_study",
    "results_folder",
    "save",
    "save_figure",
    "save_table",
    "write_bytes",
]

MADE_BY = {
    "problem": "01_data_generation",
    "oversized": "02_oversized_model",
    "pruned": "03_iasa_pruning",
    "sobolev_nn": "04_sobolev_nn_targets",
    "sobolev_reference": "05_sobolev_reference_targets",
}

CHECKOUT = Path(__file__).resolve().parents[1]
HEADER = "__header__"


class ArtifactError(RuntimeError):
    """An artefact is missing, damaged, or made with other parameters than the reader expects."""


def results_folder(folder: str | Path = "") -> Path:
    """The absolute folder of all results: `folder`, else $SOBOLEV_RESULTS, else `results` in this checkout.

    Makes no folder. Raises `ArtifactError` where none is named and the package runs outside its checkout.
    """
    if named := folder or os.environ.get("SOBOLEV_RESULTS", ""):
        return Path(named).expanduser().resolve()
    if not (CHECKOUT / "pyproject.toml").is_file():
        raise ArtifactError(f"no checkout around {CHECKOUT}: name a results folder, or set SOBOLEV_RESULTS")
    return CHECKOUT / "results"


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
    return path


def save(results: Path, name: str, arrays: Mapping[str, np.ndarray], *, parameters: Mapping[str, object]) -> Path:
    """Write `arrays` and the `parameters` behind them to `results/data/<name>.npz`; same content, same bytes.

    Raises `ArtifactError` for a name that is not in `MADE_BY`, `TypeError` for an array of anything but
    numbers, booleans or text and for parameters that JSON cannot hold, `ValueError` for NaN among these.
    """
    notebook = _notebook(name)
    arrays = {key: np.asarray(value) for key, value in sorted(arrays.items())}
    for key, array in arrays.items():
        if array.dtype.kind not in "biufcU":
            raise TypeError(
                f"{name}: array {key!r} has dtype {array.dtype}; only numbers, booleans and text are saved"
            )
    header = {
        "name": name,
        "notebook": notebook,
        "parameters": _plain(parameters),
        "sha256": {key: _digest(array) for key, array in arrays.items()},
    }
    # Not numpy.savez: it takes no array named `file`, and leaves the members' dates to a default.
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for key, array in {HEADER: np.asarray(json.dumps(header, sort_keys=True)), **arrays}.items():
            with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return write_bytes(Path(results) / "data" / f"{name}.npz", buffer.getvalue())


def load(results: Path, name: str, /, **expected: object) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """The arrays and the parameters of `results/data/<name>.npz`, made with the `expected` parameters.

    Raises `ArtifactError`, which names the notebook to run, for a file missing, damaged or made otherwise.
    """
    path = Path(results) / "data" / f"{name}.npz"
    expected = _plain(expected)
    chosen = " ".join(f"-p {key} {value}" for key, value in expected.items() if not isinstance(value, dict))
    remedy = f"run notebooks/{_notebook(name)}.ipynb first" + (f" (with {chosen})" if chosen else "")
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: {remedy}")
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        header = json.loads(str(arrays.pop(HEADER)))
        found, digests = header["parameters"], header["sha256"]
    except Exception as error:  # a damaged archive may raise almost anything
        raise ArtifactError(f"{path} is truncated or altered ({error}): {remedy}") from error
    if {key: _digest(array) for key, array in arrays.items()} != digests:
        raise ArtifactError(f"{path} is altered (arrays and checksums disagree): {remedy}")
    flat = _flat(found)
    for key, value in _flat(expected).items():
        if key not in flat or flat[key] != value:
            held = f"{key} = {flat[key]!r}" if key in flat else f"no parameter {key}"
            raise ArtifactError(f"{path} holds {held}, expected {key} = {value!r}: {remedy}")
    return arrays, found


def save_table(results: Path, name: str, frame: pd.DataFrame, formats: Sequence[str] = ("csv", "md")) -> list[Path]:
    """Write `frame` to `results/tables/<name>.<format>`: csv (12 digits), md and tex (6), no index.

    Raises `ValueError` for any other format, before anything is written.
    """
    texts = {
        "csv": lambda: frame.to_csv(index=False, lineterminator="\n", float_format="%.12g"),
        "md": lambda: frame.map(_six_digits).to_markdown(index=False, disable_numparse=True) + "\n",
        "tex": lambda: frame.to_latex(index=False, float_format="%.6g", escape=True),
    }
    if unknown := [kind for kind in formats if kind not in texts]:
        raise ValueError(f"table {name}: formats {unknown} received, expected some of {list(texts)}")
    rendered = {kind: texts[kind]().encode() for kind in formats}
    tables = Path(results) / "tables"
    return [write_bytes(tables / f"{name}.{kind}", data) for kind, data in rendered.items()]


# Tables that no notebook makes, and what does.
STUDIES = {
    "r2_seeds": "make seeds",
    "pruning": "make study",
    "beyond": "make study",
    "step_cost": "make bench",
    "vjp_accuracy": "make bench",
}


def read_study(results: Path, name: str) -> pd.DataFrame:
    """A table that no notebook makes, of these results or else the one committed with this checkout.

    Raises `ArtifactError` where there is neither.
    """
    for folder in (Path(results), CHECKOUT / "results"):
        if (path := folder / "tables" / f"{name}.csv").is_file():
            return pd.read_csv(path)
    raise ArtifactError(f"{path} is missing: run `{STUDIES[name]}`, or `git checkout results/tables/{name}.csv`")


def save_figure(results: Path, name: str, figure: "Figure") -> Path:
    """Write `figure` to `results/figures/<name>.png` at 150 dpi; same figure, same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return write_bytes(Path(results) / "figures" / f"{name}.png", buffer.getvalue())


def _six_digits(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _notebook(name: str) -> str:
    """The stem of the notebook that makes artefact `name`."""
    if name not in MADE_BY:
        raise ArtifactError(f"unknown artefact {name!r}: expected one of {', '.join(MADE_BY)}")
    return MADE_BY[name]


def _plain(parameters: Mapping[str, object]) -> dict[str, object]:
    """`parameters` as JSON returns them, so that tuples and NumPy scalars compare equal to what was saved."""

    def scalar(value: object) -> object:
        if np.ndim(value) == 0 and hasattr(value, "item"):
            return value.item()
        raise TypeError(f"parameters hold {value!r}; only text, numbers, booleans, None and lists are saved")

    return json.loads(json.dumps(dict(parameters), allow_nan=False, default=scalar))


def _flat(parameters: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested parameters by dotted names."""
    flat = {}
    for key, value in parameters.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _digest(array: np.ndarray) -> str:
    """The SHA-256 of an array's dtype, shape and content."""
    return hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).hexdigest()
