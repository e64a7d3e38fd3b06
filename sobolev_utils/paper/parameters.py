"""Which values the parameters of notebooks may have, for one notebook and for a run of all of them."""

import sys
from collections.abc import Callable, Mapping, MutableMapping
from math import exp, sqrt
from statistics import NormalDist

__all__ = ["RULES", "admit", "admitted"]

# The least and the largest admissible value of each, or the words that it may be. Counts end where memory or
# the time to compile would not suffice.
_RULES: dict[str, tuple] = {
    "seed basket_seed": (0, 2**32 - 1),
    "n_assets": (1, 200),
    "strike": (1e-3, 100.0),
    "volatility": (0.01, 10.0),
    "exposure": (0.01, 100.0),
    "maturity": (0.01, 200.0),
    "n_samples n_test": (16, 2**18),
    "n_points": (16, 2**13),
    "points": ("sobol", "pseudo_random"),
    "spread": (0.1, 10.0),
    "smoothing": (1e-6, 1.0),
    "width keep keep_preserved": (1, 1024),
    "small_width": (1, 64),
    "depth small_depth": (1, 16),
    "activation": ("silu", "tanh", "softplus", "sigmoid", "relu"),
    "epochs epochs_between epochs_preserved iterations batch": (1, 2**18),
    "optimiser": ("adam", "muon"),
    "learning_rate learning_rate_preserved": (1e-8, 0.1),
    "weight_decay": (0.0, 10.0),
    "sobolev_weight curvature_weight": (0.0, 1e6),
    "boxes": (1, 2**20),
    "lower upper": (-1.0, 10.0),
    "reversion": (0.0, 100.0),
    "mean_variance": (1e-4, 1.0),
    "floor": (1e-8, 0.01),
    "n_steps": (1, 256),
    "n_truth": (4, 512),
    "n_nets": (2, 1024),
    "stage": (
        *("oversized", "pruned", "sobolev_nn", "sobolev_reference"),
        *("preserved", "preserved_values", "preserved_nn", "preserved_reference"),
    ),
    "budget": ("paths_8192", "fresh_paths", "paper_recipe"),
    "level": (0.4, 1.6),
}
RULES = {name: rule for names, rule in _RULES.items() for name in names.split()}


def _strike(strike, volatility, exposure, maturity, spread, n_samples, n_assets, n_test) -> str:
    """The strike must be so near that the labels, and the closed form on the test set, vary."""
    end = sqrt(spread**2 * exposure + maturity - exposure) * volatility  # deviation of the basket in the sample
    if not n_samples * NormalDist().cdf(-abs(strike - 1) / end) >= 8:
        return "a strike so near to 1 that at least 8 payoffs of the sample end on either side of it"
    deviation = volatility * sqrt(maturity - exposure)
    # of the basket on the test set: uniform in `GaussianBasket.box`, for weights that are alike
    tested = (1 + 0.5 * sqrt((n_assets - 1) / 12)) / sqrt(12 * n_assets)
    if abs(strike - 1) > 2 * tested + 6 * deviation:
        return "a strike so near to 1 that the price varies on the test set"
    if n_test * min(1, deviation / tested) < 4:
        return "a strike with more test spots near it: raise n_test or volatility"
    return ""


def _box(lower, upper, strike, maturity, mean_variance) -> str:
    least, most = (0.01, 0.0, 0.0, -0.999), (10.0, 1.0, 2.0, 0.999)
    fits = len(lower) == len(upper) == 4
    if not (fits and all(a <= low < high <= b for a, low, high, b in zip(least, lower, upper, most, strict=True))):
        return f"four numbers from {list(least)}, each below that of upper, which go to {list(most)}"
    if max(upper[1] ** 2, mean_variance) * maturity > 2:
        return "with a variance until maturity of at most 2: lower maturity, mean_variance or the upper volatility"
    reach = exp(sqrt(mean_variance * maturity))
    low, high = lower[0] / reach**6, upper[0] * reach
    return "" if low <= strike <= high else f"spots for a strike of {strike:g}: these are for {low:.3g} to {high:.3g}"


# What is expected of the first of some parameters given the others, or "" where they fit. WITHIN: all are of one
# notebook; ACROSS: all but the first may be of an earlier one.
WITHIN: dict[str, Callable[..., str]] = {
    "exposure maturity": lambda t1, t2: "" if t2 - t1 >= 0.01 else f"0.01 years or more before maturity, {t2:g}",
    "strike volatility exposure maturity spread n_samples n_assets n_test": _strike,
    "lower upper strike maturity mean_variance": _box,
    "reversion maturity n_steps": lambda k, t, n: "" if k * t <= n else f"at most n_steps / maturity, {n / t:g}",
}
ACROSS: dict[str, Callable[..., str]] = {
    "batch n_samples": lambda batch, n: "" if n % batch == 0 else f"a divisor of n_samples, {n}",
    "keep width": lambda keep, width: "" if keep <= width else f"at most the width, {width}",
}


def admit(namespace: MutableMapping[str, object]) -> None:
    """Convert the parameters of a notebook in its `namespace`, `globals()`: those that its parameters cell annotates.

    An int becomes a float where a float is meant. Raises ValueError, in one line, for what is not admissible.
    """
    kinds = namespace["__annotations__"]
    namespace |= admitted({name: namespace[name] for name in kinds}, kinds)


def admitted(
    given: Mapping[str, object], kinds: Mapping[str, type], before: Mapping[str, object] | None = None
) -> dict[str, object]:
    """The parameters `given` in the types of `kinds`, ints as floats where these are meant.

    before: parameters of earlier notebooks, which these must fit. Raises ValueError for another type, a value out of
    its range in `RULES`, or values that do not fit each other.
    """
    found = {name: _converted(value, kinds[name]) for name, value in given.items()}
    for name, value in found.items():
        _require(name, value, _expected(value, kinds[name], RULES.get(name)))
    for names, relation in (WITHIN | ACROSS).items():
        first, *others = names.split()
        known = found if names in WITHIN else {**(before or {}), **found}
        if first in found and known.keys() >= set(others):
            _require(first, found[first], relation(found[first], *(known[name] for name in others)))
    return found


def _converted(value: object, kind: type) -> object:
    if kind is list and type(value) is list:
        return [_converted(entry, float) for entry in value]
    return float(value) if kind is float and type(value) is int and abs(value) <= sys.float_info.max else value


def _expected(value: object, kind: type, rule: tuple | None) -> str:
    """The type, range or words expected of a value, or "" where it has them."""
    if type(value) is not kind:
        return f"{'an' if kind is int else 'a'} {kind.__name__}"
    if rule is None or value in rule:
        return ""
    if kind is str:
        return f"one of {', '.join(rule)}"
    entries = value if kind is list else [value]
    if all(type(entry) in (int, float) and rule[0] <= entry <= rule[1] for entry in entries):
        return ""
    least, most = (f"{end:,}" if type(end) is int else f"{end:g}" for end in rule)
    return f"{'entries' if kind is list else 'a number'} from {least} to {most}"


def _require(name: str, value: object, expected: str) -> None:
    if expected:
        raise ValueError(f"{name} = {value!r} is not admissible, expected {expected}")
