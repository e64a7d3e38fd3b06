"""Rigour of the enclosures, against ball arithmetic and samples: `make verify`; a bounded sample in `make test`.

`primitives` checks, for every rule, that no point of a box has its exact image outside; `networks` checks the values
and adjoints of all nodes of whole networks. The enclosing function is an argument of both.
"""

import numpy as np

from sobolev_utils.enclosures import intervals, zonotopes
from sobolev_utils.enclosures.interval import Section

__all__ = ["METHODS", "WAYS"]


def on_a_section(f):
    """The affine extension of a function of x, (n,), on that section of a box which is all of it."""

    def enclosed(x):
        direction = np.linspace(1, -0.5, *x.shape, dtype=x.dtype)
        level = intervals.enclose(lambda x: x @ direction)(x)
        return zonotopes.enclose(f)(Section(x.lower, x.upper, direction=direction, level=level))

    return enclosed


# The ways to enclose a function, `method(f)(*boxes)`; and those of functions of one vector.
METHODS = {"intervals": intervals.enclose, "zonotopes": zonotopes.enclose}
WAYS = METHODS | {"sections": on_a_section}
