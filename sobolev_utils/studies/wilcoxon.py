"""One way to prune against each other, seed by seed: by how much it is better, how often, and whether by chance."""

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, wilcoxon

__all__ = ["paired_tests"]

GROUP = ["network", "nodes", "stage", "loss", "quantity"]
LEAST, LARGEST = 1e-15, 1e15  # errors that are told apart; of a network that is not finite it is the largest


def paired_tests(table: pd.DataFrame, against: str = "pursuit") -> pd.DataFrame:
    """Each method against one of them, in the networks, sizes, stages and quantities that both have.

    table: columns network, method, nodes, seed, stage, loss, quantity, r2. The method "oversized" is compared at each
    size and stage. Returns a row for each, with the median over seeds of the error, 1 - R^2, over that of `against`
    (ratio); the number of seeds and in how many of these the error is the larger one (n, worse); p of Wilcoxon's
    signed-rank test of the logarithms, two-sided; and q, that p adjusted for all comparisons of the same stage, loss
    and quantity: of those with no larger q a share of at most q is expected to be chance, if they are independent or
    positively dependent (Benjamini & Hochberg 1995).
    """
    whole = table[table.method == "oversized"].drop(columns=["nodes", "stage", "loss"])
    sizes = table[table.method == against][["network", "nodes", "stage", "loss"]].drop_duplicates()
    rows = pd.concat([table[table.method != "oversized"], whole.merge(sizes, on="network")])
    errors = np.log((1 - rows.r2).clip(LEAST, LARGEST))
    wide = rows.assign(error=errors).pivot(index=[*GROUP, "seed"], columns="method", values="error")
    differences = wide.drop(columns=against).sub(wide[against], axis=0)
    found = []
    for group, pairs in differences.melt(ignore_index=False).dropna().groupby([*GROUP, "method"], sort=False):
        d = pairs.value.to_numpy()
        p = wilcoxon(d).pvalue if d.any() else 1.0
        found.append((*group, np.exp(np.median(d)), len(d), np.sum(d > 0), p))
    tests = pd.DataFrame(found, columns=[*GROUP, "method", "ratio", "n", "worse", "p"])
    family = tests.groupby(["stage", "loss", "quantity"], sort=False)
    return tests.assign(q=family.p.transform(false_discovery_control))
