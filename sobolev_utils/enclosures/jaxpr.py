"""Evaluation of a jaxpr in another domain, such as intervals: the walker, which knows nothing of the domain."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import source_info_util
from jax.extend.core import Literal, jaxpr_as_fun

from sobolev_utils.enclosures.chains import extend, settle
from sobolev_utils.enclosures.elementwise import as_usual, is_array, listed

__all__ = ["walk"]


def walk(jaxpr, consts, args, rules):
    """The outputs, a list, of a jaxpr evaluated in another domain.

    A value is an element of the domain or an array, which stands for itself. `rules` maps the name of a primitive to
    `rule(eqn, *values)`, which returns a list of outputs, or the only one. Operations on indices and masks alone are
    computed as usual, calls are walked into, and scans are unrolled. With a rule "univariate", elementwise programs
    of one variable are gathered (see `chains`) and evaluated by `rules["univariate"](program, value)`.

    Raises NotImplementedError for a primitive without a rule, and what a rule raises for operands that it does not
    take, with the primitive and its source line.
    """
    return [settle(value, rules) for value in _walk(jaxpr, consts, args, rules, "an unknown line")]


def _walk(jaxpr, consts, args, rules, caller):
    """The same with chains among the outputs; `caller` is the line of the call."""
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom):
        return np.asarray(atom.val, atom.aval.dtype) if isinstance(atom, Literal) else env[atom]

    for eqn in jaxpr.eqns:
        values = [read(atom) for atom in eqn.invars]
        name, variables = eqn.primitive.name, [*eqn.invars, *eqn.outvars]
        line = source_info_util.summarize(eqn.source_info) or caller
        body = next((eqn.params[key] for key in _BODIES if name in _CALLS and key in eqn.params), None)
        if name == "custom_jvp_call" and _is_exp_neg_sq(getattr(body, "jaxpr", body).debug_info.func_src_info):
            body = jax.make_jaxpr(lambda x: jnp.exp(-(x * x)))(eqn.invars[0].aval)
        if all(map(is_array, values)) and not any(jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in variables):
            outputs = as_usual(eqn, *values)
        elif "univariate" in rules and (chain := extend(name, eqn, values, rules)) is not None:
            outputs = chain
        elif name in rules:
            try:
                outputs = rules[name](eqn, *(settle(value, rules) for value in values))
            except (NotImplementedError, ValueError) as error:
                raise type(error)(f"{error}; by the primitive '{name}', used at {line}") from error
        elif body is not None:
            body = _unrolled(eqn) if name == "scan" else body
            outputs = _walk(getattr(body, "jaxpr", body), getattr(body, "consts", ()), values, rules, line)
        else:
            raise NotImplementedError(
                f"no rule for the primitive '{name}', used at {line}: write it with others, or add a rule"
            )
        env.update(zip(eqn.outvars, listed(outputs), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


_CALLS = "jit pjit closed_call eval_jaxpr custom_jvp_call custom_vjp_call checkpoint remat remat2 scan".split()
_BODIES = "jaxpr", "call_jaxpr", "fun_jaxpr"


def _is_exp_neg_sq(source):
    """Whether a function is JAX's own exp(-x^2), which JAX 0.12 computes from the bits of x."""
    return (source or "").startswith(f"exp_neg_sq at {Path(jax.__file__).parent}")


def _unrolled(eqn):
    """The jaxpr of a scan without its loop."""
    body, length = eqn.params["jaxpr"], eqn.params["length"]
    # arguments are constants, carry, slices; the parameters that count them change with the version of JAX
    carries = sum(v.aval.ndim == out.ndim for v, out in zip(eqn.outvars, body.out_avals, strict=True))
    slices = sum(v.aval.ndim > x.ndim for v, x in zip(eqn.invars, body.in_avals, strict=True))
    consts = len(eqn.invars) - carries - slices

    def loop(*args):
        carry, outputs = args[consts : consts + carries], [None] * length
        for i in reversed(range(length)) if eqn.params["reverse"] else range(length):
            xs = [lax.index_in_dim(x, i, keepdims=False) for x in args[consts + carries :]]
            out = jaxpr_as_fun(body)(*args[:consts], *carry, *xs)
            carry, outputs[i] = out[:carries], out[carries:]
        if not length:
            return *carry, *(jnp.zeros(v.aval.shape, v.aval.dtype) for v in eqn.outvars[carries:])
        return *carry, *map(jnp.stack, zip(*outputs, strict=True))

    return jax.make_jaxpr(loop)(*(jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars))
