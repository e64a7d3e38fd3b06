"""Levenberg-Marquardt for small networks: a sum of squares minimised by its residuals, in double precision."""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
from flax import nnx
from jax.flatten_util import ravel_pytree
from tqdm import tqdm

from sobolev_utils.arrays import as_count
from sobolev_utils.learning.diagnosis import Diverged, check_weights
from sobolev_utils.learning.losses import SumOfSquares
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.models.samples import Samples, as_samples, not_finite

__all__ = ["levenberg_marquardt"]

SOLVER = optx.LevenbergMarquardt(rtol=1e-15, atol=1e-15, linear_solver=lx.Normal(lx.Cholesky()))


def residual_function(model: Surrogate, samples: Samples, loss: SumOfSquares):
    """The residuals (n,) of the parameters (p,) as a function, the initial parameters, and the model as a function.

    loss = |residuals|^2. The Jacobian is taken in reverse for each sample, of few residuals and many parameters.
    """
    graph, parameters, constants = nnx.split(model, nnx.Param, ...)
    start, unravel = ravel_pytree(jax.tree.map(lambda p: p.astype(jnp.float64), parameters))
    samples = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), samples)
    scale = 1 / np.sqrt(len(samples.x))

    def model_of(parameters):
        return nnx.merge(graph, unravel(parameters), constants)

    def of_one(parameters, sample):
        one = jax.tree.map(lambda a: a[None], sample)
        return scale * loss.residuals(model_of(parameters), one)[0]

    @jax.custom_jvp
    def residuals(parameters):
        return (scale * loss.residuals(model_of(parameters), samples)).ravel()

    @residuals.defjvp
    def _(primals, tangents):
        jacobian = jax.vmap(jax.jacrev(of_one), (None, 0))(*primals, samples)
        return residuals(*primals), jacobian.reshape(-1, start.size) @ tangents[0]

    return residuals, start, model_of


def levenberg_marquardt(
    model: Surrogate, samples: Samples, loss: SumOfSquares, *, iterations: int, name: str = "training"
) -> tuple[Surrogate, np.ndarray]:
    """Minimise the loss over all samples at once; returns a new model, in float64, and the loss by iteration.

    theta - (J'J + lambda I)^-1 J'r, with lambda from a trust region (Levenberg 1944, Marquardt 1963), by optimistix;
    the normal equations are solved by Cholesky's factorisation. It ends early, with a shorter history, where a step
    changes neither parameters nor loss by more than 1e-15 of them. Raises ValueError without `jax_enable_x64`, for a
    loss that is no `SumOfSquares`, for fewer residuals than parameters and for weights that are not finite;
    FloatingPointError where residuals are not finite at the start, `Diverged` where their Jacobian is not: no further
    step is possible then.
    """
    iterations, samples = as_count(iterations, name="iterations"), as_samples(samples)
    check_weights(model)
    if jnp.result_type(float) != jnp.float64:
        raise ValueError("Levenberg-Marquardt needs double precision: jax.config.update('jax_enable_x64', True)")
    if not isinstance(loss, SumOfSquares):
        raise ValueError(f"Levenberg-Marquardt needs a loss with residuals, a SumOfSquares, got {loss}")
    residuals, parameters, model_of = residual_function(model, samples, loss)
    first = jax.jit(residuals)(parameters)
    if first.size < parameters.size:
        raise ValueError(f"{parameters.size} parameters need as many residuals or more, got {first.size}")
    if not jnp.isfinite(first).all():
        reason = not_finite(samples) or "mend the loss, as samples and weights are finite"
        bad = f"{(~jnp.isfinite(first)).sum()} of {first.size} residuals are not finite"
        raise FloatingPointError(f"{name}: {bad}: {reason}")

    def with_aux(parameters, _):
        return residuals(parameters), None

    shape = jax.ShapeDtypeStruct(first.shape, first.dtype)
    arguments = {"args": None, "options": {}, "tags": frozenset()}
    state = SOLVER.init(with_aux, parameters, **arguments, f_struct=shape, aux_struct=None)
    arrays, fixed = eqx.partition(state, eqx.is_array)

    def step(carry, _):
        parameters, arrays = carry
        parameters, state, _ = SOLVER.step(with_aux, parameters, state=eqx.combine(arrays, fixed), **arguments)
        done, _ = SOLVER.terminate(with_aux, parameters, state=state, **arguments)
        slope = state.f_info.jac.mv(jnp.ones_like(parameters))
        report = jnp.sum(state.f_info.residual**2), done, jnp.isfinite(slope).all()
        return (parameters, eqx.filter(state, eqx.is_array)), report

    chunks = max(d for d in range(1, 21) if iterations % d == 0)
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, length=iterations // chunks))
    carry, history = (parameters, arrays), []
    with tqdm(total=iterations, desc=name, unit="step", file=sys.stdout, mininterval=0.5, ncols=80) as bar:
        for _ in range(chunks):
            carry, (values, done, sound) = run(carry)
            history.append(np.asarray(values))
            if not sound.all():
                whole = np.concatenate(history)[: len(values) * (len(history) - 1) + int(jnp.argmin(sound))]
                message = f"{name} diverged at step {whole.size + 1} of {iterations}: the Jacobian is not finite"
                raise Diverged(message, model_of(carry[0]), whole, whole.size + 1)
            bar.set_postfix_str(f"loss {history[-1][-1]:.3g}", refresh=False)
            bar.update(len(values))
            if done.any():
                break
    return model_of(carry[0]), np.concatenate(history)
