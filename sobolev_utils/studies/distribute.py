"""Tasks of a study on Dask: on this machine's cores or on a cluster, each kept as soon as it is done."""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from distributed import Client, LocalCluster, as_completed

from sobolev_utils.paper.artifacts import ArtifactError
from sobolev_utils.paper.files import write_bytes
from sobolev_utils.paper.fingerprints import CODE, code_in_use, versions

__all__ = ["Task", "cluster", "gather"]

Task = Callable[[], pd.DataFrame]
# XLA splits matrix products by the number of threads, and so rounds otherwise with another: one for each worker
ENVIRONMENT = {"NPROC": "1"}
PATIENCE = "30s"  # for a scheduler to answer


@contextmanager
def cluster(address: str = "", workers: int | None = None) -> Iterator[Client]:
    """A client of the scheduler at `address`, or of workers on this machine alone, one for each core by default.

    Prints where the dashboard is. Workers of a cluster give the digits of those here where they are started with
    ENVIRONMENT. Raises OSError where no scheduler answers.
    """
    if address:
        with Client(address, timeout=PATIENCE) as client:
            print(f"the dashboard is at {client.dashboard_link}", flush=True)
            yield client
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:  # what a worker leaves that is killed
        here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "local_directory": scratch}
        how = {"threads_per_worker": 1, "env": ENVIRONMENT | {"TMPDIR": scratch}, "silence_logs": logging.CRITICAL}
        with LocalCluster(n_workers=workers or cores, **here, **how) as local, Client(local) as client:
            print(f"the dashboard is at {client.dashboard_link}", flush=True)
            yield client


def gather(work: Path, tasks: Mapping[str, Task], client: Client, made_with: Mapping[str, object]) -> pd.DataFrame:
    """The rows of all tasks, in their order, by the workers of `client`; kept in `work`, a file for each task.

    Tasks of an interrupted run, found there, are not done again. One whose worker is killed is done by another;
    where three have been, the study ends with `distributed.KilledWorker`. Raises `ArtifactError` where what is found
    cannot be read or was made by other code, versions or parameters, `made_with`; what a task raises; and, where a
    worker runs other code than this process, RuntimeError.
    """
    _check_made_by(work, made_with)
    kept = {name: work / f"{name}.csv" for name in tasks}
    waiting = [name for name in tasks if not kept[name].exists()]
    futures = {client.submit(_run, tasks[name], CODE, pure=False): name for name in waiting}
    try:
        for future, rows in as_completed(futures, with_results=True):
            write_bytes(kept[futures[future]], rows.to_csv(index=False).encode())
            done = sum(path.exists() for path in kept.values())
            print(f"{futures[future]} done, {done} of {len(tasks)}", flush=True)
    finally:
        client.cancel(list(futures))
    return pd.concat([pd.read_csv(path) for path in kept.values()], ignore_index=True)


def _run(task: Task, code: Mapping[str, str]) -> pd.DataFrame:
    """A task, on a worker whose package is `code`, too."""
    if others := sorted(file for file, _ in code.items() ^ CODE.items()):
        raise RuntimeError(f"a worker has another {others[0]}: start it from the same checkout")
    return task()


def _check_made_by(work: Path, made_with: Mapping[str, object]) -> None:
    made_by, anew = work / "made_by.json", "remove it, and begin anew"
    if not made_by.exists():
        write_bytes(made_by, json.dumps({**code_in_use(), **versions(), **made_with}).encode())
        return
    try:
        was, now = json.loads(made_by.read_text()), {**CODE, **versions(), **json.loads(json.dumps(made_with))}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"rows of an interrupted run in {work} cannot be read ({error}): {anew}") from error
    if others := [what for what in was if now.get(what) != was[what]]:
        raise ArtifactError(f"rows of an interrupted run in {work} were made with another {others[0]}: {anew}")
