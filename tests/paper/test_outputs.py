"""Tables and figures are always the same bytes; the table of a study is read as it was written, or not at all."""

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from sobolev_utils.paper import outputs
from sobolev_utils.paper.artifacts import ArtifactError
from sobolev_utils.paper.outputs import read_study, save_figure, save_study, save_table

PROBLEM = {"n_assets": 3, "basket_seed": 5, "strike": 1.0, "volatility": 0.3, "maturity": 2.5, "n_test": 99}
FRAME = pd.DataFrame({"stage": ["pruned", "a_b"], "r2": [1 / 3, 1.0], "parameters": [40, 83713]})


class TestSaveTable:
    def test_csv_has_twelve_digits_and_no_index(self, tmp_path):
        (path, _) = save_table(tmp_path, "r2", FRAME)
        assert path == tmp_path / "tables" / "r2.csv"
        assert path.read_bytes() == b"stage,r2,parameters\npruned,0.333333333333,40\na_b,1,83713\n"

    def test_markdown_and_latex_hold_the_same_rows(self, tmp_path):
        markdown, latex = save_table(tmp_path, "r2", FRAME, formats=("md", "tex"))
        rows = markdown.read_text().splitlines()[2:]
        assert [row.split("|")[2].strip() for row in rows] == ["0.333333", "1"]
        assert "a\\_b & 1 & 83713" in latex.read_text()

    def test_markdown_keeps_text_that_looks_like_a_number(self, tmp_path):
        (path,) = save_table(tmp_path, "r2", pd.DataFrame({"r2": ["0.9999990"]}), formats=("md",))
        assert path.read_text().splitlines()[-1].strip("| ") == "0.9999990"

    def test_rejects_another_format_before_writing(self, tmp_path):
        with pytest.raises(ValueError, match=r"\['xlsx'\] received"):
            save_table(tmp_path, "r2", FRAME, formats=("csv", "xlsx"))
        assert list(tmp_path.iterdir()) == []


class TestStudy:
    def test_it_is_that_of_the_results_or_else_the_committed_one(self, tmp_path, monkeypatch):
        own, checkout = tmp_path / "own", tmp_path / "checkout"
        monkeypatch.setattr(outputs, "CHECKOUT", checkout)
        with pytest.raises(ArtifactError, match=r"r2_seeds\.csv is missing: run `make seeds`, or `git checkout"):
            read_study(own, "r2_seeds")
        save_study(checkout / "results", "r2_seeds", FRAME, PROBLEM, {})
        pd.testing.assert_frame_equal(read_study(own, "r2_seeds"), FRAME)
        save_study(own, "r2_seeds", FRAME[:1], PROBLEM, {})
        pd.testing.assert_frame_equal(read_study(own, "r2_seeds"), FRAME[:1])

    def test_a_single_wrong_byte_is_an_error_that_names_what_makes_it_again(self, tmp_path):
        path = save_study(tmp_path, "beyond", FRAME, PROBLEM, {})
        whole = path.read_bytes()
        flipped = (whole[:i] + bytes([byte ^ 1 << i % 8]) + whole[i + 1 :] for i, byte in enumerate(whole))
        for damaged in (whole[:-1], *flipped):
            path.write_bytes(damaged)
            with pytest.raises(ArtifactError, match=r"entry in studies\.json was altered .*: run `make study`"):
                read_study(tmp_path, "beyond")

    @pytest.mark.parametrize("beside", [None, "<<<<<<< a merge conflict", '{"beyond": {}}'])
    def test_one_without_a_checksum_is_an_error(self, tmp_path, beside):
        save_table(tmp_path, "beyond", FRAME)
        if beside:
            (tmp_path / "tables" / "studies.json").write_text(beside)
        with pytest.raises(ArtifactError, match=r"was altered|cannot be read .*: `git checkout"):
            read_study(tmp_path, "beyond")

    def test_of_a_file_that_cannot_be_read_nothing_is_lost(self, tmp_path):
        save_study(tmp_path, "r2_seeds", FRAME, PROBLEM, {})
        (beside := tmp_path / "tables" / "studies.json").write_text("<<<<<<< a merge conflict")
        with pytest.raises(ArtifactError, match="cannot be read"):
            save_study(tmp_path, "beyond", FRAME, PROBLEM, {})
        assert beside.read_text() == "<<<<<<< a merge conflict"

    def test_it_says_what_it_was_made_with_and_no_other_does(self, tmp_path):
        save_study(tmp_path, "beyond", FRAME.assign(seed=[8, 7]), PROBLEM, {"strike": 1.0, "width": 64, "n_test": 99})
        save_study(tmp_path, "r2_seeds", FRAME.assign(seed=4), {**PROBLEM, "n_assets": 2}, {})
        same = "basket 5, strike 1, volatility 0.3, maturity 2.5"
        assert read_study(tmp_path, "beyond").attrs["of"] == f"3 assets, {same}, n_test 99, width 64, seeds 7 to 8"
        assert read_study(tmp_path, "r2_seeds").attrs["of"] == f"2 assets, {same}, seed 4"
        beside = tmp_path / "tables" / "studies.json"
        beside.write_text(beside.read_text().replace("64", "32"))
        with pytest.raises(ArtifactError, match=r"beyond\.csv or its entry in studies\.json was altered"):
            read_study(tmp_path, "beyond")

    def test_the_committed_ones_are_as_they_were_written(self):
        for name in outputs.COMMANDS:
            study = read_study(Path(__file__).parents[2] / "results", name)
            assert len(study) and "assets, basket 42" in study.attrs["of"]


def test_figures_are_the_same_bytes_every_time_and_name_no_software(tmp_path):
    def draw(folder):
        figure = Figure()
        figure.subplots().plot([0, 1], [1, 0])
        return save_figure(tmp_path / folder, "line", figure)

    first, second = draw("a"), draw("b")
    assert first == tmp_path / "a" / "figures" / "line.png"
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG")
    assert b"matplotlib" not in first.read_bytes().lower()
