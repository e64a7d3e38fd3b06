"""Whether a function that is to be compiled once can be: whether it is a function of its arguments alone."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

__all__ = ["checked_shapes"]

NOT_TRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.UnexpectedTracerError,
)


def checked_shapes(name: str, f: Callable, *arguments):
    """The shapes and types of f(*arguments), as of `jax.eval_shape`, where f depends on its arguments alone.

    f is traced twice. Numbers from elsewhere, such as NumPy's random ones, are constants of the traced program, which
    compilation would freeze: they must be the same in both. Raises ValueError where they are not, and where f cannot
    be traced, as when it passes its arguments to NumPy.
    """
    try:
        first, shapes = jax.make_jaxpr(f, return_shape=True)(*arguments)
        # a setting that keys the caches of `jax.jit`, so that what f has compiled is traced anew
        with jax.default_matmul_precision("TF32_TF32_F32_X3"):
            second = jax.make_jaxpr(f)(*arguments)
    except NOT_TRACEABLE as error:
        reason = str(error).splitlines()[0]
        message = f"{name} cannot be compiled: write it with jax.numpy and jax.random alone. {reason}"
        raise ValueError(message) from error
    if list(_constants(first)) != list(_constants(second)):
        raise ValueError(
            f"{name} is not a function of its arguments alone: called twice, it took other numbers, and compiled, it "
            "would repeat the first for ever. Draw random numbers by jax.random from its key, not by NumPy"
        )
    return shapes


def _constants(program: ClosedJaxpr | Jaxpr) -> Iterator:
    """The operations of a program in order, and the bytes of all numbers that are not computed from its arguments."""
    yield from map(_bytes, getattr(program, "consts", ()))
    for eqn in program.eqns:
        yield eqn.primitive.name
        yield from (_bytes(atom.val) for atom in eqn.invars if isinstance(atom, Literal))
        for parameter in jax.tree.leaves(list(eqn.params.values())):
            if isinstance(parameter, ClosedJaxpr | Jaxpr):
                yield from _constants(parameter)
            elif isinstance(parameter, int | float):  # such as where a slice begins
                yield str(parameter)


def _bytes(constant) -> tuple:
    if jnp.issubdtype(getattr(constant, "dtype", None), jax.dtypes.prng_key):
        constant = jax.random.key_data(constant)
    array = np.asarray(constant)
    return array.dtype, array.shape, array.tobytes()
