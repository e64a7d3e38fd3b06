"""Rigour of the enclosures, against ball arithmetic and samples: `make verify`; a bounded sample in `make test`.

`primitives` checks, for every rule, that no point of a box has its exact image outside; `networks` checks the values
and adjoints of all nodes of whole networks. The enclosing function is an argument of both.
"""

from sobolev_utils.enclosures import intervals, zonotopes

__all__ = ["METHODS"]

# The ways to enclose a function, `method(f)(*boxes)`.
METHODS = {"intervals": intervals.enclose, "zonotopes": zonotopes.enclose}
