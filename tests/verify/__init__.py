"""Are the enclosures rigorous? Against ball arithmetic and samples: `make verify`; a bounded sample in `make test`.

`primitives` asks of every rule that no point of a box has its exact image outside; `networks` asks it of the values
and adjoints of every node of whole networks. The enclosing function is an argument of both.
"""

from sobolev_utils.enclosures import intervals, zonotopes

__all__ = ["METHODS"]

# The ways to enclose a function, `method(f)(*boxes)`.
METHODS = {"intervals": intervals.enclose, "zonotopes": zonotopes.enclose}
