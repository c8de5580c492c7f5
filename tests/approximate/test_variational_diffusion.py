"""Variational diffusion on Gaussian data, whose denoiser, bound and density are known; and the clock by its own definition."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from gm_jax import random, testing
from gm_jax.approximate import variational_diffusion as vdm
from gm_jax.core import run
from gm_jax.errors import UserError
from gm_jax.score import likelihood, noise, parameterizations, solvers
from gm_jax.score.diffusion import Denoiser
from gm_jax.score.noise import alpha, sigma

HIGHEST, LOWEST, VARIANCE = 13.3, -5.0, 0.25


class Guess(nn.Module):
  """E[x_0 | x] of N(0, VARIANCE), told the level's number; shifted by a parameter that is 0 where it is right."""

  @nn.compact
  def __call__(self, x, number, label=None, train=False):
    log_snr = (20 - number / 25).reshape(-1, *(1,) * (x.ndim - 1))
    a, s = alpha(log_snr), sigma(log_snr)
    return a * VARIANCE / (a**2 * VARIANCE + s**2) * x + self.param("shift", nn.initializers.zeros, ())


def make(learn_ends=True, image_shape=(1, 1, 1), **how):
  clock = vdm.Clock(HIGHEST, LOWEST, learn_ends, units=8)
  module = vdm.VariationalDiffusion(Denoiser(Guess(), parameterizations.image()), clock)
  return module, vdm.variational_diffusion(module, optax.sgd(0.0), image_shape=image_shape, **how)


def points(num, dims=1):
  return (np.sqrt(VARIANCE) * np.random.default_rng(0).standard_normal((num, 1, 1, dims))).astype(np.float32)


@functools.cache
def started(size=0.0):
  """The state of a model whose clock is as it starts at size 0, and runs the later the larger that is."""
  _, model = make(write=lambda x: x, num_steps=4)
  state = jax.jit(model.init)(jax.random.key(0), {"image": points(2)})
  return with_clock(state, size)


def with_clock(state, size):
  variables = state.average.variables
  clock = variables["params"]["clock"]
  late = {"direct": clock["direct"] - 2 * size, "weights": clock["weights"] + size * jnp.linspace(-4, 8, 8)}
  variables = {"params": {**variables["params"], "clock": {**clock, **late}}}
  return state._replace(average=state.average._replace(variables=variables))


def pure(state, module):
  """The denoiser and the clock of a state, as functions of arrays."""
  variables = state.average.variables
  denoise = lambda x, log_snr: module.apply(variables, x, log_snr, method=lambda m, *at: m.denoiser(*at))
  return denoise, lambda t: module.apply(variables, t, method=lambda m, t: m.clock.log_snr(t))


# --- The clock ---


@pytest.mark.parametrize("size", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("learn_ends", [True, False])
def test_clock_falls_between_its_ends_whatever_its_parameters(size, learn_ends):
  clock = vdm.Clock(HIGHEST, LOWEST, learn_ends, units=16)
  generator = np.random.default_rng(1)
  variables = clock.init(jax.random.key(0), jnp.zeros(1), method="log_snr")
  move = lambda path, leaf: leaf if path[-1].key == "ends" else leaf + jnp.float32(size * generator.normal(size=leaf.shape))
  variables = jax.tree_util.tree_map_with_path(move, variables)
  assert ("ends" in variables["params"]) == learn_ends
  log_snr = lambda t: clock.apply(variables, t, method="log_snr")
  t = jnp.linspace(0, 1, 201)
  found = np.asarray(log_snr(t))
  assert found[0] == np.float32(HIGHEST)
  np.testing.assert_allclose(found[-1], LOWEST, atol=2e-6)
  assert float(log_snr(0.0)) == np.float32(HIGHEST)
  assert np.all(np.diff(found) < 0)
  share, slope = clock.apply(variables, t, method="shape")
  assert np.all(slope > 0)
  np.testing.assert_allclose(HIGHEST + (LOWEST - HIGHEST) * share, found, atol=1e-5)
  derivative = jax.jvp(log_snr, (t,), (jnp.ones_like(t),))[1]
  np.testing.assert_allclose((LOWEST - HIGHEST) * slope, derivative, rtol=1e-4, atol=1e-4)


def test_a_new_clock_is_nearly_even_and_parameters_move_it():
  variables = {"params": started().average.variables["params"]["clock"]}
  log_snr = lambda variables: np.asarray(vdm.Clock(units=8).apply(variables, jnp.linspace(0, 1, 11), method="log_snr"))
  even = np.linspace(HIGHEST, LOWEST, 11)
  np.testing.assert_allclose(log_snr(variables), even, atol=1.0)
  moved = {"params": with_clock(started(), 2.0).average.variables["params"]["clock"]}
  assert np.abs(log_snr(moved) - even).max() > 4.0


# --- The bound ---


def closed_form(highest=HIGHEST, lowest=LOWEST):
  """Of N(0, s^2) with the exact denoiser: prior, diffusion, and the decoder N(D, e^-highest), in nats."""
  r, kept = np.exp(-highest), 1 / (1 + np.exp(-lowest))
  prior = (kept * VARIANCE - kept - np.log1p(-kept)) / 2
  diffusion = np.log((1 + VARIANCE / r) / (1 + VARIANCE * np.exp(lowest))) / 2
  return prior, diffusion, np.log(2 * np.pi * r) / 2 + VARIANCE / (VARIANCE + r) / 2


@pytest.mark.parametrize("size", [0.0, 1.0])
def test_evaluate_is_the_bound_in_closed_form(size):
  module, model = make(write=lambda x: x, num_levels=4)
  state, batch, key = started(size), {"image": points(4096)}, jax.random.key(1)
  scores = jax.jit(model.evaluate)(key, state, batch)
  found = np.asarray(scores["nll_bound"], np.float64)
  assert abs(found.mean() - sum(closed_form())) < 4 * found.std() / 64
  np.testing.assert_allclose(scores["rate_prior"].mean(), closed_form()[0], rtol=0.05)
  denoise, clock = pure(state, module)
  again = jax.jit(lambda x: likelihood.bound(denoise, clock, x, jax.random.split(key)[0], num_levels=4))(batch["image"])
  np.testing.assert_allclose(scores["nll_bound"], again["nll_bound"], rtol=1e-4, atol=1e-4)


def losses(module, variables, pixels, key, train):
  found, _ = run(module, vdm.negative_elbo(1), {"params": variables}, key, {"image": pixels}, train=train)
  return found[0]


def test_training_descends_the_bound_but_the_shape_of_the_clock_its_variance():
  """One pass backwards gives what two would: the gradient of the bound, and for the shape that of the mean square."""
  module, _ = make()
  variables = {**started(1.0).average.variables["params"], "denoiser": {"network": {"shift": jnp.float32(0.02)}}}
  pixels, key = np.arange(256, dtype=np.uint8).reshape(64, 1, 1, 4), jax.random.key(2)
  score = jax.jit(lambda: [losses(module, variables, pixels, key, train) for train in (True, False)])
  np.testing.assert_allclose(*score(), rtol=1e-4)  # where it trains it is the bound of one level
  function_key = jax.random.split(key)[0]
  num_dims = 4

  def plain(variables):
    part = lambda function: nn.apply(function, module)({"params": variables})
    denoise = lambda x, log_snr: part(lambda m: m.denoiser(x, log_snr))
    return likelihood.bound(denoise, lambda t: part(lambda m: m.clock.log_snr(t)), pixels, function_key, num_levels=1)

  ours, of_bound, of_square = (
    jax.jit(jax.grad(function))(variables)
    for function in (
      lambda v: losses(module, v, pixels, key, True).mean(),
      lambda v: plain(v)["nll_bound"].mean(),
      lambda v: (plain(v)["rate_diffusion"] ** 2).mean() / num_dims,
    )
  )
  for name, gradient in ours["clock"].items():
    expected = of_bound if name == "ends" else of_square
    np.testing.assert_allclose(gradient, expected["clock"][name], rtol=2e-3, atol=2e-3 * np.abs(gradient).max(), err_msg=name)
    assert np.abs(gradient).max() > 1e-3
  expected = of_bound["denoiser"]["network"]["shift"]
  np.testing.assert_allclose(ours["denoiser"]["network"]["shift"], expected, rtol=1e-3)
  assert abs(expected) > 1e-3


def test_gradient_of_the_ends_is_that_of_the_bound():
  """By finite differences of the loss, with the same draws; all three terms have a part in it."""
  module, _ = make()
  variables = {**started(1.0).average.variables["params"]}
  variables["clock"] = {**variables["clock"], "ends": jnp.array([12.0, 2.0])}
  pixels = np.arange(256, dtype=np.uint8).reshape(64, 1, 1, 4)

  def loss(ends):
    clock = {**variables["clock"], "ends": ends}
    return losses(module, {**variables, "clock": clock}, pixels, jax.random.key(3), True).mean()

  loss, ends, step = jax.jit(loss), np.array([12.0, 2.0], np.float32), 0.02
  differences = [(loss(ends + move) - loss(ends - move)) / (2 * step) for move in step * np.eye(2, dtype=np.float32)]
  gradient = jax.jit(jax.grad(loss))(jnp.asarray(ends))
  np.testing.assert_allclose(gradient, differences, rtol=0.02, atol=0.01)
  assert np.abs(gradient).min() > 0.1


def test_learning_the_shape_lowers_the_variance_and_leaves_the_bound():
  module, _ = make()
  optimizer = optax.adam(0.05)
  start = {**started().average.variables["params"]}
  x = points(512)

  def rates(shape, key):
    variables = {**start, "clock": {**start["clock"], **shape}}
    return run(module, vdm.negative_elbo(1), {"params": variables}, key, {"image": x}, train=True)[0][1]["rate_diffusion"]

  def step(carry, key):
    shape, state = carry
    updates, state = optimizer.update(jax.grad(lambda shape: rates(shape, key).mean())(shape), state)
    return (optax.apply_updates(shape, updates), state), None

  shape = {name: value for name, value in start["clock"].items() if name != "ends"}
  learn = jax.jit(lambda shape: jax.lax.scan(step, (shape, optimizer.init(shape)), jax.random.split(jax.random.key(4), 100)))
  learnt = learn(shape)[0][0]
  score = jax.jit(lambda shape: jax.lax.map(lambda key: rates(shape, key), jax.random.split(jax.random.key(5), 16)))
  before, after = (np.asarray(score(shape), np.float64).ravel() for shape in (shape, learnt))
  assert after.var() < 0.8 * before.var()
  for found in (before, after):
    assert abs(found.mean() - closed_form()[1]) < 4 * found.std() / np.sqrt(len(found))


# --- Samples, and what a trained one is worth ---


def test_samples_are_those_of_the_solvers_table():
  """The steps on traced levels are `solvers.Ancestral`'s, made in float64 on the host, draw by draw."""
  module, model = make(image_shape=(1, 1, 2), write=lambda x: x, num_steps=6)
  state, key = started(1.0), jax.random.key(6)
  found = jax.jit(model.sample, static_argnums=2)(key, state, 5)
  denoise, clock = pure(state, module)
  grid = np.asarray(clock(jnp.linspace(1, 0, 7)), np.float64)
  start_key, steps_key = jax.random.split(key)
  follow = lambda start: solvers.follow(denoise, solvers.Ancestral()(grid), start, steps_key)
  x = jax.jit(follow)(random.normal(start_key, 5, (1, 1, 2)))
  np.testing.assert_allclose(found, x / alpha(grid[-1]), rtol=1e-4, atol=1e-5)


def test_sample_keeps_the_contract():
  _, model = make(image_shape=(2, 2, 1), num_steps=3)
  testing.check_sample(model, started(), np.zeros((1, 2, 2, 1), np.uint8))


def test_a_step_moves_denoiser_clock_and_ends():
  module, _ = make()
  model = vdm.variational_diffusion(module, optax.sgd(0.1), image_shape=(1, 1, 1))
  state, batch = started(), {"image": np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1)}
  after, metrics = jax.jit(model.step)(jax.random.key(7), state, batch)
  moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), after.net.params, state.net.params)
  assert all(jax.tree.leaves(moved))
  parts = metrics["distortion"] + metrics["rate_diffusion"] + metrics["rate_prior"]
  np.testing.assert_allclose(metrics["loss"], parts, rtol=1e-5)


def test_measure_finds_the_density():
  module, _ = make()
  measure = vdm.measure(module, num_levels=64, num_steps=64, num_probes=None)
  batch = {"image": points(64)}
  scores = jax.jit(measure)(jax.random.key(8), started(1.0), batch)
  blurred = np.sqrt(VARIANCE + np.exp(-HIGHEST))
  # What is taken for standard normal at -5 is N(0, 1 - 0.75 sigmoid(-5)).
  np.testing.assert_allclose(scores["nll"], -stats.norm(0, blurred).logpdf(batch["image"][:, 0, 0, 0]), atol=0.02)
  assert abs(float(scores["nll_bound"].mean() - sum(closed_form()))) < 1.0


def test_fourier_features_are_told_apart_by_their_last_bits():
  class Keep(nn.Module):
    channels: int

    def __call__(self, x, time, label=None, train=False):
      return x[..., : self.channels]

  class Second(nn.Module):
    def __call__(self, x, time, label=None, train=False):
      return x[..., 1:2] + 2 * x[..., 4:5]

  x = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, (3, 2, 2, 1)), jnp.float32)
  found = vdm.FourierFeatures(Second(), (3, 4)).apply({}, x, jnp.zeros(3))
  np.testing.assert_allclose(found, np.sin(8 * np.pi * x) + 2 * np.cos(16 * np.pi * x), atol=1e-4)
  with pytest.raises(UserError, match="1, not 5"):
    vdm.FourierFeatures(Keep(5), (3, 4)).apply({}, x, jnp.zeros(3))


def test_measured_ends_are_those_that_the_clock_has_learnt():
  clock = started().average.variables["params"]["clock"]
  module, _ = make()
  state = started()
  variables = {"params": {**state.average.variables["params"], "clock": {**clock, "ends": jnp.array([4.0, -8.0])}}}
  state = state._replace(average=state.average._replace(variables=variables))
  x = points(16)
  found = jax.jit(vdm.measure(module, num_levels=1, num_steps=32, num_probes=None))(jax.random.key(9), state, {"image": x})
  expected = -stats.norm(0, np.sqrt(VARIANCE + np.exp(-4.0))).logpdf(x[:, 0, 0, 0])
  np.testing.assert_allclose(found["nll"], expected, atol=2e-3)
  assert noise.ratio(np.float64(4.0)) > 0.1  # so that the blur counts
