"""Numerical kernels, written once for NumPy and for XLA.

Where all operands are known numbers NumPy computes: nothing is compiled, and a first call is as quick as the next.
Within a transformation, as under jit and vmap, XLA does, and compiles a kernel once for each shape. Both stay within
the margins of `rounding`: NumPy's arithmetic is that of IEEE 754, and its sums have an order of their own.
"""

import functools
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["dot", "is_traced", "kernel", "known", "namespace"]


def kernel(f=None, *, static=(), barrier=False):
    """f(xp, *args) with xp, the functions of NumPy or of jax.numpy, left out; arguments in `static` are hashable.

    barrier: within a program that XLA compiles as a whole the results stay behind a barrier. XLA would turn (x c) d
    into x (c d) for constants c and d, where c d may underflow. What it does once barriers are dropped (fusing loops,
    computing again, contracting a b + c) is within the margins.
    """
    if f is None:
        return functools.partial(kernel, static=static, barrier=barrier)

    @functools.wraps(f)
    def by_xla(*args, **kwargs):
        y = f(jnp, *args, **kwargs)
        return lax.optimization_barrier(y) if barrier else y

    signature = inspect.signature(f)
    by_xla.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])
    compiled = jax.jit(by_xla, static_argnames=static)

    @functools.wraps(by_xla)
    def computed(*args, **kwargs):
        if is_traced((args, kwargs)):
            return compiled(*args, **kwargs)
        with np.errstate(all="ignore"):
            return known(f(np, *known(args), **kwargs))

    return computed


def is_traced(values):
    """Whether a pytree holds a value that is being traced."""
    return any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(values))


def known(values):
    """A pytree with arrays of NumPy in place of those of JAX, where they are not traced."""
    return jax.tree.map(_of_numpy, values)


def _of_numpy(x):
    is_known = isinstance(x, jax.Array | np.generic) and not isinstance(x, jax.core.Tracer)
    return np.asarray(x) if is_known else x


def namespace(*arrays):
    """jax.numpy, or NumPy where all arrays are of NumPy."""
    return jnp if any(isinstance(x, jax.Array) for x in arrays) else np


def dot(x, y, dimensions, many=None):
    """`lax.dot_general` in full precision; of operand `many`, 0 or 1, there are several, along the first axis of it
    and of the product.
    """
    axes, batches = ([list(axes) for axes in pair] for pair in dimensions)
    if many is not None:
        axes[many], batches[many] = ([axis + 1 for axis in some[many]] for some in (axes, batches))
    if namespace(x, y) is jnp:
        product = lax.dot_general(x, y, (axes, batches), precision=lax.Precision.HIGHEST)
    else:
        product = _dot(x, y, axes, batches)
    # free axes come after those of the batch, those of x first
    place = len(batches[0]) + (x.ndim - len(axes[0]) - len(batches[0]) if many == 1 else 0)
    return product if many is None else namespace(product).moveaxis(product, place, 0)


def _dot(x, y, axes, batches):
    """The same by NumPy, as products of matrices."""
    free = [[a for a in range(z.ndim) if a not in (*axes[i], *batches[i])] for i, z in enumerate((x, y))]
    shape = [z.shape[a] for z, some in ((x, batches[0]), (x, free[0]), (y, free[1])) for a in some]
    batch, rows, terms, columns = (
        math.prod(z.shape[a] for a in some) for z, some in ((x, batches[0]), (x, free[0]), (x, axes[0]), (y, free[1]))
    )
    x = x.transpose(*batches[0], *free[0], *axes[0]).reshape(batch, rows, terms)
    y = y.transpose(*batches[1], *axes[1], *free[1]).reshape(batch, terms, columns)
    return (x @ y).reshape(shape)
