"""Chains of elementwise operations, gathered while a jaxpr is walked.

Operation by operation, a domain forgets that both factors of x * logistic(x) are functions of one x. A `Chain` stands
for scale * f(root), with f the whole program from one value to another, so that the domain can bound f at once. In
reverse sweeps the scale is the adjoint: g s(x) + (g x) s'(x) is g (s + x s')(x).
"""

import functools
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from sobolev_utils.enclosures.elementwise import (
    ELEMENTWISE,
    ONE,
    VARIABLE,
    Program,
    as_usual,
    factored,
    is_array,
    listed,
)

__all__ = ["Chain", "extend", "settle"]

# The largest number of operations of a chain. An activation and its derivatives have fewer, and so has a price with a
# normal distribution and its derivative.
LARGEST = 128
LINEAR = "neg copy convert_element_type mul div add sub add_any select_n".split()


@dataclass(eq=False)
class Chain:
    """The value scale * program(root), elementwise, computed when it is needed; a scale of None is 1.

    Where the root is an array, the program is of numbers alone: a constant, which counts as one in other programs.
    """

    root: object
    program: Program = VARIABLE
    scale: object = None
    settled: object = field(default=None, repr=False)

    @functools.cached_property
    def size(self):
        """How many operations it gathers."""
        return len(self.program.operations) + (self.scale.size if isinstance(self.scale, Chain) else 0)

    @property
    def is_plain(self):
        return self.scale is None and self.program is VARIABLE


def settle(value, rules):
    """A value of the domain in place of a chain: by the rules "univariate" and "mul"."""
    if not isinstance(value, Chain):
        return value
    if value.settled is None:
        is_root = value.program is VARIABLE
        result = value.root if is_root else rules["univariate"](value.program, value.root)
        if value.scale is not None:
            (result,) = listed(rules["mul"](None, settle(value.scale, rules), result))
        value.settled = result
    return value.settled


def extend(name, eqn, values, rules):
    """The output of an equation as a chain, of at most LARGEST operations, or None where it is none."""
    chain = _extended(name, eqn, values)
    if chain is not None and chain.size > LARGEST:
        chain = _extended(name, eqn, [settle(value, rules) for value in values])
    return chain


def _extended(name, eqn, values):
    out = eqn.outvars[0].aval
    if name == "broadcast_in_dim" and isinstance(values[0], Chain) and is_array(values[0].root):
        return Chain(np.zeros(out.shape, out.dtype), values[0].program)
    if name not in ELEMENTWISE or out.dtype.kind not in "fb":
        return None
    parts = list(map(_part, values))
    chains = [part for part in parts if isinstance(part, Chain)]
    if any(part is None for part in parts) or any(chain.root.shape != out.shape for chain in chains):
        return None
    if name == "convert_element_type" and out.dtype != getattr(values[0], "root", values[0]).dtype:
        return None
    if name == "pow" and not _is_number(parts[1]) and (not _is_number(parts[0]) or not parts[0] > 0):
        return None  # 0^y jumps where y is 0, and JAX takes its derivative in y to be 0

    def program(*parts):
        parts = tuple(part.program if isinstance(part, Chain) else part for part in parts)
        return factored(name, parts) or Program(name, lambda *args: as_usual(eqn, *args), parts)

    if not chains:
        return Chain(np.zeros(out.shape, out.dtype), program(*parts)) if out.dtype.kind == "f" else None
    if all(chain.scale is None and chain.root is chains[0].root for chain in chains):
        return Chain(chains[0].root, program(*parts))
    if name == "mul" and len(chains) == 2:
        return _product(*chains, program)
    return _linear(name, parts, program)


def _product(a, b, program):
    """The product of two chains of different roots, or None."""
    for x, y in ((a, b), (b, a)):
        if x.scale is not None and y.scale is None:
            for view in _views(x):
                if view.root is y.root:
                    return Chain(view.root, program(view, y), view.scale)
    if a.scale is not None and b.scale is not None:
        return None
    a, b = (a, b) if b.scale is None and not (a.scale is None and b.is_plain) else (b, a)
    return Chain(b.root, b.program, a.root if a.is_plain else a)


def _linear(name, parts, program):
    """An operation that is linear in the common scale of its operands, or None.

    The divisor of a quotient and the condition of a select are no such operands: they depend on the root alone.
    """
    if name not in LINEAR:
        return None
    first = {"div": 1, "select_n": 0}.get(name)
    scaled = [part for i, part in enumerate(parts) if isinstance(part, Chain) and i != first]
    lead = next((part for part in scaled if part.scale is not None), None)
    if lead is None and name == "select_n" and isinstance(parts[0], Chain) and parts[0].scale is None:
        # nothing but a mask on the scale: select(root > 0, g, 0)
        plain = [part for part in scaled if part.is_plain]
        lead = Chain(parts[0].root, ONE, plain[0].root) if plain else None
    if lead is None:
        return None
    for view in _views(lead):
        aligned = [_aligned(name, part, view) if i != first else _of(view.root, part) for i, part in enumerate(parts)]
        if all(part is not None for part in aligned):
            return Chain(view.root, program(*aligned), view.scale)
    return None


def _aligned(name, part, view):
    """An operand as a multiple of the scale of `view`, or the number that a linear operation leaves alone."""
    if not isinstance(part, Chain):
        return part if name == "mul" or (name != "div" and _is_number(part) and part == 0) else None
    if part.is_plain and part.root is view.scale:
        return Chain(None, ONE)
    return next((v for v in _views(part) if v.root is view.root and v.scale is view.scale), None)


def _of(root, part):
    """A part that is a number or a function of the root alone, else None."""
    return part if not isinstance(part, Chain) or (part.scale is None and part.root is root) else None


def _views(chain):
    """A scaled chain, and the same with root and scale exchanged where it is a multiple of root * scale."""
    if chain.scale is None:
        return []
    exchanges = chain.program.is_multiple and not isinstance(chain.scale, Chain)
    return [chain, Chain(chain.scale, chain.program, chain.root)] if exchanges else [chain]


def _is_number(part):
    return not isinstance(part, Chain | Program)


def _part(value):
    """A chain, the program of a constant, or the number that an array holds everywhere; None for others, and nan."""
    if isinstance(value, Chain):
        return value.program if is_array(value.root) else value
    if not is_array(value):
        return Chain(value) if jnp.issubdtype(value.dtype, jnp.floating) else None
    if isinstance(value, jax.core.Tracer) or value.size == 0:
        return None
    numbers = np.asarray(value).ravel()
    return numbers[0] if (numbers == numbers[0]).all() else None
