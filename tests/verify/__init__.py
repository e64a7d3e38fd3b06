"""Are the enclosures rigorous? Against ball arithmetic and samples: `make verify`; a bounded sample in `make test`.

`primitives` asks of every rule that no point of a box has its exact image outside; `networks` asks it of the values
and adjoints of every node of whole networks. The enclosing function is an argument of both.
"""

import importlib
from importlib.util import find_spec

__all__ = ["METHODS"]

# The ways to enclose a function, `method(f)(*boxes)`: modules with a function `enclose`.
METHODS = {
    name: importlib.import_module(f"sobolev_utils.{name}").enclose
    for name in ("intervals", "zonotopes")
    if find_spec(f"sobolev_utils.{name}")
}
