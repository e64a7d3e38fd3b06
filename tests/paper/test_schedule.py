"""Notebooks wait for those that write what they read, whatever their names."""

import pytest
from stubs import write_notebook

from sobolev_utils.paper import schedule
from sobolev_utils.paper.execution import ReproductionError
from sobolev_utils.paper.reproduce import NOTEBOOKS, NUMBERED
from sobolev_utils.paper.schedule import declared, run_time, run_together, undeclared, waits


def paths(folder, **heads):
    """Notebooks by stem, each with what its head says that it reads and writes."""
    return [write_notebook(folder, stem, reads=reads, writes=writes) for stem, (reads, writes) in heads.items()]


def test_the_order_follows_from_what_is_read_not_from_names(tmp_path):
    found = paths(
        tmp_path,
        explore=("`data/pruned.npz` and `data/problem.npz`", "nothing"),
        data=("nothing", "`data/problem.npz` (a\nsample) and figures"),
        prune=("`data/problem.npz`, `tables/study.csv` (`make study`)", "`data/pruned.npz`,\n`tables/a.csv`"),
        alone=("nothing", "figures"),
    )
    explore, data, prune, alone = found
    assert waits(found) == {data: [], alone: [], prune: [data], explore: [data, prune]}
    assert list(waits(found)) == [data, alone, prune, explore]
    assert declared(prune, "Writes") == ["data/pruned.npz", "tables/a.csv"]
    files = ["data/problem.npz", "tables/a.csv", "tables/a.md", "tables/b.csv", "figures/c.png", "../tables/d.csv"]
    assert undeclared(prune, files) == ["tables/b.csv"]


def test_notebooks_that_wait_for_one_another_are_a_fault(tmp_path):
    found = paths(
        tmp_path, one=("`data/b.npz`", "`data/a.npz`"), two=("`data/a.npz`", "`data/b.npz`"), three=("nothing", "a")
    )
    with pytest.raises(ReproductionError, match="the heads of one, two make them wait for one another"):
        waits(found)


def test_a_head_that_does_not_say_what_it_reads_is_a_fault(tmp_path):
    with pytest.raises(ReproductionError, match=r"head of one names no file after \*\*Reads\*\*"):
        waits(paths(tmp_path, one=("the artefacts of notebook 01", "nothing")))


def test_the_first_to_run_is_the_one_with_the_longest_critical_path(tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "AT_ONCE", 1)
    short, long, first, second = (tmp_path / name for name in ("0", "1", "2", "3"))
    ran, seconds = [], {short: 10, long: 50, first: 30, second: 30}
    run_together({second: [first], short: [], long: [], first: []}, ran.append, seconds)
    assert ran == [first, long, second, short]


@pytest.mark.parametrize("text, seconds", [("about 110 s", 110), ("1.5 s on two cores", 1.5), ("none", 0)])
def test_the_run_time_is_what_the_head_says(tmp_path, text, seconds):
    assert run_time(write_notebook(tmp_path, "a", writes=f"nothing. **Run time** {text}")) == seconds


def test_every_notebook_of_the_paper_says_its_run_time():
    assert all(run_time(path) > 0 for path in NOTEBOOKS.glob(NUMBERED))
