"""Artefacts come back as they were saved, or not at all: not damaged, not outdated."""

import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import nbformat
import numpy as np
import pytest

from sobolev_utils.paper import artifacts
from sobolev_utils.paper.artifacts import ArtifactError, load, results_folder, save

ARRAYS = {
    "x": np.arange(6.0).reshape(2, 3),
    "jax": jnp.ones(3),
    "r2/paths_8192": np.array([0.9, np.nan, 0.7], dtype=np.float32),
    "n": np.asarray(433),
    "names": np.array(["value", "δ"]),
    "flags": np.array([True, False]),
}
PARAMETERS = {"seed": 42, "rate": 1e-4, "widths": (8, 8), "points": "sobol", "tight": True, "box": None}


class TestResultsFolder:
    def test_prefers_the_named_folder_then_the_environment_then_the_checkout(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("SOBOLEV_RESULTS", str(tmp_path / "scratch"))
        assert results_folder("here") == tmp_path / "here"
        assert results_folder() == tmp_path / "scratch"
        monkeypatch.delenv("SOBOLEV_RESULTS")
        assert results_folder() == Path(__file__).parents[2] / "results"
        assert list(tmp_path.iterdir()) == []

    def test_refuses_to_write_beside_an_installed_package(self, tmp_path, monkeypatch):
        monkeypatch.delenv("SOBOLEV_RESULTS", raising=False)
        monkeypatch.setattr(artifacts, "CHECKOUT", tmp_path / "site-packages")
        with pytest.raises(ArtifactError, match="SOBOLEV_RESULTS"):
            results_folder()


class TestSaveAndLoad:
    def test_returns_what_was_saved(self, tmp_path):
        save(tmp_path, "oversized", ARRAYS, parameters=PARAMETERS)
        arrays, parameters = load(tmp_path, "oversized", seed=np.int64(42), widths=(8, 8))
        assert parameters == {**PARAMETERS, "widths": [8, 8]}
        assert arrays.keys() == ARRAYS.keys()
        for key, array in ARRAYS.items():
            np.testing.assert_array_equal(arrays[key], array)
            assert arrays[key].dtype == array.dtype

    def test_same_content_gives_the_same_bytes(self, tmp_path):
        first = save(tmp_path / "a", "pruned", ARRAYS, parameters=PARAMETERS)
        second = save(tmp_path / "b", "pruned", dict(reversed(ARRAYS.items())), parameters=PARAMETERS)
        assert first.read_bytes() == second.read_bytes()

    @pytest.mark.parametrize("bad", [np.array([{}, 1], dtype=object), jnp.ones(2, dtype=jnp.bfloat16)])
    def test_rejects_arrays_that_need_pickle(self, tmp_path, bad):
        with pytest.raises(TypeError, match=f"'bad' has dtype {bad.dtype}"):
            save(tmp_path, "problem", {"bad": bad}, parameters={})
        assert list(tmp_path.iterdir()) == []

    def test_rejects_parameters_that_json_cannot_hold(self, tmp_path):
        with pytest.raises(TypeError, match="parameters hold"):
            save(tmp_path, "problem", {}, parameters={"payoff": max})
        with pytest.raises(ValueError, match="JSON compliant"):
            save(tmp_path, "problem", {}, parameters={"rate": float("nan")})

    def test_an_unknown_name_is_an_error_either_way(self, tmp_path):
        told = "unknown artefact 'oversize': expected one of problem, oversized"
        for call in (lambda: save(tmp_path, "oversize", {}, parameters={}), lambda: load(tmp_path, "oversize")):
            with pytest.raises(ArtifactError, match=told):
                call()

    def test_a_missing_file_names_its_notebook(self, tmp_path):
        with pytest.raises(ArtifactError) as error:
            load(tmp_path, "oversized", seed=7)
        assert str(error.value) == (
            f"{tmp_path}/data/oversized.npz is missing: run notebooks/02_oversized_model.ipynb first (with -p seed 7)"
        )

    def test_other_parameters_are_an_error_with_both_values(self, tmp_path):
        save(tmp_path, "pruned", ARRAYS, parameters=PARAMETERS)
        with pytest.raises(ArtifactError, match=r"holds seed = 42, expected seed = 7: .*03_iasa_pruning"):
            load(tmp_path, "pruned", points="sobol", seed=7)
        with pytest.raises(ArtifactError, match=r"holds no parameter depth, expected depth = 6"):
            load(tmp_path, "pruned", depth=6)

    def test_a_parameter_may_be_called_name_or_results(self, tmp_path):
        save(tmp_path, "problem", {}, parameters={"name": "basket", "results": ""})
        assert load(tmp_path, "problem", name="basket", results="")[0] == {}

    def test_a_file_cut_or_altered_anywhere_is_an_error(self, tmp_path):
        path = save(tmp_path, "problem", {"x": np.arange(3)}, parameters={"seed": 42})
        whole = path.read_bytes()
        cuts = [whole[:length] for length in range(0, len(whole), 37)]
        flips = [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(0, len(whole), 5)]
        by_numpy = whole[: -artifacts.SEAL]
        for damaged in [*cuts, *flips, by_numpy, b"another kind"]:
            path.write_bytes(damaged)
            with pytest.raises(ArtifactError, match=r"truncated or altered .* run notebooks/01_data_generation"):
                load(tmp_path, "problem", seed=42)


class TestUpToDate:
    """What an artefact was made from, and by which code, is what there is now."""

    @pytest.fixture
    def chain(self, tmp_path):
        """Three artefacts, each made from the one before it."""
        for before, name in zip((None, "problem", "oversized"), ("problem", "oversized", "pruned"), strict=True):
            if before:
                load(tmp_path, before)
            save(tmp_path, name, {"x": np.ones(3)}, parameters={"name": name})
        return tmp_path

    def test_the_same_made_anew_is_up_to_date(self, chain):
        save(chain, "problem", {"x": np.ones(3)}, parameters={"name": "problem"})
        assert load(chain, "pruned")[1] == {"name": "pruned"}

    @pytest.mark.parametrize("x, parameter", [(np.zeros(3), "problem"), (np.ones(3), "other")])
    def test_another_one_upstream_outdates_all_that_was_made_from_it(self, chain, x, parameter):
        save(chain, "problem", {"x": x}, parameters={"name": parameter})
        told = "{} is outdated, made with another data/problem.npz: run notebooks/{}"
        for name in ("oversized", "pruned"):
            with pytest.raises(ArtifactError, match=told.format("oversized.npz", "02_oversized_model")):
                load(chain, name)
        load(chain, "problem")
        save(chain, "oversized", {"x": np.ones(3)}, parameters={"name": "oversized"})
        assert load(chain, "oversized")
        with pytest.raises(ArtifactError, match=told.format("/pruned.npz", "03")):
            load(chain, "pruned")

    def test_damage_upstream_is_told(self, chain):
        (chain / "data" / "problem.npz").write_bytes(b"")
        with pytest.raises(ArtifactError, match=r"problem.npz is truncated .* run notebooks/01_data_generation"):
            load(chain, "pruned")

    def test_what_is_no_longer_there_outdates_nothing(self, chain):
        (chain / "data" / "problem.npz").unlink()
        assert load(chain, "pruned")

    def test_an_older_artefact_loaded_later_is_not_what_it_was_made_from(self, chain):
        load(chain, "pruned")
        save(chain, "oversized", {"x": np.ones(3)}, parameters={"name": "oversized"})
        assert load(chain, "oversized")

    @pytest.mark.parametrize(
        "change",
        [lambda patch, file: patch.setitem(artifacts.CODE, file, "another"),
         lambda patch, file: patch.delitem(artifacts.CODE, file)],
        ids=["edited", "removed"],
    )  # fmt: skip
    def test_other_code_outdates_what_it_made_unless_it_only_draws(self, chain, monkeypatch, change):
        monkeypatch.setitem(artifacts.CODE, "sobolev_utils/added.py", "another")
        change(monkeypatch, "sobolev_utils/paper/figures.py")
        assert load(chain, "problem")
        change(monkeypatch, "sobolev_utils/paper/files.py")
        with pytest.raises(ArtifactError, match=r"problem.npz is .* another sobolev_utils/paper/files.py"):
            load(chain, "pruned")

    def test_one_of_an_older_layout_is_outdated(self, tmp_path, monkeypatch):
        path = save(tmp_path, "problem", {}, parameters={})
        header, arrays = artifacts._read(tmp_path, "problem")
        del header["made_with"]
        monkeypatch.setattr(artifacts, "_read", lambda *_: (header, arrays))
        with pytest.raises(ArtifactError, match=rf"^{path} is outdated, made with another version of this package"):
            load(tmp_path, "problem")

    @pytest.mark.parametrize("now", [{"jax": "0"}, {}])
    def test_another_version_outdates_what_it_made_and_none_too(self, chain, monkeypatch, now):
        others = {name: version for name, version in artifacts.versions().items() if name != "jax"}
        monkeypatch.setattr(artifacts, "versions", lambda: others | {"added": "1"} | now)
        with pytest.raises(ArtifactError, match=r"problem.npz is outdated, made with another jax: run .*01"):
            load(chain, "pruned")

    def test_another_cell_of_the_notebook_outdates_what_it_made_but_prose_does_not(self, chain, monkeypatch):
        """So does a file that cannot be read."""
        source = artifacts.CHECKOUT / "notebooks" / "01_data_generation.ipynb"
        notebook = nbformat.read(source, as_version=4)
        monkeypatch.setattr(artifacts, "CHECKOUT", chain)
        assert load(chain, "problem")  # no notebook there, none to compare
        path = chain / "notebooks" / source.name
        path.parent.mkdir()
        notebook.cells[0].source += " more"
        nbformat.write(notebook, path)
        assert load(chain, "problem")
        notebook.cells.append(nbformat.v4.new_code_cell("1"))
        for other in (nbformat.writes(notebook), "<<<<<<< a merge conflict"):
            path.write_text(other)
            with pytest.raises(ArtifactError, match=r"made with another notebooks/01_data_generation.ipynb"):
                load(chain, "problem")

    def test_cells_edited_during_a_run_outdate_what_it_saves(self, tmp_path):
        notebook = tmp_path / "checkout" / "notebooks" / "01_data_generation.ipynb"
        notebook.parent.mkdir(parents=True)
        shutil.copytree(artifacts.CHECKOUT / "sobolev_utils", notebook.parents[1] / "sobolev_utils")
        shutil.copy(artifacts.CHECKOUT / "notebooks" / notebook.name, notebook)
        program = f"""
import nbformat
from sobolev_utils.paper import artifacts
notebook = nbformat.read({str(notebook)!r}, as_version=4)
notebook.cells.append(nbformat.v4.new_code_cell("1"))
nbformat.write(notebook, {str(notebook)!r})
artifacts.save({str(tmp_path)!r}, "problem", {{}}, parameters={{}})
try:
    artifacts.load({str(tmp_path)!r}, "problem")
except artifacts.ArtifactError as error:
    print(error)"""
        command, checkout = [sys.executable, "-c", program], notebook.parents[1]
        run = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
        assert "is outdated, made with another notebooks/01_data_generation.ipynb" in run.stdout
