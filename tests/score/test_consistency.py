"""Consistency models of Gaussian data, of which the function is known: where each way of the flow ends.

The flow conserves (y - MEAN) / sqrt(STD^2 + level^2) in y = x / alpha, level = sigma / alpha.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.errors import UserError
from gm_jax.networks.dropout import Dropout
from gm_jax.score import consistency, diffusion, distillation, grids, neighbours, noise, parameterizations, solvers
from tests.score import gaussian

MEAN, STD, LEAST, LARGEST, SHAPE = 0.3, 0.5, 0.01, 20.0, (1, 1, 2)
LAST = noise.from_ratio(LEAST)
GRID = grids.karras(11, LEAST, LARGEST, last=None)
POINTS = dict(image_shape=SHAPE, read=jnp.asarray, write=lambda x: x)


def end(x, log_snr):
  """Where the way through x ends, in units of the image; NumPy or jax."""
  level, y = noise.ratio(log_snr), x / noise.alpha(log_snr)
  return MEAN + ((STD**2 + LEAST**2) / (STD**2 + level**2)) ** 0.5 * (y - MEAN)


class Way(nn.Module):
  """F for guesses of the image: `exact` parts of what makes f exact, the rest E[x_0 | x]; and a shift."""

  @nn.compact
  def __call__(self, x, number, label, train):
    part = self.param("exact", nn.initializers.zeros, ())
    shift = self.param("shift", nn.initializers.zeros, ())
    log_snr = noise.like(20 - number / 25, x)  # see parameterizations.level_number
    share = LEAST / noise.ratio(log_snr)
    exact = (end(x, log_snr) - share * x / noise.alpha(log_snr)) / jnp.maximum(1 - share, 1e-3)
    return part * exact + (1 - part) * gaussian.denoiser(MEAN, STD)(x, log_snr[:, 0, 0, 0]) + shift


MODULE = diffusion.Denoiser(Way(), parameterizations.image())
FUNCTION = consistency.student(MODULE, LEAST)


def variables(exact, shift=0.0):
  return {"params": {"network": {"exact": jnp.float32(exact), "shift": jnp.float32(shift)}}}


def exact_flow(grid):
  """A solver whose steps are the flow of N(MEAN, STD^2) itself, told in x and D alone."""
  t, s = np.asarray(grid)[:-1], np.asarray(grid)[1:]
  along = np.sqrt(gaussian.variance(s, STD) / gaussian.variance(t, STD))
  gain = noise.alpha(t) * STD**2 / gaussian.variance(t, STD)
  guess = (noise.alpha(s) - along * noise.alpha(t)) / (1 - noise.alpha(t) * gain)
  return solvers.multistep(np.asarray(grid), along - guess * gain, guess[:, None])


def sampler(num_steps=1, least=LEAST):
  return diffusion.Sampler(consistency.Multistep(least)(grids.karras(num_steps, 0.5, LARGEST)))


def distilled(optimizer=None, solver=exact_flow, grid=GRID, **options):
  optimizer = optimizer or optax.sgd(0.0)
  told = dict(grid=grid, solver=solver, **POINTS, **options)
  return consistency.consistency_distillation(MODULE, variables(0.0), optimizer, sampler(), **told)


def having(state, student):
  net, average = state.net._replace(params=student["params"]), state.average._replace(variables=student)
  return state._replace(net=net, average=average, target=student)


def batch(num=256, seed=0):
  return {"image": (MEAN + STD * np.random.default_rng(seed).standard_normal((num, *SHAPE))).astype(np.float32)}


INNER = {
  "karras": parameterizations.karras(),
  "flow": parameterizations.flow(),
  "velocity": parameterizations.velocity(),
  "noise": parameterizations.noise(),
}


@pytest.mark.parametrize("name", INNER)
def test_the_boundary_holds_whatever_the_network_says(name):
  """At the least noise f is x / alpha, to the last bit the same for any F; elsewhere F is heard."""
  chosen = consistency.bounded(INNER[name], LEAST)
  x = jnp.asarray(np.random.default_rng(0).standard_normal((4, *SHAPE)), jnp.float32)
  said = [jnp.float32(np.random.default_rng(seed).normal(0, 50, x.shape)) for seed in (1, 2)]
  at = lambda level: [np.asarray(chosen.image(x, each, jnp.full(4, noise.from_ratio(level), jnp.float32))) for each in said]
  one, other = at(LEAST)
  np.testing.assert_array_equal(one, other)
  np.testing.assert_allclose(one, x / noise.alpha(LAST), rtol=1e-6)
  one, other = at(2 * LEAST)
  assert np.abs(one - other).max() > 1e-2


@pytest.mark.parametrize("name", INNER)
def test_the_function_is_one_step_of_ddim_and_its_target_is_the_image(name):
  inner, rng = INNER[name], np.random.default_rng(0)
  chosen = consistency.bounded(inner, LEAST)
  log_snr = jnp.float32([4.0, 0.0, -5.0])
  x, said, eps = (jnp.asarray(rng.standard_normal((3, *SHAPE)), jnp.float32) for _ in range(3))
  found, guess = chosen.image(x, said, log_snr), inner.image(x, said, log_snr)
  for row, level in enumerate(np.asarray(log_snr, np.float64)):
    step = solvers.DDIM()(np.array([level, LAST])).weights[0, 0]
    np.testing.assert_allclose(found[row], (step[0] * x[row] + step[1] * guess[row]) / noise.alpha(LAST), rtol=1e-4, atol=1e-5)
  noisy = noise.diffuse(x, log_snr, eps)
  np.testing.assert_allclose(chosen.image(noisy, chosen.target(x, eps, log_snr), log_snr), x, rtol=1e-3, atol=1e-4)


def test_of_karras_s_parameterization_it_is_song_s():
  data_std = 0.5
  chosen = consistency.bounded(parameterizations.karras(data_std), LEAST)
  level = np.geomspace(LEAST, 80.0, 40)
  log_snr = jnp.asarray(noise.from_ratio(level), jnp.float32)
  c_out = data_std * (level - LEAST) / np.sqrt(data_std**2 + level**2)
  c_skip = data_std**2 / ((level - LEAST) ** 2 + data_std**2)
  np.testing.assert_allclose(chosen.out(log_snr), c_out, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(chosen.skip(log_snr) * noise.alpha(log_snr), c_skip, atol=LEAST / data_std)


def test_the_exact_function_loses_nothing_on_the_exact_flow_and_is_left_alone():
  chosen = distilled(optax.sgd(1.0))
  start = jax.jit(chosen.init)(jax.random.key(0), batch(8))
  step, evaluate = jax.jit(chosen.step), jax.jit(chosen.evaluate)
  state = having(start, variables(1.0))
  assert evaluate(jax.random.key(1), state, batch())["disagreement"].max() < 1e-9
  assert evaluate(jax.random.key(1), start, batch())["disagreement"].mean() > 1e-4
  moved = step(jax.random.key(1), state, batch())[0].net.params["network"]
  # A gradient of rounding errors: the distance's slope is 1 over its own scale c where it is 0.
  before, after = (
    np.abs(float(step(jax.random.key(1), s, batch())[0].net.params["network"]["exact"]) - e)
    for s, e in ((start, 0.0), (state, 1.0))
  )
  assert after < 0.02 * before
  assert abs(moved["shift"]) < 0.02


def test_distillation_by_a_solver_is_as_exact_as_the_solver():
  """Neighbours on a way of the flow disagree by one step's error: of order 2 for DDIM, 3 for Heun."""
  orders = {}
  for name, solver in (("ddim", solvers.DDIM()), ("heun", solvers.Heun())):
    errors, counts = [], (10, 20)
    for count in counts:
      chosen = distilled(solver=solver, grid=grids.karras(count, LEAST, LARGEST, last=None))
      state = having(chosen.init(jax.random.key(0), batch(1)), variables(1.0))
      found = jax.jit(chosen.evaluate)(jax.random.key(1), state, batch(512))["disagreement"]
      errors.append(np.sqrt(np.asarray(found, np.float64).mean()))
    orders[name] = gaussian.slope(counts, errors)
  assert 1.5 < orders["ddim"] < 2.4
  assert orders["heun"] > 2.4


def test_training_by_a_teacher_finds_the_function():
  chosen = distilled(optax.adam(0.05), target_decay=0.5, distance=consistency.squared, decay=0.9)
  state, step = chosen.init(jax.random.key(0), batch(1)), jax.jit(chosen.step)
  for index in range(250):
    state, _ = step(jax.random.key(index), state, batch(256, index))
  found = state.average.variables["params"]["network"]
  assert found["exact"] == pytest.approx(1.0, abs=0.03)
  assert found["shift"] == pytest.approx(0.0, abs=0.02)


def trained(optimizer, num_levels, network=None, **options):
  told = dict(num_levels=num_levels, inner=parameterizations.image(), least=LEAST, largest=LARGEST, **POINTS, **options)
  return consistency.consistency_training(network or Way(), optimizer, sampler(), **told)


def test_training_without_a_teacher_finds_it_too():
  chosen = trained(optax.adam(0.03), neighbours.fixed(200), clock=neighbours.even, distance=consistency.squared, decay=0.95)
  state, step = jax.jit(chosen.init)(jax.random.key(0), batch(1)), jax.jit(chosen.step)
  for index in range(300):
    state, _ = step(jax.random.key(index), state, batch(512, index))
  found = state.average.variables["params"]["network"]
  assert found["exact"] == pytest.approx(1.0, abs=0.1)
  assert found["shift"] == pytest.approx(0.0, abs=0.05)


def test_one_evaluation_ends_where_the_flow_does():
  chosen, key = distilled(), jax.random.key(3)
  state = having(chosen.init(key, batch(1)), variables(1.0))
  start = np.asarray(diffusion.random.normal(jax.random.split(key)[0], 9, SHAPE), np.float64)
  drawn = jax.jit(chosen.sample, static_argnums=2)(key, state, 9)
  log_snr = np.linspace(noise.from_ratio(LARGEST), LAST, 3)
  of_the_flow = [gaussian.flow(gaussian.denoiser(MEAN, STD), log_snr, x)[-1] / noise.alpha(LAST) for x in start.ravel()]
  np.testing.assert_allclose(np.ravel(drawn), of_the_flow, atol=1e-4)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_each_step_of_the_sampler_keeps_the_law(num_steps):
  """f draws from the law at the least noise; put to the next level, its mean and variance are those of the data there."""
  grid = grids.karras(num_steps, 0.5, LARGEST)
  method = consistency.Multistep(LEAST)(grid)
  assert len(method.log_snr) == num_steps
  assert (method.weights[:, 0, 0] == 0).all()
  guessed, added = method.weights[:, 0, 1], method.noise[:, 0]
  mean, variance = gaussian.marginal(grid[1:], MEAN, STD)
  np.testing.assert_allclose(guessed * MEAN, mean, rtol=1e-12)
  np.testing.assert_allclose((guessed**2 * (STD**2 + LEAST**2) + added**2)[:-1], variance[:-1], rtol=1e-12)
  assert (guessed[-1], added[-1]) == (1, 0)  # the image is the last guess


def test_targets_are_an_average_and_the_average_is_another():
  decay, values = 0.75, []
  chosen = distilled(optax.sgd(0.3), distance=consistency.squared, target_decay=decay)
  state, step = jax.jit(chosen.init)(jax.random.key(0), batch(8)), jax.jit(chosen.step)
  target = 0.0
  for index in range(6):
    state, _ = step(jax.random.key(index), state, batch(64, index))
    values.append(float(state.net.params["network"]["exact"]))
    target = decay * target + (1 - decay) * values[-1]
    assert float(state.target["params"]["network"]["exact"]) == pytest.approx(target, rel=1e-5)
    assert float(state.teacher["params"]["network"]["exact"]) == 0.0
  assert len(set(values)) == 6
  chosen = trained(optax.sgd(0.3), neighbours.fixed(5))
  state = jax.jit(chosen.init)(jax.random.key(0), batch(8))
  state, _ = jax.jit(chosen.step)(jax.random.key(1), state, batch(64))
  np.testing.assert_array_equal(state.target["params"]["network"]["exact"], state.net.params["network"]["exact"])
  assert state.teacher == {}


def test_the_student_follows_the_target_and_not_the_other_way_round():
  """The target shifted by 0.1, two pairs of levels: the slope is that of the student's own term alone."""
  chosen = distilled(optax.sgd(1.0), grid=GRID[[3, 4, -1]], distance=consistency.squared)
  state = having(jax.jit(chosen.init)(jax.random.key(0), batch(8)), variables(1.0))
  moved, _ = jax.jit(chosen.step)(jax.random.key(1), state._replace(target=variables(1.0, shift=0.1)), batch())
  ours, theirs = (1 - LEAST / noise.ratio(GRID[i]) for i in (3, 4))
  slope = 2 * ours * (0.0 - theirs * 0.1) / 2  # of (ours shift - theirs 0.1)^2, by half the batch; the end is not shifted
  assert moved.net.params["network"]["shift"] == pytest.approx(-slope, rel=2e-2)


def test_distances():
  a, b = np.random.default_rng(0).standard_normal((2, 5, 2, 2, 3))
  total, c = ((a - b) ** 2).sum((1, 2, 3)), 0.3 * math.sqrt(12)
  np.testing.assert_allclose(consistency.pseudo_huber(0.3)(a, b), np.sqrt(total + c**2) - c, rtol=1e-5)
  np.testing.assert_allclose(consistency.squared(a, b), total / 12, rtol=1e-5)
  slope = jax.grad(lambda a: consistency.pseudo_huber()(a, a * 1.0).sum())(jnp.ones((2, 3)))
  np.testing.assert_array_equal(slope, 0)


def test_both_forget_the_same_units():
  """What is dropped is dropped from the target too: else the two disagree by the dropout alone."""

  class Forgetful(nn.Module):
    @nn.compact
    def __call__(self, x, number, label, train):
      gain = self.param("gain", nn.initializers.ones, ())
      return Dropout(0.5)(gain * jnp.ones_like(x), train)

  cut = noise.karras(1000 * LEAST, 2000 * LEAST)  # levels at which f is D but for a thousandth
  fresh = trained(optax.sgd(0.0), neighbours.fixed(3), Forgetful())
  make = neighbours.with_the_same_noise(cut, neighbours.fixed(3), neighbours.even)
  chosen = consistency._model(
    consistency.student(diffusion.Denoiser(Forgetful(), parameterizations.image()), LEAST),
    lambda key, batch: (fresh.init(key, batch).net, {}),
    lambda variables: None,
    make,
    consistency.squared,
    optax.sgd(0.0),
    sampler(),
    target_decay=0.0,
    **POINTS,
  )
  state = chosen.init(jax.random.key(0), batch(8))
  _, metrics = jax.jit(chosen.step)(jax.random.key(1), state, batch())
  assert metrics["disagreement"] < 1e-3  # of two masks it would be 2


def test_ways_have_an_end():
  with pytest.raises(UserError, match="finite"):
    distilled(grid=grids.karras(5, LEAST, LARGEST))
  with pytest.raises(UserError, match="leaves the way"):
    distilled(solver=solvers.Ancestral())


def test_a_student_starts_as_one_step_of_its_teacher():
  chosen = distilled()
  state = chosen.init(jax.random.key(0), batch(1))
  denoise = distillation.applied(FUNCTION, state.average.variables)
  x, level = jnp.asarray(batch(4)["image"]), np.float64(-1.0)
  step = gaussian.follow(gaussian.denoiser(MEAN, STD), solvers.DDIM()(np.array([level, LAST])), np.asarray(x, np.float64))
  np.testing.assert_allclose(denoise(x, jnp.full(4, level)), step / noise.alpha(LAST), atol=1e-5)
