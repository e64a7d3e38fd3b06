"""Ways to choose the nodes of a network that stay, and what is done about the others: ours, the paper's, others'.

A way takes a case and the numbers of nodes that are to stay in each layer, and yields a small network for each of
them that it can do.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import jax
import numpy as np

from sobolev_utils.learning.losses import plain
from sobolev_utils.learning.surrogate import Surrogate
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
from sobolev_utils.pruning.reconstruction import refit
from sobolev_utils.pruning.sampled_network import Large
from sobolev_utils.pruning.significance import Significance, analyse
from sobolev_utils.pruning.subdivision import analyse_subdivided
from sobolev_utils.studies.cases import Case

__all__ = ["WAYS", "Analysed"]

POINTS = 2**11  # of a reconstruction
BOXES, BATCH = 2**10, 64  # sub-boxes of a tight analysis
SURGERY = 256  # points of the surgeon's Hessian, whose cost is cubic in them
STEP = 0.9  # of the surgeon, who looks again after each: how many nodes stay
SLABS = 8  # of conditional significance
FEW = (3, 8)  # nodes, of the ways that take long


@dataclass(frozen=True, eq=False)
class Analysed:
    """A case, and what several ways need to know of its network, found once."""

    case: Case

    @property
    def network(self) -> Surrogate:
        return self.case.network

    @cached_property
    def reached(self) -> Significance:
        """From inside."""
        return inside(self.network, self.case.inputs)

    @cached_property
    def plainly(self) -> Significance:
        """The paper's, by one evaluation in interval arithmetic."""
        return analyse(self.network, self.case.inputs, method="operations")

    @cached_property
    def tight(self) -> Significance:
        """By affine arithmetic on sub-boxes."""
        options = {"method": "zonotopes", "boxes": BOXES, "batch": BATCH}
        return analyse_subdivided(self.network, self.case.inputs, self.reached, **options)

    @cached_property
    def random(self) -> list[jax.Array]:
        return random_scores(self.network, jax.random.fold_in(self.case.key, 2))

    @cached_property
    def conditional(self) -> Choice:
        return conditional_significance(self.network, self.case.inputs, self.tight, n_slabs=SLABS)

    @cached_property
    def sampled(self) -> Large:
        """With derivatives."""
        return Large.at(self.network, self.case.inputs, POINTS, 1.0, 0)

    @cached_property
    def values_sampled(self) -> Large:
        """Without."""
        return Large.at(self.network, self.case.inputs, POINTS, 0.0, 0)


Scores = Sequence[np.ndarray]
Way = Callable[[Analysed, Sequence[int]], Iterator[tuple[int, Surrogate]]]


def held_at_means(scores: Callable[[Analysed], Scores], seen: Analysed, counts: Sequence[int]):
    """The nodes of largest score stay; the others are held at their means."""
    found, means = scores(seen), mean_nodes(seen.network, seen.case.samples.x)
    for count in counts:
        yield count, prune(seen.network, most_significant(found, count), means)


def reconstructed(choice: Callable[[Analysed], Choice], large: Callable[[Analysed], Large], only: Sequence[int] = ()):
    """What follows is refitted; to `only` these numbers of nodes, if given."""

    def way(seen: Analysed, counts: Sequence[int]):
        for count in counts:
            if count in only or not only:
                yield count, refit(large(seen), large(seen).whole, count, choice(seen)).model

    return way


def _of_largest(scores: Callable[[Analysed], Scores]) -> Callable[[Analysed], Choice]:
    """The choice of the nodes of largest score."""

    def choice(seen: Analysed) -> Choice:
        found = [np.asarray(each) for each in scores(seen)]
        return lambda layer, count: np.sort(np.argsort(-found[layer.number - 1], kind="stable")[:count])

    return choice


def _weighed_by_intervals(seen: Analysed) -> Large:
    """What a node receives counts by the node's largest interval adjoint, not by the adjoints at the points.

    The adjoint is that of the node's value: up to the activation's largest slope it bounds that of what it receives,
    loosely where the activation saturates.
    """
    weights = [np.diag(np.ravel(np.asarray(adjoint.magnitude, float))) for adjoint in seen.tight.adjoints[1:]]
    return replace(seen.sampled, metrics=weights)


def by_surgery(seen: Analysed, counts: Sequence[int]):
    """The surgeon, in steps, as each of them moves the weights that stay."""
    model, x = seen.network, seen.case.samples.x[:SURGERY]
    for count in sorted(counts, reverse=True):
        while max(model.widths) > count:
            fewer = [max(min(count, width), int(STEP * width)) for width in model.widths]
            model = compensated(model, most_significant(brain_surgeon(model, x), fewer), x)
        yield count, model


_PURSUIT, _PIVOTED_QR = (lambda seen: matching_pursuit), (lambda seen: pivoted_qr)
_CONDITIONAL, _RANDOM = (lambda seen: seen.conditional), (lambda seen: seen.random)
_BOTH, _VALUES = (lambda seen: seen.sampled), (lambda seen: seen.values_sampled)
WAYS: dict[str, Way] = {
    "pursuit": reconstructed(_PURSUIT, _BOTH),
    "pursuit_values": reconstructed(_PURSUIT, _VALUES),
    "pursuit_interval": reconstructed(_PURSUIT, _weighed_by_intervals),
    "pivoted_qr": reconstructed(_PIVOTED_QR, _BOTH),
    "pivoted_qr_values": reconstructed(_PIVOTED_QR, _VALUES),  # the interpolative decomposition
    "conditional": reconstructed(_CONDITIONAL, _BOTH, FEW),
    "conditional_values": reconstructed(_CONDITIONAL, _VALUES, FEW),
    "iasa_refitted": reconstructed(_of_largest(lambda seen: seen.plainly.hidden), _BOTH),
    "random_refitted": reconstructed(_of_largest(_RANDOM), _BOTH),
    "iasa_plain": partial(held_at_means, lambda seen: seen.plainly.hidden),
    "iasa_tight": partial(held_at_means, lambda seen: seen.tight.hidden),
    "sampled": partial(held_at_means, lambda seen: seen.reached.hidden),
    "magnitude": partial(held_at_means, lambda seen: magnitude(seen.network)),
    "saliency": partial(held_at_means, lambda seen: saliency(seen.network, plain, seen.case.samples)),
    "brain_damage": partial(held_at_means, lambda seen: brain_damage(seen.network, seen.case.samples.x)),
    "brain_surgeon": by_surgery,
    "random": partial(held_at_means, _RANDOM),
}
