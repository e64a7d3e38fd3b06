"""The bounds of the elementary functions are true where they were measured, and refused where they are not."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from oracles import DTYPES, numbers
from verify.elementary import PIECES, distance, float32_piece, judged, rounded

from sobolev_utils.enclosures import self_check
from sobolev_utils.enclosures.intervals import box, enclose
from sobolev_utils.enclosures.rounding import ELEMENTARY
from sobolev_utils.enclosures.self_check import SelfCheckError

TABLE = Path(__file__).parents[2] / "results" / "tables" / "elementary.csv"


@pytest.fixture
def anew():
    """As in a process that has enclosed nothing yet."""

    def forget():
        self_check.check_arithmetic.cache_clear()
        self_check.check_elementary.cache_clear()

    forget()
    yield
    forget()


def test_the_committed_table_is_of_all_functions_and_holds_the_claims():
    table = pd.read_csv(TABLE).set_index(["function", "precision"])
    assert set(table.index) == {(name, dtype.__name__) for name in ELEMENTARY for dtype in DTYPES}
    for (name, precision), row in table.iterrows():
        assert row.bound_steps == ELEMENTARY[name][precision == "float64"]
        assert (3 if precision == "float64" else 4) * row.largest_error_steps <= row.bound_steps, name
        before = {-np.inf: 0, 0: 0x7F800000, -1: 0x40000000}[ELEMENTARY[name][2]]  # numbers left of the domain
        assert row.arguments == 2**32 - before if precision == "float32" else row.arguments >= 10**7, name


def test_pieces_of_a_part_are_each_of_its_arguments_once():
    seen = np.zeros(2**24, np.uint8)
    for piece in range(PIECES):
        seen[float32_piece(3, piece).view(np.uint32) - np.uint32(3 * 2**24)] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_distance_counts_normal_numbers_and_zero(dtype):
    tiny = np.finfo(dtype).smallest_normal
    x = np.asarray([1, -3, tiny, -tiny, 0, tiny / 2, np.finfo(dtype).max, np.inf, np.nan, np.nan], dtype)
    y = np.asarray([1 - np.finfo(dtype).eps, -3, 0, tiny, -tiny / 2, -tiny, np.inf, -np.inf, np.nan, 1], dtype)
    exponents = 2 * np.finfo(dtype).maxexp - 2  # of normal numbers
    line = 2 * (exponents * 2 ** np.finfo(dtype).nmant + 1)
    assert [int(steps) for steps in distance(y, x)] == [2, 0, 1, 2, 0, 1, 1, line, 0, 2**63 - 1]
    assert (distance(y, x) == distance(x, y)).all()


@pytest.mark.parametrize("name", ELEMENTARY)
def test_the_judge_and_what_is_kept_are_rounded_correctly(name):
    x = numbers(np.random.default_rng(5), np.float32, (200,))
    x = x[~(x < ELEMENTARY[name][2]) & ((x == 0) | (abs(x) >= np.finfo(np.float32).tiny))]
    with np.errstate(all="ignore"):
        exact, undecided = judged(name, x)
        assert (distance(exact, np.asarray([rounded(name, one) for one in x]))[~undecided] == 0).all()
        for dtype in DTYPES:
            x, exact = self_check.hard_arguments(name, np.dtype(dtype))
            assert len(x) >= 9 and (distance(exact, np.asarray([rounded(name, one) for one in x])) == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_function_outside_of_its_bound_is_refused(anew, monkeypatch, dtype):
    monkeypatch.setitem(ELEMENTARY, "erfc", (0, 0, *ELEMENTARY["erfc"][2:]))
    message = rf"^erfc\(.*\) in {dtype.__name__} on cpu is .*, expected .* to 0 floats, so .*: [^\n]*$"
    with pytest.raises(SelfCheckError, match=message):
        self_check.check_elementary("erfc", np.dtype(dtype), "cpu")


def test_the_check_runs_while_the_enclosure_is_traced_or_debugged(anew, monkeypatch):
    x = jax.tree.map(lambda end: jnp.stack([end, end]), box(0.0, 1.0))
    extension = jax.jit(jax.vmap(enclose(jnp.exp)))
    with monkeypatch.context() as patch, pytest.raises(SelfCheckError, match=r"^exp\("):
        patch.setitem(ELEMENTARY, "exp", (0, 0, *ELEMENTARY["exp"][2:]))
        extension(x)
    with jax.debug_nans(True):
        y = extension(x)
    assert (y.lower <= 1).all() and (y.upper >= np.e).all()


@pytest.mark.parametrize("what", self_check.MEASURED)
def test_another_machine_is_warned_of_once(anew, monkeypatch, what):
    monkeypatch.setitem(self_check.MEASURED, what, ("none",))
    extension = enclose(lambda x: x + 1)
    with pytest.warns(UserWarning, match=f"not measured here, nothing is proven: {what} .*, not none") as warned:
        extension(box(0.0, 1.0))
        extension(box(0.0, 1.0))
    assert [warning.filename for warning in warned] == [__file__]


def test_fast_math_is_refused_by_the_first_enclosure():
    """It takes (a + b) - a for b, so that the radius of a rounded midpoint leaves out its rounding."""
    code = "from sobolev_utils.enclosures.intervals import box, enclose\nenclose(lambda x: x + 1)(box(0.0, 1.0))"
    flags = {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | flags, capture_output=True, text=True, check=False
    )
    last = run.stderr.strip().splitlines()[-1]
    assert run.returncode == 1 and "SelfCheckError" in last and "run without XLA_FLAGS" in last, run.stderr
