"""Ways to prune compared: one oversized network, before and after the same fine-tuning, by number of nodes.

A way takes a `Case` and the numbers of nodes that are to stay, and yields the small network for each of them. What
has no oversized network to start from is trained on as many samples as that and the fine-tuning took together.
"""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property, partial

import jax
import numpy as np
import pandas as pd
from flax import nnx

from sobolev_utils.enclosures.intervals import Interval
from sobolev_utils.learning.losses import Loss, plain, sobolev
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.learning.training import Draw
from sobolev_utils.models.samples import Samples
from sobolev_utils.paper.stages import QUANTITIES
from sobolev_utils.pruning.attained import inside
from sobolev_utils.pruning.baselines import (
    brain_damage,
    brain_surgeon,
    compensated,
    magnitude,
    random_scores,
    saliency,
)
from sobolev_utils.pruning.choice import Choice, matching_pursuit, pivoted_qr
from sobolev_utils.pruning.conditional_choice import conditional_significance
from sobolev_utils.pruning.nodes import mean_nodes, most_significant, prune
from sobolev_utils.pruning.reconstruction import reconstruct, refit
from sobolev_utils.pruning.sampled_network import Large
from sobolev_utils.pruning.significance import Significance, analyse
from sobolev_utils.pruning.subdivision import analyse_subdivided
from sobolev_utils.studies.sparse_training import trained_sparsely
from sobolev_utils.studies.together import fit_together

__all__ = ["COLUMNS", "SIZES", "TUNED", "WAYS", "Case", "compare"]

COLUMNS = ["method", "nodes", "parameters", "stage", "quantity", "r2"]
SIZES = (2, 3, 4, 6, 8, 12, 16, 32, 64)  # nodes that stay in each hidden layer
TUNED = (3, 8, 16)  # of these, before and after fine-tuning
SPARSE = 8  # nodes of the small network whose weights are counted in sparse training
LOSSES: dict[str, Loss] = {"plain": plain, "sobolev": sobolev()}
EPOCHS, BATCH, RATES = 50, 512, (1e-4, 3e-3)  # of fine-tuning; of the rates the better on samples held out
BOXES = 2**10  # sub-boxes of a tight analysis
SURGERY = 512  # points of the surgeon's Hessian
SLABS = 16  # of conditional significance, whose search is slow beyond MOST nodes
MOST = 16


@dataclass(frozen=True, eq=False)
class Case:
    """A network to prune: its box, the samples of an epoch, others held out, and R^2 of what it is to know.

    epochs: how many it was trained for, in samples as `draw` gives them; score: R^2 (3,) of values, derivatives and
    second derivatives of a network.
    """

    network: Surrogate
    inputs: Interval
    draw: Draw
    held_out: Samples
    epochs: int
    score: Callable[[Surrogate], np.ndarray]
    key: jax.Array

    @cached_property
    def samples(self) -> Samples:
        return self.draw(jax.random.fold_in(self.key, 0))

    @cached_property
    def tight(self) -> Significance:
        """Enclosures on sub-boxes."""
        return analyse_subdivided(self.network, self.inputs, inside(self.network, self.inputs), boxes=BOXES)

    def fresh(self, width: int) -> Surrogate:
        """An untrained network of as many layers and the same normalisation."""
        sizes = [width] * len(self.network.widths)
        model = Surrogate(self.network.n_inputs, sizes, activation=self.network.activation, rngs=nnx.Rngs(self.key))
        by_input = self.network.x_std[...].size > 1
        return model.normalise(self.samples.x, self.samples.y, by_input=by_input)


Way = Callable[[Case, Sequence[int]], Iterator[Surrogate]]


def held_at_means(scores: Callable[[Case], Sequence[np.ndarray]], case: Case, counts: Sequence[int]):
    """The nodes of largest score stay; the others are held at their means."""
    found, means = scores(case), mean_nodes(case.network, case.samples.x)
    for count in counts:
        yield prune(case.network, most_significant(found, count), means)


def at_midpoints(case: Case, counts: Sequence[int]) -> Iterator[Surrogate]:
    """By significance on sub-boxes; the others are held at the midpoints of their enclosures."""
    for count in counts:
        kept = most_significant(case.tight.hidden, count)
        yield prune(case.network, kept, [value.midpoint for value in case.tight.values[1:-1]])


def refitted(choice: Callable[[Case], Choice], weight: float, case: Case, counts: Sequence[int], most: int = 128):
    """Reconstruction, with this choice and weight of the derivatives, to at most so many nodes."""
    choose = choice(case)
    for count in counts:
        if count <= most:
            yield reconstruct(case.network, case.inputs, count, choose=choose, weight=weight)


def weighed_by_intervals(case: Case, counts: Sequence[int]) -> Iterator[Surrogate]:
    """Matching pursuit of what the next layer receives, each of its nodes weighed by its largest interval adjoint."""
    large = Large.at(case.network, case.inputs, 2**11, 1.0, 0)
    weights = [np.diag(np.ravel(np.asarray(adjoint.magnitude, float))) for adjoint in case.tight.adjoints[1:]]
    large = replace(large, metrics=weights)
    for count in counts:
        yield refit(large, large.whole, count).model


def by_surgery(case: Case, counts: Sequence[int]) -> Iterator[Surrogate]:
    """The surgeon in steps, from size to size, as each step moves the weights that stay."""
    model, x, found = case.network, case.samples.x[:SURGERY], {}
    for count in sorted(counts, reverse=True):
        model = compensated(model, most_significant(brain_surgeon(model, x), count), x)
        found[count] = model
    yield from (found[count] for count in counts)


def _of_random(case: Case) -> list[jax.Array]:
    return random_scores(case.network, jax.random.fold_in(case.key, 2))


def _same(scores: Callable[[Case], Sequence[np.ndarray]]) -> Callable[[Case], Choice]:
    """The choice of the nodes of largest score."""

    def choice(case: Case) -> Choice:
        found = [np.asarray(each) for each in scores(case)]
        return lambda layer, count: np.sort(np.argsort(-found[layer.number - 1], kind="stable")[:count])

    return choice


def _plainly(case: Case) -> list[jax.Array]:
    return analyse(case.network, case.inputs, method="operations").hidden


CHOICES: dict[str, Callable[[Case], Choice]] = {
    "pursuit": lambda case: matching_pursuit,
    "pivoted_qr": lambda case: pivoted_qr,
    "conditional": lambda case: conditional_significance(case.network, case.inputs, n_slabs=SLABS),
}
WAYS: dict[str, Way] = {
    **{
        name: partial(refitted, choice, 1.0, most=MOST if name == "conditional" else 128)
        for name, choice in CHOICES.items()
    },
    **{
        f"{name}_values": partial(refitted, choice, 0.0, most=MOST if name == "conditional" else 128)
        for name, choice in CHOICES.items()
    },
    "pursuit_interval": weighed_by_intervals,
    "iasa_refitted": partial(refitted, _same(_plainly), 1.0),
    "random_refitted": partial(refitted, _same(_of_random), 1.0),
    "iasa_plain": partial(held_at_means, _plainly),
    "iasa_tight": at_midpoints,
    "sampled": partial(held_at_means, lambda case: inside(case.network, case.inputs).hidden),
    "magnitude": partial(held_at_means, lambda case: magnitude(case.network)),
    "saliency": partial(held_at_means, lambda case: saliency(case.network, plain, case.samples)),
    "brain_damage": partial(held_at_means, lambda case: brain_damage(case.network, case.samples.x)),
    "brain_surgeon": by_surgery,
    "random": partial(held_at_means, _of_random),
}


def compare(case: Case, sizes: Sequence[int] = SIZES) -> pd.DataFrame:
    """The rows of all ways: R^2 before fine-tuning, and after it with values alone or with derivatives."""
    small: dict[str, dict[int, Surrogate]] = {}
    rows = []

    def note(method, count, stage, model):
        scores = zip(QUANTITIES, case.score(model), strict=True)
        rows.extend((method, count, model.n_parameters, stage, quantity, score) for quantity, score in scores)

    note("oversized", case.network.widths[0], "before", case.network)
    for method, way in WAYS.items():
        start = time.monotonic()
        with redirect_stdout(io.StringIO()):  # no progress bars
            small[method] = dict(zip(sizes, way(case, sizes), strict=False))
        for count, model in small[method].items():
            note(method, count, "before", model)
        print(f"{method}: {time.monotonic() - start:.0f} s", flush=True)
    for count in (count for count in TUNED if count in sizes):
        methods = [method for method in small if count in small[method]]
        models = [small[method][count] for method in methods]
        for name, loss in LOSSES.items():
            start, key = time.monotonic(), jax.random.fold_in(case.key, 3)
            for method, model in zip(methods, _tuned(case, models, loss, key, EPOCHS), strict=True):
                note(method, count, f"after, {name}", model)
            (model,) = _tuned(case, [case.fresh(count)], loss, key, case.epochs + EPOCHS)
            note("scratch", count, f"after, {name}", model)
            print(f"{count} nodes, {name}: {time.monotonic() - start:.0f} s", flush=True)
            if count == SPARSE:
                for method in ("set", "rigl"):
                    note(method, count, f"after, {name}", _sparse(case, models[0], loss, key, method == "rigl"))
    return pd.DataFrame(rows, columns=COLUMNS)


def _tuned(case: Case, models: Sequence[Surrogate], loss: Loss, key: jax.Array, epochs: int) -> list[Surrogate]:
    options = {"epochs": epochs, "batch": BATCH, "learning_rates": RATES}
    return fit_together(models, case.draw, loss, case.held_out, key=key, **options)


def _sparse(case: Case, small: Surrogate, loss: Loss, key: jax.Array, by_gradient: bool) -> Surrogate:
    """Sparse training with as many weights as `small` has."""
    n_weights = sum(layer.kernel[...].size for layer in small.layers)
    options = {"epochs": case.epochs + EPOCHS, "batch": BATCH, "learning_rate": RATES[-1]}
    large = case.fresh(case.network.widths[0])
    return trained_sparsely(large, case.draw, loss, n_weights, key=key, by_gradient=by_gradient, **options)
