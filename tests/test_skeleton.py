"""The files around the package agree: what is asked for, what is locked, what conda gets, what is cited."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import sobolev_utils

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
ENTRIES = re.findall(r"^[^\s#](?:[^\\\n]|\\\n)*", LOCK, re.MULTILINE)
PINS = [Requirement(entry.split(" \\")[0]) for entry in ENTRIES]


@pytest.mark.parametrize("asked", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"])
def test_every_dependency_is_pinned_in_a_version_that_satisfies_it(asked):
    asked = Requirement(asked)
    pins = [pin for pin in PINS if pin.name.replace("_", "-") == asked.name.replace("_", "-")]
    assert pins, f"{asked.name} is not in requirements.lock: run make lock"
    for pin in pins:
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert exact.version in asked.specifier, f"{pin} does not satisfy {asked}: run make lock"


def test_every_lock_entry_is_hashed():
    assert len(ENTRIES) > 50
    assert [entry.split()[0] for entry in ENTRIES if "--hash=sha256:" not in entry] == []


def test_the_lock_names_no_place_to_download_from():
    assert re.findall(r"https?:|--(?:extra-)?index|--find-links| @ |file:", LOCK) == []


def test_conda_brings_python_and_pip_alone_which_are_those_that_are_asked_for():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    python, pip = environment["dependencies"]  # its own pip section would look for newer releases
    assert pip == "pip"
    (python_version,) = re.fullmatch(r"python=(\d+\.\d+)", python).groups()
    assert python_version in SpecifierSet(PROJECT["requires-python"])
    assert PROJECT["requires-python"] == f">={python_version}"
    assert f"version_info < ({python_version.replace('.', ', ')})" in (ROOT / "Makefile").read_text()


def test_what_is_called_by_name_can_be_called():
    assert os.access(ROOT / "postBuild", os.X_OK)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_citation_is_of_this_version_and_of_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["title"] == PROJECT["name"] == sobolev_utils.__name__
    assert Version(str(citation["version"])) == Version(PROJECT["version"])
    (paper,) = citation["references"]
    assert paper["doi"] == "10.1145/3659914.3659915"
    assert [author["family-names"] for author in paper["authors"]] == ["Kichler", "Afghan", "Naumann"]


class TestMakefile:
    @pytest.fixture
    def make(self, tmp_path):
        """A way to call make in a checkout of nothing but what it reads, in a folder with a space."""
        checkout = tmp_path / "a checkout"
        checkout.mkdir()
        for name in ("Makefile", "pyproject.toml", "postBuild", "requirements.lock"):
            shutil.copy(ROOT / name, checkout)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}

        def call(*arguments):
            return subprocess.run(
                ["make", *arguments], cwd=checkout, env=clean, capture_output=True, text=True, check=False
            )

        call.checkout = checkout
        return call

    def test_make_alone_lists_every_target_with_a_line(self, make):
        listed = [line for line in make().stdout.splitlines() if line.startswith(" ")]
        (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {line.split()[1] for line in listed} == set(phony.split()) - {"anew"}
        assert all(len(line.split()) > 3 and len(line) < 120 for line in listed)
        assert len({re.match(r"  make \S+ +", line).end() for line in listed}) == 1, "not aligned"

    @pytest.mark.parametrize(
        "answer, message", [("echo 3.8; exit 1", "'./python' is 3.8"), ("exit 127", "no Python that")]
    )
    def test_an_old_python_is_one_line(self, make, answer, message):
        python = make.checkout / "python"
        python.write_text(f"#!/bin/sh\n{answer}\n")
        python.chmod(0o755)
        run = make("test", "PYTHON=./python")
        assert run.returncode != 0
        lines = [line for line in run.stderr.splitlines() if not line.startswith("make")]
        assert len(lines) == 1 and run.stdout == ""
        assert lines[0].startswith("Python 3.11 or newer is needed") and message in lines[0]
        assert lines[0].endswith("as in 'make test PYTHON=python3.12'")
        assert not (make.checkout / ".venv").exists()

    def test_clean_removes_what_is_rebuilt_and_keeps_the_rest(self, make):
        kept = [
            "results/tables/r2.csv",
            "results/provenance.json",
            ".venv/lib/__pycache__/a.pyc",
            "notebooks/a.ipynb",
        ]
        rebuilt = [
            "results/data/a.npz",
            "results/notebooks/a.ipynb",
            "notebooks/.ipynb_checkpoints/a",
            ".coverage",
        ]
        for name in kept + rebuilt:
            (make.checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (make.checkout / name).touch()
        assert make("clean").returncode == 0
        assert [name for name in kept + rebuilt if (make.checkout / name).exists()] == kept
