"""The whole paper without a screen: each notebook as soon as its data are there, then the provenance.

python -m sobolev_utils.reproduce [STEM ...] [-p NAME VALUE]... [--results FOLDER] [--seeds N]
    [--keep-outputs]
"""

import argparse
import ast
import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

import nbformat
import pandas as pd
from jupyter_core.utils import ensure_event_loop

from sobolev_utils.artifacts import MADE_BY, STUDIES, ArtifactError, results_folder, save_table
from sobolev_utils.execution import ReproductionError, keep_outputs, read_parameters, run_notebook
from sobolev_utils.provenance import write_provenance

__all__ = ["main", "run_notebooks", "run_seeds"]

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
FIRST_SEED = 42
AT_ONCE = min(3, os.cpu_count() or 1)  # notebooks; one that waits holds 0.3 GB


def run_notebooks(
    paths: Sequence[Path], results: Path, parameters: Mapping[str, object]
) -> dict[str, dict[str, object]]:
    """Run `paths`, each with those of `parameters` that it has; return what each ran with, by stem.

    What they hand on is removed first: a notebook that does not wait for its data must not find those of an earlier
    run. Raises `ReproductionError` where one fails, and, before any work, for a parameter that no notebook has or has
    in another type.
    """
    defaults = {path: read_parameters(path) for path in paths}
    for name, value in parameters.items():
        if name == "results":
            raise ReproductionError("the results folder is chosen with --results, not with -p results")
        known = sorted({key for has in defaults.values() for key in has} - {"results"})
        if name not in known:
            raise ReproductionError(f"no notebook has a parameter {name!r}; there are: {', '.join(known)}")
        for path, has in defaults.items():
            _check_type(path.stem, name, value, has.get(name))
    given = {path: {name: parameters[name] for name in parameters if name in has} for path, has in defaults.items()}
    for name, stem in MADE_BY.items():
        if stem in {path.stem for path in paths}:
            (results / "data" / f"{name}.npz").unlink(missing_ok=True)
    _run_together(given, results)
    as_run = {path.stem: has | given[path] for path, has in defaults.items()}
    return {stem: {name: value for name, value in has.items() if name != "results"} for stem, has in as_run.items()}


def _run_together(given: Mapping[Path, Mapping[str, object]], results: Path) -> None:
    """Run notebooks `AT_ONCE` at a time, those first that wait for the fewest; after its imports each waits until its
    `makers` are done.

    Raises what the first to fail raises, or KeyboardInterrupt, when all others have been stopped.
    """
    runs, kills, stopped = {}, set(), threading.Event()

    def run(path: Path, needed: Sequence[Future]) -> None:
        def hold(kill: Callable[[], None]) -> None:
            for maker in needed:
                maker.result()
            kills.add(kill)
            if stopped.is_set():
                raise ReproductionError("stopped")

        try:
            run_notebook(path, results, given[path], hold=hold)
        finally:
            ensure_event_loop().close()  # of this thread, which papermill leaves open

    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            stems, waiting = [path.stem for path in given], {}
            for path in given:
                needed = makers(path, stems[: stems.index(path.stem)])
                waiting[path] = set(needed).union(*(waiting[other] for other in waiting if other.stem in needed))
            for path, needed in sorted(waiting.items(), key=lambda item: len(item[1])):
                runs[path.stem] = pool.submit(run, path, [runs[stem] for stem in needed])
            done = wait(runs.values(), return_when=FIRST_EXCEPTION).done
            for future in runs.values():
                if future in done:
                    future.result()
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for kill in tuple(kills):
                kill()
            raise


def makers(path: Path, before: Sequence[str]) -> list[str]:
    """Those notebooks of `before` that make the `data/<name>.npz` which the head of `path` **Reads**.

    All of them where it names nothing, or anything else but a table that no notebook makes: then nobody knows what it
    needs.
    """
    head = "".join(cell.source for cell in nbformat.read(path, as_version=4).cells[:1])
    named = re.findall("`(.*?)`", head.partition("**Reads**")[2].partition("**Writes**")[0])
    named = [name for name in named if name.removeprefix("tables/").removesuffix(".csv") not in STUDIES]
    stems = [MADE_BY.get(name.removeprefix("data/").removesuffix(".npz")) for name in named]
    return [stem for stem in before if stem in stems or not stems or None in stems]


def run_seeds(notebooks: Sequence[Path], results: Path, parameters: Mapping[str, object], seeds: int) -> Path:
    """Run the notebooks that make artefacts under `seeds` seeds, then write `tables/r2_seeds.csv`.

    A seed has a results folder of its own, `<results>/data/seed_<seed>`: removed when its R^2 is collected,
    left where a notebook fails.
    """
    from sobolev_utils.stages import collect_r2  # brings JAX: a second that `main` can do without

    chosen = [path for path in notebooks if path.stem in MADE_BY.values()]
    frames = []
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        folder = results / "data" / f"seed_{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        run_notebooks(chosen, folder, {**parameters, "seed": seed})
        frames.append(collect_r2(folder, seed))
        shutil.rmtree(folder)
        print(f"seed {seed} done, {len(frames)} of {seeds}", flush=True)
    table = pd.concat(frames)[["budget", "stage", "quantity", "seed", "r2"]]
    return save_table(results, "r2_seeds", table, formats=("csv",))[0]


def main(arguments: Sequence[str] | None = None, *, notebooks: Path = NOTEBOOKS) -> int:
    """Run what the command line asks for; return 0, or 1 (130 if interrupted) after one line on stderr."""
    options = _options(arguments)
    # A fault is told once, in that line; papermill would log it as well.
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    try:
        results = results_folder(options.results)
        every = sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))
        stems = [path.stem for path in every]
        if not every:
            raise ReproductionError(f"no notebook named like 01_name.ipynb in {notebooks}")
        if unknown := sorted(set(options.stems) - set(stems)):
            raise ReproductionError(f"no notebook {', '.join(unknown)} in {notebooks}; there are: {', '.join(stems)}")
        parameters = {name: _value(text) for name, text in options.parameters}
        if options.seeds:
            run_seeds(every, results, parameters, options.seeds)
            as_run = {}
        else:
            chosen = [path for path in every if not options.stems or path.stem in options.stems]
            as_run = run_notebooks(chosen, results, parameters)
        if options.keep_outputs:
            for path in every:
                if path.stem in as_run:
                    keep_outputs(path, results / "notebooks" / path.name)
        write_provenance(results, every, as_run)
    except (ReproductionError, ArtifactError, OSError) as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("reproduce: interrupted", file=sys.stderr)
        return 130
    print(f"the results are in {results}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; leaves with exit code 2 and one line of usage where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m sobolev_utils.reproduce", description="Run the notebooks of the paper, in order."
    )
    add = parser.add_argument
    add("stems", nargs="*", metavar="STEM", help="the notebooks to run (default: all)")
    add("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="a parameter, for every notebook that has it")  # fmt: skip
    add("--results", default="", metavar="FOLDER", help="where to write (default: results/)")
    add("--keep-outputs", action="store_true", help="put the outputs into the notebooks too")
    add("--seeds", type=int, default=0, metavar="N", help="only the R^2 table, under N seeds")
    options = parser.parse_intermixed_args(arguments)
    if options.seeds < 0:
        parser.error(f"--seeds must be positive, got {options.seeds}")
    if options.keep_outputs and (options.parameters or options.seeds):
        parser.error("--keep-outputs is for the default parameters: leave out -p and --seeds")
    if options.seeds and (options.stems or "seed" in dict(options.parameters)):
        parser.error("--seeds chooses notebooks and seeds itself: leave out STEM and -p seed")
    return options


def _value(text: str) -> object:
    """A value from the command line: true, false, null, a Python literal, or else the text itself."""
    words = {"true": True, "false": False, "null": None}
    try:
        return words[text.lower()] if text.lower() in words else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _check_type(stem: str, name: str, value: object, default: object) -> None:
    """Raise `ReproductionError` unless `value` has the type of `default` (None: any; float: int as well)."""
    allowed = {type(default), int} if isinstance(default, float) else {type(default)}
    if default is not None and type(value) not in allowed:
        raise ReproductionError(
            f"{stem}: {name} must be {type(default).__name__}, as is its default {default!r}; got {value!r}"
        )


if __name__ == "__main__":
    sys.exit(main())
