"""Tasks of a study on Dask, on this machine or on a cluster; rows are written to a file as soon as a task is done."""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dask
import pandas as pd
from distributed import Client, LocalCluster, as_completed

from sobolev_utils.paper.artifacts import ArtifactError
from sobolev_utils.paper.files import write_bytes
from sobolev_utils.paper.fingerprints import CODE, code_in_use, versions

__all__ = ["cluster", "gather"]

Task = Callable[[], pd.DataFrame]
# one thread for each worker: XLA splits matrix products, and so rounds them, by the number of threads
ENVIRONMENT = {"NPROC": "1", "OPENBLAS_NUM_THREADS": "1"}
# Dask's profiler and its early return of memory would make enclosures take half as long again
QUICKLY = {"distributed.worker.profile.enabled": False, "distributed.nanny.pre-spawn-environ": ENVIRONMENT}
PATIENCE = "30s"  # for a scheduler to answer


@contextmanager
def cluster(address: str = "", workers: int | None = None) -> Iterator[Client]:
    """A client of the scheduler at `address`, or of workers on this machine alone, one for each core by default.

    Prints where the dashboard is. Workers of a cluster compute the same digits if started with ENVIRONMENT. Raises
    OSError where no scheduler answers.
    """
    with ExitStack() as stack:
        if not address:  # a folder of its own takes what killed workers leave
            scratch = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            own = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "local_directory": scratch}
            own |= {"env": {"TMPDIR": scratch}, "silence_logs": logging.CRITICAL}
            stack.enter_context(dask.config.set(QUICKLY))
            address = stack.enter_context(LocalCluster(n_workers=workers, threads_per_worker=1, **own))
        client = stack.enter_context(Client(address, timeout=PATIENCE))
        print(f"the dashboard is at {client.dashboard_link}", flush=True)
        yield client


def gather(work: Path, tasks: Mapping[str, Task], client: Client, made_with: Mapping[str, object]) -> pd.DataFrame:
    """The rows of all tasks, in their order, by the workers of `client`; written to `work`, a file for each task.

    Files of an interrupted run, found there, are taken over. A task whose worker is killed is done by another. Raises
    `distributed.KilledWorker` where three were killed; `ArtifactError` where files found cannot be read or were made
    with other code, versions or parameters `made_with`; RuntimeError where a worker runs other code than this
    process; and what a task raises.
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
    """Do a task on a worker. Raises RuntimeError unless its package is `code`."""
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
