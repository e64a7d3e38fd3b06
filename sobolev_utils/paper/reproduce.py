"""The whole paper without a screen: each notebook for which something changed, when the data it reads are there.

python -m sobolev_utils.paper.reproduce [STEM ...] [-p NAME VALUE]... [--results FOLDER] [--keep-outputs] [--force]
    [--timeout SECONDS]
"""

import argparse
import ast
import logging
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from sobolev_utils.paper.artifacts import ArtifactError, results_folder
from sobolev_utils.paper.execution import (
    CELL_TIMEOUT,
    SAFE,
    ReproductionError,
    end_in_good_order,
    keep_outputs,
    read_parameters,
    run_notebook,
    tell,
)
from sobolev_utils.paper.files import remove_dead_parts
from sobolev_utils.paper.parameters import admitted
from sobolev_utils.paper.records import alone, known_before, reason_to_run, write_provenance, write_record
from sobolev_utils.paper.schedule import run_time, run_together, undeclared, waits

__all__ = ["as_run", "main", "parameter_value", "run_notebooks"]

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
NUMBERED = "[0-9][0-9]_*.ipynb"  # the notebooks in it


def as_run(paths: Sequence[Path], given: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """What each of `paths` runs with, by stem: its defaults, and those of the parameters `given` that it has.

    Raises `ReproductionError` for a parameter that no notebook has, has in another type, or that is not admissible.
    """
    defaults = {path.stem: read_parameters(path) for path in paths}
    known = sorted({name for own in defaults.values() for name in own} - {"results"})
    for name in given:
        if name == "results":
            raise ReproductionError("the results folder is chosen with --results, not with -p results")
        if name not in known:
            raise ReproductionError(f"no notebook has a parameter {name!r}; there are: {', '.join(known)}")
    has, before = {}, {}
    for stem, own in defaults.items():
        kinds = {name: type(default) for name, default in own.items() if name != "results"}
        try:
            has[stem] = admitted({name: given.get(name, own[name]) for name in kinds}, kinds, before)
        except ValueError as error:
            raise ReproductionError(f"{stem}: {error}") from None
        before |= has[stem]
    return has


def run_notebooks(
    paths: Sequence[Path],
    results: Path,
    has: Mapping[str, Mapping[str, object]],
    given: Collection[str] = (),
    *,
    force: bool = False,
    timeout: float = CELL_TIMEOUT,
) -> None:
    """Run those of `paths` for which something changed since their last run, or all by `force`.

    has: what each runs with, by stem; given: the names of parameters that are not left at their defaults. For one
    process at a time: see `alone`. Raises `ReproductionError` where one fails and, before any work, as `waits` does.
    """
    order = waits(paths)

    def run(path: Path) -> None:
        known = known_before(path, has[path.stem])
        why = reason_to_run(path, results, known) or "all are to run" * force
        tell(path.stem, f"runs: {why}" if why else "skipped, nothing changed")
        if not why:
            return
        chosen = {name: value for name, value in has[path.stem].items() if name in given}
        noted = run_notebook(path, results, chosen, timeout=timeout)
        if extra := undeclared(path, noted):
            raise ReproductionError(f"{path.stem}: its head does not name {', '.join(extra)}")
        write_record(path, results, {**known, **noted})

    for folder in {results, *(path.parent for path in paths)}:
        remove_dead_parts(folder)
    run_together(order, run, {path: run_time(path) for path in paths})


def main(arguments: Sequence[str] | None = None, *, notebooks: Path = NOTEBOOKS) -> int:
    """Run what the command line asks for; return 0, or 1 (130 if interrupted) after one line on stderr."""
    options = _options(arguments)
    # A fault is reported once, in that line; papermill would log it as well.
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    try:
        results = results_folder(options.results)
        every = {path.stem: path for path in sorted(notebooks.glob(NUMBERED))}
        if not every:
            raise ReproductionError(f"no notebook named like 01_name.ipynb in {notebooks}")
        if unknown := sorted(set(options.stems) - set(every)):
            raise ReproductionError(f"no notebook {', '.join(unknown)} in {notebooks}; there are: {', '.join(every)}")
        chosen = [path for stem, path in every.items() if stem in (options.stems or every)]
        has = as_run(chosen, {name: parameter_value(text) for name, text in options.parameters})
        with alone(results):
            given = [name for name, _ in options.parameters]
            run_notebooks(chosen, results, has, given, force=options.force, timeout=options.timeout)
            for path in chosen if options.keep_outputs else []:
                keep_outputs(path, results / "notebooks" / path.name)
            write_provenance(results, list(every.values()), has)
        print(f"the results are in {results}")
    except (ReproductionError, ArtifactError, OSError) as error:
        print(f"reproduce: {error}{f'; {SAFE}' if isinstance(error, OSError) else ''}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"reproduce: interrupted; {SAFE}", file=sys.stderr)
        return 130
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; leaves with exit code 2 and one line of usage where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m sobolev_utils.paper.reproduce", description="Run the notebooks of the paper, in order."
    )
    add = parser.add_argument
    add("stems", nargs="*", metavar="STEM", help="the notebooks to run (default: all)")
    add("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="a parameter, for every notebook that has it")  # fmt: skip
    add("--results", default="", metavar="FOLDER", help="where to write (default: results/)")
    add("--keep-outputs", action="store_true", help="put the outputs into the notebooks too")
    add("--force", action="store_true", help="run what has not changed, too")
    add("--timeout", type=float, default=CELL_TIMEOUT, metavar="SECONDS",
        help=f"how long a cell may take (default: {CELL_TIMEOUT})")  # fmt: skip
    options = parser.parse_intermixed_args(arguments)
    if options.keep_outputs and options.parameters:
        parser.error("--keep-outputs is for the default parameters: leave out -p")
    return options


def parameter_value(text: str) -> object:
    """A value from the command line: true, false, null, a Python literal, or else the text itself."""
    words = {"true": True, "false": False, "null": None}
    try:
        return words[text.lower()] if text.lower() in words else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


if __name__ == "__main__":
    end_in_good_order(main)
