"""Each parameter of each notebook has its rule; what is admissible is converted, what is not is told in one line."""

import pytest

from sobolev_utils.learning.surrogate import ACTIVATIONS
from sobolev_utils.models.points import POINTS
from sobolev_utils.paper.case_study import BUDGETS
from sobolev_utils.paper.execution import ReproductionError, read_parameters
from sobolev_utils.paper.parameters import RULES, admit, admitted
from sobolev_utils.paper.reproduce import NOTEBOOKS, NUMBERED, as_run
from sobolev_utils.paper.stages import STAGES

PATHS = sorted(NOTEBOOKS.glob(NUMBERED))
PARAMETERS = {path.stem: read_parameters(path) for path in PATHS}
for has in PARAMETERS.values():
    del has["results"]
KINDS = {name: type(value) for has in PARAMETERS.values() for name, value in has.items()}


def test_every_parameter_has_a_rule_and_every_rule_a_parameter():
    assert KINDS.keys() == RULES.keys()


def test_the_words_are_those_that_the_package_knows():
    known = {"points": POINTS, "activation": ACTIVATIONS, "stage": STAGES, "budget": BUDGETS}
    assert all(set(RULES[name]) == set(words) for name, words in known.items())


def test_the_defaults_are_admissible_and_of_the_types_that_the_cells_say():
    assert as_run(PATHS, {}) == PARAMETERS


@pytest.mark.parametrize("name", RULES)
def test_of_every_parameter_what_is_out_of_range_or_of_another_type_is_refused(name):
    rule, kind = RULES[name], KINDS[name]

    def given(value):
        return {name: [value] if kind is list else value}

    for value in rule:
        assert admitted(given(value), {name: kind}) == given(value)
    number = float if kind is list else kind
    outside = ["another"] if kind is str else [number(rule[0] - 1), number(rule[1] + 1)]
    outside += [float("nan"), float("inf")] if number is float else [0.5]
    outside += [] if kind is str else [10**400, -(10**400)]  # beyond all floats
    for value in [*map(given, outside), *({name: other} for other in (None, True, b"1"))]:
        with pytest.raises(ValueError, match=rf"^{name} = .* is not admissible, expected ") as told:
            admitted(value, {name: kind})
        assert "\n" not in str(told.value)


def test_an_int_becomes_a_float_where_the_parameters_cell_says_so():
    kinds = {"strike": float, "n_assets": int, "lower": list}
    space = {"strike": 1, "n_assets": 3, "lower": [1, 0.5], "__annotations__": kinds}
    admit(space)
    assert [(value, type(value)) for value in (space["strike"], space["n_assets"])] == [(1.0, float), (3, int)]
    assert list(map(type, space["lower"])) == [float, float]
    space["strike"] = "1"
    with pytest.raises(ValueError, match=r"^strike = '1' is not admissible, expected a float$"):
        admit(space)


REFUSED = {
    "batch": ({"batch": 100}, "02_oversized_model: batch = 100 .* a divisor of n_samples, 8192"),
    "keep": ({"width": 4}, "03_iasa_pruning: keep = 8 .* at most the width, 4"),
    "exposure": ({"maturity": 1}, "01_data_generation: exposure = 1.0 .* before maturity, 1"),
    "strike far from the sample": ({"strike": 0.5, "volatility": 0.05}, "01_.*: strike = 0.5 .* 8 payoffs"),
    "strike far from the test": ({"maturity": 1.01, "strike": 1.8}, "01_.*: strike = 1.8 .* on the test set"),
    "too few test spots": ({"n_test": 16, "volatility": 0.01, "strike": 1}, "strike = 1.0 .* with more test spots"),
    "strike of the last": ({"strike": 2.1, "volatility": 1}, "15_your_own_model: lower = .* a strike of 2.1"),
    "box": ({"lower": [1, 0.1, 0.1]}, "15_your_own_model: lower = .* four numbers"),
    "box upside down": ({"lower": [1.5, 0.1, 0.1, 0]}, "15_your_own_model: lower = .* each below"),
    "variance": ({"maturity": 50}, "15_your_own_model: lower = .* a variance until maturity"),
    "steps": ({"n_steps": 1}, "15_your_own_model: reversion = 2.0 .* at most n_steps / maturity, 1"),
}


@pytest.mark.parametrize("given, told", REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_together_is_refused_across_notebooks_too(given, told):
    with pytest.raises(ReproductionError, match=told):
        as_run(PATHS, given)
