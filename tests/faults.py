"""Accidents, each tried on a reproduction, and what they leave behind: is any file lost, is anything still running?

python -m faults [NAME ...]     writes results/tables/faults.csv

Stand-ins for notebooks 01 and 02 write much and compute nothing, so that an accident at a random moment often meets a
write; `kill_paper` does it to these notebooks as they are, without a network.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from stubs import command, is_running, write_notebook

from sobolev_utils.paper.artifacts import MADE_BY, SEAL, ArtifactError, load, results_folder, save
from sobolev_utils.paper.fingerprints import sha256
from sobolev_utils.paper.outputs import save_table

NAMES = list(MADE_BY)[:2]  # of the artefacts of notebooks 01 and 02
FILES = 8  # that a stand-in writes beside its artefact
SECONDS = 30  # that a reproduction may take to end by itself after an accident
PIPES = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
KERNEL = """import os
from sobolev_utils.paper import artifacts, files
import numpy as np
folder = artifacts.results_folder()"""
WRITES = """version = {version}
for name in {reads}:
    assert artifacts.load(folder, name)[0]["x"][0] == version
for i in range({files}):
    path = files.write_bytes(folder / "tables" / f"{name}_{{i}}.csv", b"%09d\\n" % version * 100_000)
saved = artifacts.save(folder, {name!r}, {{"x": np.full(200_000, version)}}, parameters={{}})"""


@dataclass
class Outcome:
    """What `tries` of an accident led to.

    lost: files damaged, or results that the next run did not make again; kernels: that ran when it struck; orphans:
    those of them that outlived their driver by `SECONDS`; unsaid: ends, but for those by kill, with exit code 0 or
    without one line that tells; seconds: from the accident to the end of the last process, the longest.
    """

    fault: str
    tries: int = 0
    lost: int = 0
    kernels: int = 0
    orphans: int = 0
    unsaid: int = 0
    exit_code: str = ""
    seconds: float = 0.0
    told: str = ""


class World:
    """Stand-ins for notebooks 01 and 02, their results, and runs of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.notebooks, self.results = folder, folder / "notebooks", folder / "results"
        self.version = 0

    def change(self, accident: str = "") -> None:
        """The notebooks in their next version, with an accident in the second."""
        self.version += 1
        first, second = NAMES
        for name, before, sources in ((first, [], [KERNEL]), (second, [first], [KERNEL, accident])):
            writes = WRITES.format(version=self.version, reads=before, name=name, files=FILES)
            reads = ", ".join(f"`data/{other}.npz`" for other in before) or "nothing"
            made = ", ".join([f"`data/{name}.npz`", *(f"`tables/{name}_{i}.csv`" for i in range(FILES))])
            write_notebook(self.notebooks, MADE_BY[name], *sources, writes, parameters="", reads=reads, writes=made)

    def start(self, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(command(self.notebooks, self.results, *arguments), **PIPES)

    def await_work(self, driver: subprocess.Popen) -> None:
        """Return when a driver has taken the results folder for itself, or has ended."""
        lock = self.results / "data" / ".lock"
        while driver.poll() is None and not (lock.exists() and lock.read_text().strip() == str(driver.pid)):
            time.sleep(0.01)

    def damaged(self) -> list[str]:
        """The files that are neither the old one nor the new one, whole."""
        found = []
        for path in [path for path in self.results.rglob("*") if path.is_file() and not path.name.startswith(".")]:
            try:
                if path.suffix == ".npz":
                    load(self.results, path.stem)
                elif path.suffix == ".csv":
                    lines = path.read_text().splitlines()
                    assert len(lines) == 100_000 and len(set(lines)) == 1 and int(lines[0]) <= self.version
                else:
                    json.loads(path.read_text())
            except ArtifactError as error:
                found += [] if "outdated" in str(error) else [path.name]
            except (AssertionError, ValueError):
                found.append(path.name)
        return found

    def finish(self) -> list[str]:
        """Run to the end; what is missing, damaged or not of this version then."""
        with self.start() as driver:
            err = driver.communicate()[1]
        wrong = self.damaged() + ([err] if driver.returncode else [])
        for name in NAMES:
            if wrong or load(self.results, name)[0]["x"][0] != self.version:
                wrong.append(name)
        return wrong + [path.name for path in self.results.rglob("*.part")]


def children(pid: int) -> list[int]:
    """The processes that `pid` has started."""
    try:
        texts = [(task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []
    return [int(child) for text in texts for child in text.split()]


def kernels_end(kernels: Sequence[int], since: float, outcome: Outcome) -> None:
    """Wait for `kernels` to end, and count in those that do not."""
    while any(map(is_running, kernels)) and time.monotonic() - since < SECONDS:
        time.sleep(0.02)
    outcome.kernels += len(kernels)
    outcome.orphans += sum(map(is_running, kernels))
    outcome.seconds = max(outcome.seconds, time.monotonic() - since)


def ended(driver: subprocess.Popen, since: float, outcome: Outcome) -> None:
    """Wait for a driver's end, and take down its exit code and line."""
    err = driver.communicate(timeout=10 * SECONDS)[1].strip()
    codes = {*outcome.exit_code.split(), str(driver.returncode)}
    outcome.exit_code, outcome.told = " ".join(sorted(codes)), outcome.told if outcome.unsaid else err
    outcome.unsaid += driver.returncode != -signal.SIGKILL and (not driver.returncode or len(err.splitlines()) != 1)
    outcome.seconds = max(outcome.seconds, time.monotonic() - since)


def strike(
    outcome: Outcome,
    tries: int,
    length: float,
    start: Callable[[], subprocess.Popen],
    blow: Callable[[subprocess.Popen, list[int]], None],
    look: Callable[[], list[str]],
) -> None:
    """Deal what `start` starts a blow at a random moment of its `length` in seconds, `tries` times; then look.

    One that was through before the blow is no try; it is a loss if it did not end well.
    """
    moments = random.Random(0)
    while outcome.tries < tries:
        with start() as driver:
            time.sleep(moments.uniform(0, length))
            driver.send_signal(signal.SIGSTOP)  # or else a kernel could start unseen
            kernels, since = children(driver.pid), time.monotonic()
            if driver.poll() is not None:
                length *= 0.8  # the machine is less busy than it was
                outcome.lost += driver.returncode != 0
                continue
            blow(driver, kernels)
            driver.send_signal(signal.SIGCONT)
            if driver.wait(10 * SECONDS) == 0:  # nothing was left to do
                outcome.lost += len(look())
                continue
            ended(driver, since, outcome)
        kernels_end(kernels, since, outcome)
        outcome.tries += 1
        outcome.lost += len(look())


def strike_world(
    world: World, tries: int, *, fault: str, blow: Callable[[subprocess.Popen, list[int]], None]
) -> Outcome:
    """Strike runs of the stand-ins, in a new version each; every tenth time the next run must end well."""
    outcome = Outcome(fault)

    def start() -> subprocess.Popen:
        world.change()
        driver = world.start()
        world.await_work(driver)
        return driver

    def look() -> list[str]:
        return world.damaged() + (world.finish() if outcome.tries % 10 == 0 or outcome.tries == tries else [])

    with start() as driver:
        began = time.monotonic()
        ended(driver, began, Outcome(fault))
    strike(outcome, tries, time.monotonic() - began, start, blow, look)
    return outcome


def kill_all(driver: subprocess.Popen, kernels: list[int]) -> None:
    driver.kill()
    for kernel in kernels:
        if is_running(kernel):
            os.kill(kernel, signal.SIGKILL)


def from_within(world: World, tries: int, *, fault: str, accident: str, arguments: Sequence[str] = ()) -> Outcome:
    """Run notebooks with an accident in a cell of the second; then the next run, without it, must end well."""
    outcome = Outcome(fault)
    for _ in range(tries):
        world.change(accident)
        with world.start(*arguments) as driver:
            mark, kernels = world.notebooks / "accident", []
            while driver.poll() is None and not mark.exists():
                time.sleep(0.01)
                kernels = children(driver.pid) or kernels
            since = time.monotonic()
            ended(driver, since, outcome)
        mark.unlink()
        kernels_end(kernels, since, outcome)
        outcome.tries += 1
        outcome.lost += len(world.damaged())
        world.change()
        outcome.lost += len(world.finish())
    return outcome


def two_at_once(world: World, tries: int) -> Outcome:
    """Start two at the same moment: one must end well, the other say so and stop."""
    outcome = Outcome("two reproductions at once")
    for _ in range(tries):
        world.change()
        since = time.monotonic()
        with world.start() as one, world.start() as other:
            while one.poll() is None and other.poll() is None:
                time.sleep(0.01)
            second, first = (one, other) if one.poll() is not None else (other, one)
            ended(second, since, outcome)
            first.communicate()
        outcome.tries += 1
        outcome.lost += len(world.finish()) + (first.returncode != 0)
    return outcome


def flip(data: bytes, i: int) -> bytes:
    return data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :]


def damage(world: World, tries: int, *, fault: str, change: Callable[[bytes, int], bytes]) -> Outcome:
    """Change single bytes of an artefact, at up to 100 * `tries` places; count as `lost` what `load` accepts."""
    path, outcome = save(world.results, "problem", {"x": np.arange(3)}, parameters={"seed": 42}), Outcome(fault)
    whole = path.read_bytes()
    for i in range(0, len(whole), max(1, len(whole) // (100 * tries))):
        path.write_bytes(change(whole, i))
        outcome.tries += 1
        try:
            load(world.results, "problem")
            outcome.lost += 1
        except ArtifactError as error:
            outcome.told = str(error)
    return outcome


def disk(world: World, tries: int, *, fault: str, spoil: str, mend: str) -> Outcome:
    """Run the notebooks in a results folder after the command `spoil`, and again after `mend`."""
    outcome = Outcome(fault)
    world.results.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", world.results], check=True)
    world.change()
    outcome.lost += len(world.finish())
    for _ in range(tries):
        world.change()
        subprocess.run(spoil.format(results=world.results), shell=True, check=False, stderr=subprocess.DEVNULL)
        since = time.monotonic()
        with world.start() as driver:
            ended(driver, since, outcome)
        outcome.tries += 1
        outcome.lost += len(world.damaged())
        subprocess.run(mend.format(results=world.results), shell=True, check=True)
        outcome.lost += len(world.finish())
    subprocess.run(["umount", world.results], check=True)
    return outcome


def fills(world: World, tries: int) -> Outcome:
    """Run notebooks of which one fills the disk that holds all there is, temporary files too."""
    full = World(world.folder / "disk")
    full.folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", full.folder], check=True)
    (full.folder / "tmp").mkdir()
    os.environ["TMPDIR"] = str(full.folder / "tmp")
    outcome = from_within(full, tries, fault="a cell fills the disk, temporary files on it", accident=FILL_UP)
    subprocess.run(["umount", full.folder], check=True)
    return outcome


def whole(path: Path) -> bool:
    """Whether nothing of a figure, an artefact, a notebook or a record is cut off or altered, be it old or new."""
    data = path.read_bytes()
    try:
        match path.suffix:
            case ".png":
                return data.endswith(b"IEND\xaeB`\x82")
            case ".npz":
                return sha256(data[:-SEAL]).encode() == data[-SEAL:]
            case ".ipynb" | ".json":
                return bool(json.loads(data))
    except ValueError:
        return False
    return True


def made(results: Path) -> dict[str, str]:
    """The checksum of each artefact, figure and table, by its name."""
    files = [path for kind in ("data", "figures", "tables") for path in (results / kind).glob("[!.]*")]
    return {path.name: sha256(path.read_bytes()) for path in files}


def kill_paper(world: World, tries: int) -> Outcome:
    """kill -9 while notebooks 01 and 02 run, with no network; then a run to the end, and one that skips both.

    What is there in the end has to be what a run without kills leaves, to the byte.
    """
    outcome, stems = Outcome("kill -9, notebooks 01 and 02, no network"), [MADE_BY[name] for name in NAMES]
    reproduce = [*WITHOUT_NETWORK, sys.executable, "-m", "sobolev_utils.paper.reproduce", *stems, "--results"]
    undisturbed, folder = world.folder / "undisturbed", world.folder / "killed"
    subprocess.run([*reproduce, str(undisturbed)], capture_output=True, check=True)
    expected = made(undisturbed)
    again = [*reproduce, str(folder)]

    def start() -> subprocess.Popen:
        return subprocess.Popen([*again, "--force"], **PIPES)

    def look() -> list[str]:
        return [path.name for path in folder.rglob("[!.]*.*") if not whole(path)]

    strike(outcome, tries, 40, start, kill_all, look)
    last, skips = (subprocess.run(again, capture_output=True, text=True, check=True).stdout for _ in range(2))
    outcome.lost += len(look()) + (skips.count("skipped") != 2) + len(made(folder).items() ^ expected.items())
    outcome.told = last.splitlines()[-1]
    return outcome


WITHOUT_NETWORK = ["unshare", "--map-root-user", "--net"]
WITH_MOUNTS = ["unshare", "--map-root-user", "--mount"]
FILL = "head -c 100m /dev/zero > {results}/.filler"
REMOUNT = "mount -o remount,{} {{results}}"
HANG = "open('accident', 'x'); import time; time.sleep(600)"
FILL_UP = """with open("accident", "xb", buffering=0) as file:
    while file.write(bytes(2**16)) == 2**16:
        pass"""
DIE = "open('accident', 'x'); os.kill(os.getpid(), 9)"

FAULTS: dict[str, Callable[[World, int], Outcome]] = {
    "cut": partial(damage, fault="artefact truncated, at every length", change=lambda data, i: data[:i]),
    "flip": partial(damage, fault="bit flipped, in every byte of an artefact", change=flip),
    "kill": partial(strike_world, fault="kill -9 of the driver", blow=lambda driver, _: driver.kill()),
    "kill_all": partial(strike_world, fault="kill -9 of the driver and its kernels", blow=kill_all),
    "interrupt": partial(strike_world, fault="Ctrl-C", blow=lambda driver, _: driver.send_signal(signal.SIGINT)),
    "kernel": partial(from_within, fault="kill -9 of a kernel, in a cell", accident=DIE),
    "hang": partial(from_within, fault="cell hangs, timeout of 2 s", accident=HANG, arguments=["--timeout", "2"]),
    "two": two_at_once,
    "full": partial(disk, fault="disk full", spoil=FILL, mend="rm {results}/.filler"),
    "fills": fills,
    "read_only": partial(disk, fault="results read-only", spoil=REMOUNT.format("ro"), mend=REMOUNT.format("rw")),
    "paper": kill_paper,
}
TRIES = {"cut": 100, "flip": 100, "kill": 50, "kill_all": 50, "interrupt": 20, "paper": 10}
MOUNTS = ("full", "fills", "read_only")


def permitted(wrapper: Sequence[str]) -> bool:
    """Whether this user may `unshare` so."""
    there = shutil.which(wrapper[0])
    return bool(there) and subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode == 0


def main(names: Sequence[str]) -> int:
    """Try the faults of `names`, or all and write the table; return how much was lost, left running, or not said."""
    if names[:1] == ["--inside"]:
        with tempfile.TemporaryDirectory() as folder:
            outcome = FAULTS[names[1]](World(Path(folder)), int(names[2]))
        print(json.dumps(asdict(outcome)))
        return 0
    outcomes = []
    for name in names or FAULTS:
        around = WITH_MOUNTS if name in MOUNTS else []
        if not all(map(permitted, filter(None, [around, WITHOUT_NETWORK if name == "paper" else []]))):
            print(f"{name}: not permitted here, left out")
            outcomes.append(asdict(Outcome(f"{name}: not permitted")))
            continue
        inside = [*around, sys.executable, "-m", "faults", "--inside", name, str(TRIES.get(name, 10))]
        answer = subprocess.run(inside, stdout=subprocess.PIPE, text=True, check=True).stdout
        outcomes.append(json.loads(answer))
        print(*(f"{key}: {value}" for key, value in outcomes[-1].items()), sep="\n  ", flush=True)
    table = pd.DataFrame(outcomes).drop(columns="told").round({"seconds": 1})
    if not names:
        print(*save_table(results_folder(), "faults", table))
    return int((table.lost + table.orphans + table.unsaid + (table.seconds > SECONDS)).sum())


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
