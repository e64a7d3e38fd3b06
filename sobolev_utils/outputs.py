"""What is left for people to read: tables, figures, and the tables of studies, which no notebook makes."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sobolev_utils.artifacts import CHECKOUT, ArtifactError, fingerprint
from sobolev_utils.files import note, write_bytes
from sobolev_utils.fingerprints import sha256

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["read_study", "save_figure", "save_study", "save_table"]

# What makes each study. Their checksums are kept beside them, in the form of `sha256sum`.
COMMANDS = {
    "r2_seeds": "make seeds",
    "pruning": "make study",
    "beyond": "make study",
    "step_cost": "make bench",
    "vjp_accuracy": "make bench",
}
CHECKSUMS = "SHA256SUMS"


def save_table(results: Path, name: str, frame: "pd.DataFrame", formats: Sequence[str] = ("csv", "md")) -> list[Path]:
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


def save_figure(results: Path, name: str, figure: "Figure") -> Path:
    """Write `figure` to `results/figures/<name>.png` at 150 dpi; same figure, same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return write_bytes(Path(results) / "figures" / f"{name}.png", buffer.getvalue())


def save_study(results: Path, name: str, frame: "pd.DataFrame") -> Path:
    """Write the table of a study to `results/tables/<name>.csv`, and its checksum beside it."""
    (path,) = save_table(results, name, frame, formats=("csv",))
    sums = _checksums(path.parent) | {path.name: sha256(path.read_bytes())}
    lines = (f"{digest}  {file}\n" for file, digest in sorted(sums.items()))
    write_bytes(path.with_name(CHECKSUMS), "".join(lines).encode())
    return path


def read_study(results: Path, name: str) -> "pd.DataFrame":
    """The table of a study, of these results or else the one committed with this checkout.

    Raises `ArtifactError` where there is neither, or where its bytes and its checksum disagree.
    """
    import pandas as pd  # a third of a second that a reproduction with nothing to do can do without

    for folder in (Path(results), CHECKOUT / "results"):
        path = folder / "tables" / f"{name}.csv"
        digest = fingerprint(path)
        note("reads", path, digest)
        if digest:
            break
    if digest and digest == _checksums(path.parent).get(path.name):
        return pd.read_csv(path)
    trouble = f"is not what {CHECKSUMS} beside it says" if digest else "is missing"
    remedy = f"run `{COMMANDS[name]}`, or `git checkout results/tables/{name}.csv results/tables/{CHECKSUMS}`"
    raise ArtifactError(f"{path} {trouble}: {remedy}")


def _checksums(folder: Path) -> dict[str, str]:
    """The checksums kept in `folder`, by file."""
    path = folder / CHECKSUMS
    lines = path.read_text().splitlines() if path.is_file() else []
    return {file: digest for digest, _, file in (line.partition("  ") for line in lines)}


def _six_digits(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
