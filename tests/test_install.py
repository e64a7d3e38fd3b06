"""What is installed is what requirements.lock holds, whatever has been published since, by any pip and any Python.

Without a network, by the pip at hand; with $SOBOLEV_INSTALL, as in `make test-install`, also by the oldest and the
newest pip and by each Python that is here, and against what is published today.
"""

import ast
import base64
import hashlib
import importlib.metadata as metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sobolev_utils.paper import fingerprints

ROOT = Path(__file__).parents[1]
ENTRIES = re.findall(r"^[^\s#](?:[^\\\n]|\\\n)*", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
PINS = [Requirement(entry.split(" \\")[0]) for entry in ENTRIES]
INSTALLED = {canonicalize_name(found.name): found for found in metadata.distributions()}
NEWER = "9999.0"
TOP = "sobolev_utils[dev]"

everywhere = pytest.mark.skipif(not os.environ.get("SOBOLEV_INSTALL"), reason="make test-install")
PYTHONS = ["3.11", "3.12", "3.13"]
SYSTEMS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
    "mac": {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"},
}


@cache
def needs(name):
    """What an installed package asks for, with markers."""
    return [Requirement(need) for need in INSTALLED[name].requires or []]


def locked(environment):
    """The version that the lock pins of each package in an environment of markers."""
    held = [pin for pin in PINS if pin.marker is None or pin.marker.evaluate(environment)]
    pinned = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in held}
    assert len(pinned) == len(held), "a package is pinned twice"
    return pinned


def missing(environment, pinned, wanted=TOP):
    """What the packages reached from `wanted`, by the metadata of those installed here, ask for and the lock lacks.

    A package that is pinned here in another version, or not at all, cannot be asked.
    """
    waiting, seen, absent = [Requirement(wanted)], set(), []
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        if name != "sobolev-utils" and not (name in pinned and asked.specifier.contains(pinned[name], True)):
            absent.append(str(asked))
        for extra in {"", *asked.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            if name in INSTALLED and INSTALLED[name].version == pinned.get(name, INSTALLED[name].version):
                within = {**environment, "extra": extra}
                waiting += [need for need in needs(name) if need.marker is None or need.marker.evaluate(within)]
    return absent


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("version", ["3.11.0", "3.11.9", "3.12.9", "3.13.9"])
def test_no_package_asks_for_one_outside_the_lock(system, version):
    python = {"python_version": version.rpartition(".")[0], "python_full_version": version}
    environment = {**default_environment(), **python, **SYSTEMS[system]}
    assert missing(environment, locked(environment)) == []


def test_what_lacks_in_a_lock_is_found_behind_extras_too():
    pinned = locked(default_environment())
    del pinned["coverage"], pinned["rfc3987-syntax"]  # asked for by an extra of jsonschema
    absent = missing(default_environment(), pinned)
    assert {re.match(r"[\w-]+(\[toml\])?", asked).group() for asked in absent} >= {"coverage[toml]", "rfc3987-syntax"}


def test_one_place_says_how_to_install():
    for file in ("Makefile", "environment.yml", ".ci/run", "README.md"):
        assert not re.search(r"(pip|conda|mamba|uv) +install", (ROOT / file).read_text()), file
    for command in re.findall(r"^pip install .*", (ROOT / "postBuild").read_text(), re.MULTILINE):
        assert "--no-deps" in command and ("--require-hashes" in command or "--no-build-isolation" in command)


def write_wheel(folder, name, version, headers="", files=()):
    """A wheel of nothing but metadata, with those of `files` that are installed here; its checksum."""
    stem = f"{re.sub('[-.]', '_', name)}-{version}"
    path, info = folder / name / f"{stem}-py3-none-any.whl", f"{stem}.dist-info"
    path.parent.mkdir(parents=True, exist_ok=True)
    contents = {str(file): file.read_binary() for file in files}
    contents[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{headers}".encode()
    contents[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as wheel:
        record = ""
        for file, data in contents.items():
            wheel.writestr(file, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            record += f"{file},sha256={digest},{len(data)}\n"
        wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    with open(path.with_name("index.html"), "a") as listed:
        listed.write(f'<!DOCTYPE html><a href="{path.name}">{path.name}</a>\n')
    return fingerprints.sha256(path.read_bytes())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout whose lock pins stand-ins, in an index that holds a newer release of each; they ask for the same."""
    folder = tmp_path_factory.mktemp("a") / "checkout"
    index = folder / "index"
    shutil.copytree(ROOT / "sobolev_utils", folder / "sobolev_utils", ignore=lambda *_: ["__pycache__"])
    for name in ("Makefile", "postBuild", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    lines = []
    for pin in PINS:
        name, version = pin.name, str(pin.specifier).removeprefix("==")
        found, headers, files = INSTALLED.get(canonicalize_name(name)), "", []
        if found and found.version == version:
            headers = "".join(f"Requires-Dist: {need}\n" for need in found.requires or [])
            headers += "".join(f"Provides-Extra: {extra}\n" for extra in found.metadata.get_all("Provides-Extra", []))
        if name == "flit-core":  # what builds this package has to work
            files = [file for file in found.files if str(file).startswith("flit_core/") and file.suffix != ".pyc"]
        write_wheel(index, name, NEWER)
        lines.append(f"{pin} --hash=sha256:{write_wheel(index, name, version, headers, files)}\n")
    (folder / "requirements.lock").write_text("".join(lines))
    return folder


def make_environment(checkout, python, *arguments):
    """Have make, as for any of its targets, install from the index of `checkout` alone, into a fresh `.venv`."""
    shutil.rmtree(checkout / ".venv", ignore_errors=True)
    foreign = ("MAKE", "MFLAGS", "PIP_", "PYTHON")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    pip = {"PIP_INDEX_URL": (checkout / "index").as_uri(), "PIP_CONFIG_FILE": os.devnull}
    command = ["make", ".venv/.lock-stamp", f"PYTHON={python}", *arguments]
    return subprocess.run(command, cwd=checkout, env=clean | pip, capture_output=True, text=True, check=False)


def assert_installed(checkout, run):
    """`run` left the lock and this package in the environment, and nothing else but what came with it."""
    assert run.returncode == 0, run.stderr
    python = checkout / ".venv" / "bin" / "python"
    program = "import importlib.metadata as m; print({found.name: found.version for found in m.distributions()})"
    listed = subprocess.run([python, "-c", program], cwd="/", capture_output=True, text=True, check=True).stdout
    found = {canonicalize_name(name): version for name, version in ast.literal_eval(listed).items()}
    version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    here = {"python_version": version.rpartition(".")[0], "python_full_version": version}
    expected = locked({**default_environment(), **here})
    assert expected.items() <= found.items()
    assert found.keys() - expected.keys() <= {"sobolev-utils", "pip", "setuptools"}


def test_an_index_with_newer_releases_of_everything_changes_nothing(checkout):
    assert_installed(checkout, make_environment(checkout, sys._base_executable))


def python_of(version):
    """The Python of this version, if it is here: this one, one on the path, or one of pyenv."""
    of_pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin/python")
    ours = [sys._base_executable] if sys.version.startswith(f"{version}.") else []
    for python in filter(None, [*ours, shutil.which(f"python{version}"), *map(str, sorted(of_pyenv))]):
        if not subprocess.run([python, "--version"], capture_output=True, check=False).returncode:
            return python
    pytest.skip(f"no Python {version} on this machine")


def bring(pip, python, folder):
    """`python`, but its environments have the release `pip` of pip, "" for the newest."""
    wheels = folder / "pip"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels, f"pip{pip}"]
    subprocess.run(download, check=True)
    (wheel,) = wheels.glob("*.whl")
    wrapper = folder / "python"
    wrapper.write_text(f"""#!/bin/sh
"{python}" "$@" || exit
case "$*" in "-m venv"*) .venv/bin/python -m pip install --quiet --no-index "{wheel}" ;; esac
""")
    wrapper.chmod(0o755)
    return wrapper


@everywhere
@pytest.mark.parametrize("pip", ["==22.3", ""])  # the oldest that Python 3.11 comes with, and the newest
def test_so_it_is_with_any_pip(checkout, tmp_path, pip):
    python = bring(pip, python_of("3.11"), tmp_path)
    assert_installed(checkout, make_environment(checkout, python))
    if pip:
        install = checkout / "postBuild"
        ours = install.read_text()
        install.write_text(ours.replace(" --no-deps --only-binary", " --only-binary"))
        try:
            fault = "all requirements must have their versions pinned"  # of the newer ones that extras are asked of
            assert fault in make_environment(checkout, python).stderr
        finally:
            install.write_text(ours)


@everywhere
@pytest.mark.parametrize("version", PYTHONS)
def test_so_it_is_with_any_python(checkout, version):
    assert_installed(checkout, make_environment(checkout, python_of(version)))


@everywhere
@pytest.mark.parametrize("version", PYTHONS)
def test_what_is_published_asks_for_nothing_outside_the_lock(tmp_path, version):
    """uv can do so without downloading the packages, and with hashes it takes nothing that is not pinned."""
    lock = ["--require-hashes", "--requirement", ROOT / "requirements.lock", "--only-binary", ":all:"]
    where = ["--dry-run", "--target", tmp_path, "--python-version", version]
    run = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", *where, *lock], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
