"""Each headline of the README has a row in claims.csv, with the command that makes it again."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("claims", ROOT / "tests" / "benchmarks" / "claims.py")
claims = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(claims)

PLACES = {place for _, where, _ in claims.CLAIMS.values() for place in where.split("; ")}


def test_every_table_figure_and_model_that_the_readme_shows_is_a_claims():
    shown = re.findall(r"results/((?:tables|figures|models)/[\w./]+\w)", (ROOT / "README.md").read_text())
    assert len(shown) > 5
    for file in set(shown) - {"tables/claims.csv"}:
        assert file in PLACES or file.partition("/")[0] in PLACES, f"no claim names {file}"


def test_claims_stand_where_they_say_and_their_commands_are_known():
    makefile = (ROOT / "Makefile").read_text()
    for place in PLACES:
        assert place.startswith("make ") or (ROOT / "results" / place).exists(), place
    for _, _, command in claims.CLAIMS.values():
        kind, what, *_ = command.split()
        assert (
            re.search(rf"^{what}: ", makefile, re.MULTILINE)
            if kind == "make"
            else what == "-m" or (ROOT / what).exists()
        )


def test_memory_is_that_of_all_processes_together(tmp_path):
    (tmp_path / "hold.py").write_text("""import subprocess, sys, time
held = b"x" * (100 * 2**20)
subprocess.run([sys.executable, *sys.argv[1:]]) if sys.argv[1:] else time.sleep(1.5)""")
    hold = f'"{tmp_path / "hold.py"}"'
    assert 200 < claims.measured(f'"{sys.executable}" {hold} {hold}')[1] < 280
    with pytest.raises(subprocess.CalledProcessError):
        claims.measured("exit 3")


def test_what_was_measured_earlier_stays_until_the_command_is_another(tmp_path, monkeypatch):
    claims.write(tmp_path, {"seeds": (3.0, 4.0)})
    path = claims.write(tmp_path, {"verify": (1.0, 2.0)})

    def costs():
        table = pd.read_csv(path)
        assert list(table.columns) == ["claim", "where", "command", "seconds", "peak_mb"]
        return {row.command: (row.seconds, row.peak_mb) for row in table.dropna().itertuples()}

    assert costs() == {"make seeds": (3.0, 4.0), "make verify": (1.0, 2.0)}
    monkeypatch.setitem(claims.CLAIMS, "seeds", (*claims.CLAIMS["seeds"][:2], "make other"))
    claims.write(tmp_path, {})
    assert costs() == {"make verify": (1.0, 2.0)}
