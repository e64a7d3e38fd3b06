"""Training against a plain loop, least squares, and what it must leave alone."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from oracles import labelled_by, leaves, random_basket, random_surrogate, uniform_points

from sobolev_utils.learning.diagnosis import warn_of_scale
from sobolev_utils.learning.losses import plain, sobolev
from sobolev_utils.learning.metrics import r2
from sobolev_utils.learning.purity import checked_shapes
from sobolev_utils.learning.surrogate import Surrogate
from sobolev_utils.learning.training import Diverged, fit, shuffled
from sobolev_utils.models.samples import CurvedSamples, Samples, StripSamples

KEY = jax.random.key(0)
X = jnp.asarray(uniform_points(32, 3))
SAMPLES = labelled_by(random_surrogate(seed=1), X)
DRAW = shuffled(SAMPLES)


def fresh(key):
    """Noisy labels at new points for each key."""
    x_key, y_key = jax.random.split(key)
    x = jax.random.uniform(x_key, (32, 3))
    return Samples(x, x.sum(axis=1) + jax.random.normal(y_key, (32,)), jnp.ones((32, 3)))


def assert_same(one, other, **tolerance):
    for a, b in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def plain_loop(model, draw, loss, *, epochs, batch, learning_rate, schedule="cosine"):
    """Adam step by step and without a scan: the model and the mean loss of each epoch."""
    graph, parameters, constants = nnx.split(model, nnx.Param, ...)
    steps = draw(KEY).y.size // batch
    rates = {"cosine": optax.cosine_decay_schedule(learning_rate, epochs * steps), "constant": learning_rate}
    optimiser = optax.adam(rates[schedule])
    moments, history = optimiser.init(parameters), []

    @jax.jit
    def step(parameters, moments, samples):
        value, gradient = jax.value_and_grad(lambda p: loss(nnx.merge(graph, p, constants), samples))(parameters)
        updates, moments = optimiser.update(gradient, moments, parameters)
        return optax.apply_updates(parameters, updates), moments, value

    for key in jax.random.split(KEY, epochs):
        samples, values = jax.tree.map(np.asarray, draw(key)), []
        for first in range(0, steps * batch, batch):
            piece = jax.tree.map(lambda a, first=first: a[first : first + batch], samples)
            parameters, moments, value = step(parameters, moments, piece)
            values.append(value)
        history.append(np.mean(values))
    return nnx.merge(graph, parameters, constants), np.array(history)


class TestShuffled:
    def test_an_epoch_is_the_same_sample_in_another_order(self):
        one, same, other = DRAW(KEY), DRAW(KEY), DRAW(jax.random.key(1))
        order = np.argsort(one.y)
        np.testing.assert_array_equal(one.y, same.y)
        assert (one.y != other.y).any() and (one.y != SAMPLES.y).any()
        for array, original in zip(*map(jax.tree.leaves, (one, SAMPLES)), strict=True):  # rows stay together
            np.testing.assert_array_equal(np.asarray(array)[order], np.asarray(original)[np.argsort(SAMPLES.y)])

    @pytest.mark.parametrize(
        "changed, message",
        [
            ({"x": X[:, 0]}, r"samples.x must have shape \(n_samples, n_inputs\), got \(32,\)"),
            ({"y": SAMPLES.y[:, None]}, r"samples.y must have shape \(32,\) to go with x \(32, 3\), got \(32, 1\)"),
            ({"y": SAMPLES.y[:-1]}, r"got \(31,\)"),
            ({"dydx": SAMPLES.dydx[:, :2]}, r"samples.dydx must have shape \(32, 3\)"),
            ({"x": X.at[1, 2].set(jnp.nan)}, "samples.x holds 1 entries that are not finite"),
            ({"y": SAMPLES.y.at[:2].set(jnp.inf)}, "samples.y holds 2 entries"),
            ({"dydx": SAMPLES.dydx * jnp.nan}, "samples.dydx holds 96 entries"),
        ],
    )
    def test_samples_that_make_no_sense_are_refused(self, changed, message):
        with pytest.raises(ValueError, match=message):
            shuffled(SAMPLES._replace(**changed))

    @pytest.mark.parametrize(
        "samples, message",
        [
            (
                CurvedSamples(*SAMPLES, jnp.ones((32, 2, 3)), jnp.ones((32, 1, 3))),
                r"hvp must have shape \(32, 2, 3\)",
            ),
            (
                CurvedSamples(*SAMPLES, jnp.ones((32, 3)), jnp.ones((32, 3))),
                r"directions must have shape \(32, 3, 3\)",
            ),
            (
                StripSamples(X, jnp.ones((32, 4)), jnp.ones((32, 1, 3)), jnp.ones((32, 1, 3))),
                r"cotangents .* \(32, 1, 4\)",
            ),
            (StripSamples(X, jnp.ones((32, 4)), jnp.ones((32, 1, 4)), jnp.ones((32, 1, 4))), r"vjp .* \(32, 1, 3\)"),
        ],
    )
    def test_directions_and_products_have_to_fit(self, samples, message):
        with pytest.raises(ValueError, match=message):
            shuffled(samples)

    def test_samples_without_derivatives_will_do(self):
        assert shuffled(Samples(X, SAMPLES.y))(KEY).dydx is None


# 6 epochs are 6 chunks of the compiled program, 23 are one
@pytest.mark.parametrize(
    "epochs, draw, loss, schedule",
    [(6, DRAW, sobolev(), "constant"), (23, DRAW, plain, "cosine"), (6, fresh, plain, "cosine")],
    ids=["six", "prime", "fresh"],
)
def test_it_is_a_plain_loop_however_it_is_cut(epochs, draw, loss, schedule):
    model = random_surrogate(widths=(4,))
    settings = {"epochs": epochs, "batch": 8, "learning_rate": 1e-2, "schedule": schedule}
    trained, history = fit(model, draw, loss, key=KEY, **settings)
    expected, curve = plain_loop(model, draw, loss, **settings)
    assert history.shape == (epochs,)
    np.testing.assert_allclose(history, curve, rtol=1e-9)
    assert_same(trained, expected, rtol=1e-8, atol=1e-11)


def test_it_finds_the_least_squares_solution():
    x = jnp.asarray(uniform_points(32, 3, low=-1, high=1))
    y = x @ jnp.array([1.0, -2.0, 0.5]) + 0.3 + 0.1 * jnp.asarray(np.random.default_rng(0).normal(size=32))
    (solution, residuals, *_) = np.linalg.lstsq(np.column_stack([x, np.ones(32)]), y)

    def linear(model, samples):
        layer = model.layers[0]
        return jnp.mean((samples.y - (samples.x @ layer.kernel[...] + layer.bias[...])[:, 0]) ** 2)

    draw = shuffled(Samples(x, y, jnp.zeros_like(x)))
    model = random_surrogate(widths=(1,))
    trained, history = fit(model, draw, linear, key=KEY, epochs=1000, batch=32, learning_rate=0.05)
    layer = trained.layers[0]
    np.testing.assert_allclose([*layer.kernel[...][:, 0], layer.bias[0]], solution, atol=1e-5)
    np.testing.assert_allclose(history[-1], residuals[0] / 32, rtol=1e-7)
    assert history[0] > 10 * history[-1]


# a third of which each leaves; training on values alone leaves 3e-5 and 4e-4, 1e-6 and 1e-5
@pytest.mark.parametrize("optimiser, limits", [("adam", (5e-5, 8e-4)), ("muon", (4e-7, 6e-6))])
def test_it_learns_the_closed_form(optimiser, limits):
    basket = random_basket(2)
    x, x_test = (jnp.asarray(uniform_points(256, 2, seed)) for seed in (0, 1))
    samples = Samples(x, basket.value(x), basket.delta(x))
    model = Surrogate(2, [12], rngs=nnx.Rngs(0)).normalise(x, samples.y)
    settings = {"epochs": 240, "batch": 64, "learning_rate": 2e-2, "optimiser": optimiser}
    trained, history = fit(model, shuffled(samples), sobolev(), key=KEY, **settings)
    assert history[-1] < 1e-3 * history[0]
    assert 1 - r2(basket.value(x_test), trained(x_test)) < limits[0]
    assert 1 - r2(basket.delta(x_test), trained.delta(x_test)) < limits[1]


def test_a_step_of_muon_is_orthogonal_in_weights_and_of_adam_in_biases():
    model = random_surrogate(widths=(4, 4))
    trained, _ = fit(model, DRAW, plain, key=KEY, epochs=1, batch=32, learning_rate=0.04, optimiser="muon")
    change = {k: trained.arrays()[k] - array for k, array in model.arrays().items() if k != "activation"}
    # the first step of Adam with Nesterov's momentum is rate (b1 / (1 + b1) + 1) whatever the gradient's size
    for name in ("bias_0", "bias_1", "bias_2"):
        np.testing.assert_allclose(abs(change[name]), 0.04 / 4 * (0.9 / 1.9 + 1), rtol=1e-4)
    for name in ("kernel_0", "kernel_1"):
        # a few Newton-Schulz iterations bring the singular values near the rate, but for a gradient of small rank
        singular = np.linalg.svd(change[name], compute_uv=False)[:3]
        np.testing.assert_allclose(singular, 0.04, rtol=0.35)


def test_one_key_gives_one_result_and_the_given_model_stays_as_it_was():
    model = random_surrogate(widths=(4,))
    before = leaves(model)
    runs = [fit(model, DRAW, plain, key=KEY, epochs=6, batch=8) for _ in range(2)]
    assert_same(runs[0][0], runs[1][0], rtol=0)
    np.testing.assert_array_equal(runs[0][1], runs[1][1])
    trained = runs[0][0].normalise(2 * X, 5 * SAMPLES.y)  # the two share no variable either
    assert (trained.layers[0].kernel[...] != model.layers[0].kernel[...]).all()
    for leaf, original in zip(leaves(model), before, strict=True):
        np.testing.assert_array_equal(leaf, original)


@pytest.mark.parametrize("draw", [DRAW, fresh], ids=["fixed", "fresh"])
def test_each_epoch_takes_every_sample_once(draw):
    def mean_label(model, samples):
        return samples.y.mean()

    _, history = fit(random_surrogate(widths=(4,)), draw, mean_label, key=KEY, epochs=6, batch=8)
    expected = [draw(key).y.mean() for key in jax.random.split(KEY, 6)]
    np.testing.assert_allclose(history, expected, rtol=1e-12)
    assert (np.ptp(history) > 0.01) == (draw is fresh)


@pytest.mark.parametrize("optimiser, weight_decay", [("adam", 0.0), ("adam", 2.0), ("muon", 2.0)])
def test_weights_decay_and_biases_do_not(optimiser, weight_decay):
    model = random_surrogate(widths=(4,))
    settings = {"epochs": 6, "batch": 8, "learning_rate": 0.01, "weight_decay": weight_decay, "optimiser": optimiser}
    trained, _ = fit(model, DRAW, lambda model, samples: jnp.zeros(()), key=KEY, **settings)
    annealed = (1 + np.cos(np.pi * np.arange(24) / 24)) / 2
    shrunk = np.prod(1 - 0.01 * annealed * weight_decay * annealed)
    for name, array in model.arrays().items():
        if name != "activation":
            expected = array * shrunk if name.startswith("kernel") else array
            np.testing.assert_allclose(trained.arrays()[name], expected, rtol=1e-12)
    assert (shrunk < 0.9) == (weight_decay > 0)


def test_the_normalisation_is_not_trained_and_weights_keep_their_dtype():
    model = random_surrogate(widths=(4,), dtype=np.float32)
    trained, _ = fit(model, DRAW, plain, key=KEY, epochs=6, batch=32, learning_rate=0.1)
    for name, array in model.arrays().items():
        after = trained.arrays()[name]
        assert after.dtype == array.dtype
        assert (after == array).all() == (not name.startswith(("kernel", "bias")))


def test_the_progress_bar_has_the_name_and_the_loss(capsys):
    _, history = fit(random_surrogate(widths=(4,)), DRAW, plain, key=KEY, epochs=6, batch=32, name="pruned")
    shown = capsys.readouterr()
    assert "pruned: 100%" in shown.out and f"loss {history[-1]:.3g}" in shown.out
    assert shown.err == ""


def test_divergence_hands_back_the_last_finite_state():
    """Labels that are not finite from the third batch on: two steps of the loop were taken."""
    x = jnp.asarray(uniform_points(32, 3))
    samples = Samples(x, jnp.where(jnp.arange(32) < 16, 1.0, jnp.nan), jnp.zeros((32, 3)))
    model = random_surrogate(widths=(4,))
    with pytest.raises(
        Diverged,
        match=r"^oversized diverged at step 3 of 24: in its batch samples.y holds 8 entries that are not",
    ) as info:
        fit(model, lambda key: samples, plain, key=KEY, epochs=6, batch=8, learning_rate=0.01, name="oversized")
    assert info.value.step == 3 and info.value.history.size == 0
    # a step at the full rate, from which the cosine has hardly fallen
    expected, _ = fit(model, lambda key: jax.tree.map(lambda a: a[:8], samples), plain, key=KEY, epochs=1, batch=8,
                      learning_rate=0.01)  # fmt: skip
    assert_same(info.value.model, expected, rtol=1e-9)


RNG = np.random.default_rng(0)


def of_numpy(key):
    x = RNG.uniform(size=(32, 3))
    return Samples(x, x.sum(axis=1), np.ones((32, 3)))


LENGTHS = itertools.cycle([8, 16])


def some_of(n):
    return jax.tree.map(lambda a: a[:n], SAMPLES)


class Rows:
    """The next rows of a table at each call."""

    first = 0

    def __call__(self, key):
        self.first += 8
        return jax.tree.map(lambda a: a[self.first : self.first + 8], SAMPLES)


def hidden(key):
    return jax.tree.map(lambda a: 1.0 * a, frozen_by_its_user(key))


frozen_by_its_user = jax.jit(of_numpy)


class TestFunctionsThatCompilationWouldFreeze:
    """What depends on more than its arguments, in whole or in part, is refused; what is meant to be fixed is not."""

    @pytest.mark.parametrize(
        "draw",
        [
            of_numpy,
            lambda key: fresh(key)._replace(y=RNG.normal(size=32)),
            lambda key: fresh(key)._replace(dydx=RNG.normal() * jnp.ones((32, 3))),
            lambda key: jax.lax.cond(
                True, lambda: jax.tree.map(lambda a: a + RNG.normal(), SAMPLES), lambda: SAMPLES
            ),
            lambda key: some_of(next(LENGTHS)),
            Rows(),
            hidden,
            jax.jit(of_numpy),
        ],
        ids=["all", "labels", "a number", "in a branch", "a length", "state", "a jit inside", "a jit"],
    )
    def test_a_source(self, draw):
        with pytest.raises(ValueError, match=r"draw is not a function of its arguments alone: .* jax\.random"):
            fit(random_surrogate(widths=(4,)), draw, plain, key=KEY, epochs=3, batch=8)

    def test_a_source_that_takes_its_key_to_numpy(self):
        def draw(key):
            np.random.default_rng(np.asarray(jax.random.key_data(key)))

        with pytest.raises(
            ValueError, match=r"draw cannot be compiled: write it with jax.numpy and jax.random alone"
        ):
            fit(random_surrogate(widths=(4,)), draw, plain, key=KEY, epochs=3, batch=8)

    def test_a_loss(self):
        def loss(model, samples):
            return plain(model, samples._replace(y=samples.y + RNG.normal()))

        with pytest.raises(ValueError, match="loss is not a function of its arguments alone"):
            fit(random_surrogate(widths=(4,)), DRAW, loss, key=KEY, epochs=3, batch=8)

    def test_what_is_fixed_or_follows_from_the_key_is_taken(self):
        teacher, constants = random_surrogate(activation="relu"), np.array([np.nan, 1.0])

        def taught(key):
            x = jax.random.uniform(jax.random.fold_in(KEY, 1), (32, 3)) + constants[1] + jax.random.normal(key)
            return Samples(x, teacher(x) + jnp.nan_to_num(constants[0]), teacher.delta(x))

        sources = {
            "fixed": lambda key: SAMPLES,
            "seeded": lambda key: Samples(np.random.default_rng(0).normal(size=(32, 3)), SAMPLES.y),
        }
        for draw in (*sources.values(), taught, fresh, DRAW, jax.jit(fresh)):
            shapes = checked_shapes("draw", draw, KEY)
            assert shapes.x.shape == (32, 3)


class TestTheCauseIsNamed:
    def test_samples_that_are_not_finite_from_any_source(self):
        def draw(key):
            samples = fresh(key)
            return samples._replace(dydx=samples.dydx.at[9, 1].set(jnp.nan))

        model = random_surrogate(widths=(4,))
        settings = {"key": KEY, "epochs": 2, "batch": 8, "learning_rate": 0.01}
        told = (
            r"training diverged at step 2 of 8: in its batch samples.dydx holds 1 entries that are not finite: mend"
        )
        with pytest.raises(Diverged, match=told):
            fit(model, draw, sobolev(), **settings)

    @pytest.mark.parametrize("name", ["bias_0", "kernel_1", "y_std"])
    @pytest.mark.parametrize("optimiser", ["adam", "levenberg_marquardt"])
    def test_weights(self, name, optimiser):
        arrays = random_surrogate(widths=(4,)).arrays()
        arrays[name] = np.full_like(arrays[name], np.inf)
        message = f"{name} of the surrogate holds {arrays[name].size} entries that are not finite"
        with pytest.raises(ValueError, match=message):
            fit(Surrogate.from_arrays(arrays), DRAW, plain, key=KEY, epochs=2, optimiser=optimiser)

    def test_a_loss_that_is_not_finite_at_the_start(self):
        def loss(model, samples):
            return jnp.log(-jnp.square(model.layers[0].bias[0])) + plain(model, samples)

        with pytest.raises(
            Diverged, match="step 1 of 8: the loss is nan before any step, though samples and weights"
        ):
            fit(random_surrogate(widths=(4,)), DRAW, loss, key=KEY, epochs=2, batch=8)

    @pytest.mark.filterwarnings("ignore:.*call normalise")
    @pytest.mark.parametrize("entry, epochs", [("y", 1), ("dydx", 2), ("x", 1)])
    def test_an_entry_that_is_far_from_all_others(self, entry, epochs):
        """Finite, but its square is not."""
        array = getattr(SAMPLES, entry)
        place = (5,) + (1,) * (array.ndim - 1)
        far = SAMPLES._replace(**{entry: array.at[place].set(1e200)})
        told = rf"step [1-4] of .*: in its batch samples.{entry}\[\d.*\] is 1e\+200 in magnitude, and the median .*"
        with pytest.raises(Diverged, match=f"{told}: mend where"):
            fit(random_surrogate(widths=(4,)), lambda key: far, sobolev(), key=KEY, epochs=epochs, batch=8)

    @pytest.mark.parametrize(
        "samples, told",
        [
            (SAMPLES._replace(y=100 + SAMPLES.y), "labels of mean"),
            (SAMPLES._replace(y=1e3 * SAMPLES.y), "labels of mean"),
            (SAMPLES._replace(x=1e3 * X), "inputs of mean"),
            (SAMPLES._replace(x=1e-4 * X, y=1e-4 * SAMPLES.y), "inputs of .* and labels of"),
        ],
        ids=["far", "wide", "units", "small"],
    )
    def test_a_surrogate_that_was_not_normalised(self, samples, told):
        model = Surrogate(3, [4], rngs=nnx.Rngs(0))
        with pytest.warns(UserWarning, match=rf"pruned: .* in its own coordinates, {told}.*: call normalise\(x, y\)"):
            warn_of_scale(model, samples, "pruned")
        warn_of_scale(model.normalise(*samples[:2]), samples, "normalised")

    @pytest.mark.parametrize("optimiser", ["adam", "levenberg_marquardt"])
    def test_it_is_told_once(self, optimiser):
        wide, model = SAMPLES._replace(y=1e3 * SAMPLES.y), Surrogate(3, [4], rngs=nnx.Rngs(0))
        batch = {"batch": 32} if optimiser == "adam" else {}
        with pytest.warns(UserWarning, match="call normalise") as told:
            fit(model, lambda key: wide, sobolev(), key=KEY, epochs=2, optimiser=optimiser, **batch)
        assert len(told) == 1 and told[0].filename == __file__


@pytest.mark.parametrize("optimiser", ["adam", "levenberg_marquardt"])
def test_samples_that_would_be_broadcast_are_refused_from_any_source(optimiser):
    wide = SAMPLES._replace(y=SAMPLES.y[:, None])
    with pytest.raises(ValueError, match=r"samples.y must have shape \(32,\) to go with x .*, got \(32, 1\)"):
        fit(random_surrogate(), lambda key: wide, plain, key=KEY, epochs=1, optimiser=optimiser)


@pytest.mark.parametrize("epochs", [1, 3])
def test_divergence_at_the_first_step_of_a_chunk_or_after_the_last(epochs):
    """Each epoch is a chunk of one step. The loss is finite where its gradient, and so what it leads to, is not."""

    def loss(model, samples):
        return jnp.sum(jnp.sqrt(jnp.maximum(model.layers[0].bias[...], 0) * 0))

    model = random_surrogate(widths=(4,))
    with pytest.raises(
        Diverged, match=f"diverged at step 1 of {epochs}: the loss, 0, is finite and its gradient is not"
    ) as info:
        fit(model, DRAW, loss, key=KEY, epochs=epochs, batch=32)
    assert_same(info.value.model, model, rtol=0)


def test_divergence_after_some_epochs_keeps_their_losses():
    """The rate is the cause, and not entries that the loss does not look at."""
    unseen = SAMPLES._replace(dydx=SAMPLES.dydx * jnp.nan)
    with pytest.raises(Diverged, match=r"lower the learning rate, 1e\+60$") as info:
        fit(random_surrogate(), lambda key: unseen, plain, key=KEY, epochs=20, batch=8, learning_rate=1e60)
    error = info.value
    assert error.history.size == (error.step - 1) // 4 and np.isfinite(error.history).all()
    assert np.isfinite(plain(error.model, SAMPLES))


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"batch": 12}, "an epoch of 32 samples is not a whole number of batches of 12"),
        ({"batch": 64}, "batches of 64"),
        ({"learning_rate": 0}, "need learning_rate > 0 and weight_decay >= 0, got 0 and"),
        ({"learning_rate": -1e-3}, "got -0.001 and"),
        ({"learning_rate": np.inf}, "got inf and"),
        ({"learning_rate": np.nan}, "got nan and"),
        ({"weight_decay": -0.1}, "and -0.1"),
        ({"weight_decay": np.nan}, "and nan"),
        ({"schedule": "linear"}, r"unknown schedule 'linear', expected one of \['constant', 'cosine'\]"),
        ({"optimiser": "sgd"}, r"unknown optimiser 'sgd', expected one of \['adam', 'levenberg_marquardt', 'muon'\]"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        fit(random_surrogate(), DRAW, plain, key=KEY, **{"epochs": 1, "batch": 8} | changed)
