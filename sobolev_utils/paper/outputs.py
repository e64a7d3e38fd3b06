"""What is left for people to read: tables, figures, and the tables of studies, which no notebook makes."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sobolev_utils.paper.artifacts import CHECKOUT, ArtifactError, fingerprint
from sobolev_utils.paper.files import note, write_bytes
from sobolev_utils.paper.fingerprints import sha256

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["read_study", "save_figure", "save_study", "save_table"]

# What makes each study. Beside them are kept their checksums, in the form of `sha256sum`, and what made them.
COMMANDS = {
    "r2_seeds": "make seeds",
    "pruning": "make study",
    "beyond": "make study",
    "step_cost": "make bench",
    "vjp_accuracy": "make bench",
}
CHECKSUMS, MADE_WITH = "SHA256SUMS", "studies.json"


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


def save_study(
    results: Path, name: str, frame: "pd.DataFrame", problem: Mapping[str, object], given: Mapping[str, object]
) -> Path:
    """Write the table of a study to `results/tables/<name>.csv`; beside it its checksum and what it was made with.

    problem: parameters of notebook 01; given: all, of any notebook, that were not left at their defaults.
    """
    (path,) = save_table(results, name, frame, formats=("csv",))
    made_with = _made_with(path.parent) | {name: {"problem": dict(problem), "given": dict(given)}}
    beside = path.with_name(MADE_WITH)
    write_bytes(beside, (json.dumps(made_with, indent=1, sort_keys=True) + "\n").encode())
    sums = _checksums(path.parent) | {file.name: sha256(file.read_bytes()) for file in (path, beside)}
    lines = (f"{digest}  {file}\n" for file, digest in sorted(sums.items()))
    write_bytes(path.with_name(CHECKSUMS), "".join(lines).encode())
    return path


def read_study(results: Path, name: str) -> "pd.DataFrame":
    """The table of a study, of these results or else the one committed with this checkout.

    Its `attrs["of"]` say in a line what it was made with, which may be other parameters than those of the results
    that show it. Raises `ArtifactError` where there is neither, or where its bytes and its checksum disagree.
    """
    import pandas as pd  # a third of a second that a reproduction with nothing to do can do without

    for folder in (Path(results), CHECKOUT / "results"):
        path = folder / "tables" / f"{name}.csv"
        digest = fingerprint(path)
        note(path, digest)
        if digest:
            break
    sums, beside = _checksums(path.parent), path.with_name(MADE_WITH)
    if digest and digest == sums.get(path.name) and fingerprint(beside) == sums.get(beside.name):
        frame = pd.read_csv(path)
        frame.attrs["of"] = _told(frame, **_made_with(path.parent)[name])
        return frame
    trouble = f"or {MADE_WITH} is not what {CHECKSUMS} beside it says" if digest else "is missing"
    files = " ".join(f"results/tables/{file}" for file in (path.name, MADE_WITH, CHECKSUMS))
    raise ArtifactError(f"{path} {trouble}: run `{COMMANDS[name]}`, or `git checkout {files}`")


def _told(frame: "pd.DataFrame", problem: Mapping[str, object], given: Mapping[str, object]) -> str:
    """What a study was made with, in a line: what tells one problem from another, what was given, and the seeds."""
    first = {"n_assets": "{} assets", "basket_seed": "basket {}"}
    names = dict.fromkeys([*first, "strike", "volatility", "maturity", *given])
    known = {**problem, **given}
    told = [
        first.get(name, f"{name} {{}}").format(f"{value:g}" if isinstance(value, float) else value)
        for name, value in ((name, known[name]) for name in names if name in known and name != "seed")
    ]
    if "seed" in frame:
        seeds = sorted({int(seed) for seed in frame.seed})
        told.append(f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}")
    return ", ".join(told)


def _made_with(folder: Path) -> dict[str, dict[str, object]]:
    """The parameters kept in `folder`, by study."""
    path = folder / MADE_WITH
    return json.loads(path.read_text()) if path.is_file() else {}


def _checksums(folder: Path) -> dict[str, str]:
    """The checksums kept in `folder`, by file."""
    path = folder / CHECKSUMS
    lines = path.read_text().splitlines() if path.is_file() else []
    return {file: digest for digest, _, file in (line.partition("  ") for line in lines)}


def _six_digits(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
