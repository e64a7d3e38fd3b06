"""Paired tests find a difference that is there, none that is not, and count the seeds."""

from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import wilcoxon

from sobolev_utils.studies.wilcoxon import paired_tests

ERRORS = np.random.default_rng(0).uniform(0.01, 0.1, 10)
FACTORS = {"pursuit": 1.0, "worse": 3.0, "same": 1.0, "broken": np.inf}


def table(factors=FACTORS):
    rows = [
        ("a", method, nodes, seed, "before", "-", "values", 1 - factor * ERRORS[seed])
        for (method, factor), nodes, seed in product(factors.items(), (3, 8), range(10))
    ]
    columns = ["network", "method", "nodes", "seed", "stage", "loss", "quantity", "r2"]
    return pd.DataFrame(rows, columns=columns).sample(frac=1, random_state=0)


def test_ratios_counts_and_probabilities():
    tests = paired_tests(table()).set_index(["nodes", "method"])
    assert len(tests) == 2 * 3 and (tests.n == 10).all()
    np.testing.assert_allclose(tests.ratio[8]["worse"], 3)
    assert tests.ratio[3]["broken"] > 1e15
    assert tests.worse[3].to_dict() == {"broken": 10, "same": 0, "worse": 10}
    np.testing.assert_allclose(tests.p[3][["worse", "same", "broken"]], [2 / 2**10, 1, 2 / 2**10])
    np.testing.assert_allclose(
        tests.q[3][["worse", "same"]], [6 / 4 * 2 / 2**10, 1]
    )  # of 6 comparisons 4 are so rare


def test_only_what_both_have_is_compared():
    whole = table()
    rows = whole[~((whole.method == "worse") & (whole.nodes == 8)) & ~((whole.method == "same") & (whole.seed > 4))]
    tests = paired_tests(rows).set_index(["nodes", "method"])
    assert ("worse" in tests.loc[3].index) and ("worse" not in tests.loc[8].index) and tests.n[3]["same"] == 5


def test_the_oversized_network_is_compared_at_every_size():
    whole = table({"pursuit": 2.0, "oversized": 1.0})
    tests = paired_tests(whole[(whole.method != "oversized") | (whole.nodes == 8)])
    assert set(tests.nodes) == {3, 8} and (tests.n == 10).all() and (tests.worse == 0).all()
    np.testing.assert_allclose(tests.ratio, 0.5)


def test_against_another_method_the_ratio_is_the_inverse():
    there = paired_tests(table({"pursuit": 1.0, "worse": 3.0}))
    back = paired_tests(table({"pursuit": 1.0, "worse": 3.0}), against="worse")
    np.testing.assert_allclose(there.ratio * back.ratio, 1)
    np.testing.assert_allclose(there.p, back.p)
    assert (back.worse == 0).all() and wilcoxon(np.log(np.full(10, 3.0))).pvalue == there.p[0]
