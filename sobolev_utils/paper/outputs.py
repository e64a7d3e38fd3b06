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

# What makes each study.
COMMANDS = {
    "r2_seeds": "make seeds",
    "pruning": "make study",
    "beyond": "make study",
    "step_cost": "make bench",
    "vjp_accuracy": "make bench",
}
MADE_WITH = "studies.json"  # beside the tables: the parameters of each study, and a checksum of these and its table


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
    rendered = {f"{name}.{kind}": texts[kind]().encode() for kind in formats}
    return [write_bytes(Path(results) / "tables" / file, data) for file, data in rendered.items()]


def save_figure(results: Path, name: str, figure: "Figure") -> Path:
    """Write `figure` to `results/figures/<name>.png` at 150 dpi; same figure, same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return write_bytes(Path(results) / "figures" / f"{name}.png", buffer.getvalue())


def save_study(
    results: Path, name: str, frame: "pd.DataFrame", problem: Mapping[str, object], given: Mapping[str, object]
) -> Path:
    """Write the table of a study to `results/tables/<name>.csv`; in `studies.json` beside it what it was made with.

    problem: parameters of notebook 01; given: all, of any notebook, that were not left at their defaults.
    """
    (path,) = save_table(results, name, frame, formats=("csv",))
    made_with = {"problem": dict(problem), "given": dict(given)}
    kept = _kept(path.parent) | {name: {**made_with, "sha256": _checksum(path, made_with)}}
    write_bytes(path.with_name(MADE_WITH), (json.dumps(kept, indent=1, sort_keys=True) + "\n").encode())
    return path


def read_study(results: Path, name: str) -> "pd.DataFrame":
    """The table of a study, of these results or else the one committed with this checkout.

    Its `attrs["of"]` is one line of the parameters it was made with, which may differ from those of `results`. Raises
    `ArtifactError` where there is neither, or where it and its checksum disagree.
    """
    import pandas as pd  # takes a third of a second, which a reproduction with nothing to do can save

    for folder in (Path(results), CHECKOUT / "results"):
        path = folder / "tables" / f"{name}.csv"
        note(path, fingerprint(path))
        if path.is_file():
            break
    remedy = f"run `{COMMANDS[name]}`, or `git checkout results/tables/{name}.csv results/tables/{MADE_WITH}`"
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: {remedy}")
    made_with = _kept(path.parent).get(name, {})
    if made_with.pop("sha256", None) != _checksum(path, made_with):
        raise ArtifactError(f"{path} or its entry in {MADE_WITH} was altered (they disagree): {remedy}")
    frame = pd.read_csv(path)
    frame.attrs["of"] = _in_a_line(frame, **made_with)
    return frame


def _in_a_line(frame: "pd.DataFrame", problem: Mapping[str, object], given: Mapping[str, object]) -> str:
    """What a study was made with: the parameters that define the problem, those that were given, and the seeds."""
    labels = {"n_assets": "{} assets", "basket_seed": "basket {}"}
    names = dict.fromkeys([*labels, "strike", "volatility", "maturity", *given])
    known = {**problem, **given}
    parts = [
        labels.get(name, f"{name} {{}}").format(f"{value:g}" if isinstance(value, float) else value)
        for name, value in ((name, known[name]) for name in names if name in known and name != "seed")
    ]
    if "seed" in frame:
        first, last = int(frame.seed.min()), int(frame.seed.max())
        parts.append(f"seed {first}" if first == last else f"seeds {first} to {last}")
    return ", ".join(parts)


def _kept(folder: Path) -> dict[str, dict[str, object]]:
    """What is kept in `folder` beside the tables, by study. Raises `ArtifactError` where it cannot be read."""
    path = folder / MADE_WITH
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise ArtifactError(f"{path} cannot be read ({error}): `git checkout results/tables/{MADE_WITH}`") from None


def _checksum(path: Path, made_with: Mapping[str, object]) -> str:
    return sha256(path.read_bytes() + json.dumps(made_with, sort_keys=True).encode())


def _six_digits(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
