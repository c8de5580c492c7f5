"""Reflow on Gaussian data, where all is known: the flow makes x_0 = MEAN + STD eps of noise, and the lines between them never
cross, so what is learnt from these couples is straight and one step of Euler's method is exact.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate

from gm_jax import random
from gm_jax.core import from_objective
from gm_jax.errors import UserError
from gm_jax.score import (
  diffusion,
  distillation,
  grids,
  levels,
  multistep,
  noise,
  parameterizations,
  recipes,
  reflow,
  solvers,
  weights,
)
from tests.score import gaussian

MEAN, STD, SHAPE = 0.3, 0.5, (1, 1, 2)
# The flow from nothing but noise, in one exact step: there D = MEAN.
EXACT = solvers.Method(np.array([-np.inf]), np.array([[[STD, 1.0]]]), np.zeros((1, 1)))
STRAIGHT = [solvers.DDIM()(grids.in_time(noise.straight(), num)) for num in (1, 2, 5)]


def _error(t):
  """Of the velocity that E[x_0 | x] gives, squared, on the exact couples; that is the image's over t."""
  gain = (1 - t) * STD**2 / (((1 - t) * STD) ** 2 + t**2)
  return ((gain * ((1 - t) * STD + t) - STD) / t) ** 2


BENT = integrate.quad(_error, 0, 1)[0]  # its mean over t


class Line(nn.Module):
  """D as a line in x: `reflowed` parts of what reflow should learn, the rest E[x_0 | x]; and a shift."""

  @nn.compact
  def __call__(self, x, number, label, train):
    part = self.param("reflowed", nn.initializers.zeros, ())
    shift = self.param("shift", nn.initializers.zeros, ())
    log_snr = jnp.where(number >= 1000, -jnp.inf, 20 - number / 25)  # see parameterizations.level_number
    a, s = noise.like(noise.alpha(log_snr), x), noise.like(noise.sigma(log_snr), x)
    on_a_line = MEAN + STD * (x - a * MEAN) / (a * STD + s)
    mean = MEAN + a * STD**2 / ((a * STD) ** 2 + s**2) * (x - a * MEAN)
    return part * on_a_line + (1 - part) * mean + shift


MODULE = diffusion.Denoiser(Line(), parameterizations.image())


def variables(reflowed, shift=0.0):
  return {"params": {"network": {"reflowed": jnp.float32(reflowed), "shift": jnp.float32(shift)}}}


def model(teacher=0.0, optimizer=None, method=EXACT, sampler=STRAIGHT[0], **options):
  told = dict(image_shape=SHAPE, write=lambda x: x, **options)
  optimizer = optimizer or optax.sgd(0.0)
  return reflow.reflow(MODULE, variables(teacher), optimizer, method, diffusion.Sampler(sampler), **told)


def having(state, student):
  net, average = state.net, state.average
  return state._replace(net=net._replace(params=student["params"]), average=average._replace(variables=student))


def batch(num):
  return {"image": np.zeros((num, *SHAPE), np.float32)}


def denoise(reflowed):
  return distillation.applied(MODULE, variables(reflowed))


def normal(num):
  return random.normal(jax.random.key(7), num, SHAPE)


def test_couples_are_those_of_the_flow():
  """From a first level with some image left, where x = eps is a point of the law there; Heun's error falls as its square."""
  eps = np.asarray(normal(8), np.float64)
  first = -2 * np.log(20.0)
  exact = MEAN + STD * (eps - noise.alpha(first) * MEAN) / np.sqrt(gaussian.variance(first, STD))
  errors = []
  for num_steps in (32, 64):
    method = solvers.Heun()(grids.karras(num_steps, 0.001, 20.0))
    errors.append(np.abs(np.asarray(reflow.couple(denoise(0.0), method, jnp.float32(eps))) - exact).max())
  assert errors[1] < 4e-3
  assert errors[1] < errors[0] / 3
  np.testing.assert_allclose(reflow.couple(denoise(0.0), EXACT, jnp.float32(eps)), MEAN + STD * eps, atol=1e-5)


def test_what_should_be_learnt_loses_nothing_and_is_left_alone():
  chosen = model(optimizer=optax.sgd(1.0))
  state = having(chosen.init(jax.random.key(0), batch(1)), variables(1.0))
  scores = jax.jit(chosen.evaluate)(jax.random.key(1), state, batch(512))
  assert scores["denoising"].max() < 1e-8
  moved, metrics = jax.jit(chosen.step)(jax.random.key(1), state, batch(512))
  assert metrics["loss"] < 1e-8
  found = moved.net.params["network"]
  assert found["reflowed"] == pytest.approx(1.0, abs=1e-4)
  assert found["shift"] == pytest.approx(0.0, abs=1e-4)


def test_what_the_teacher_loses_on_its_own_couples_is_its_closed_form():
  chosen, num = model(), 2**14
  found = np.asarray(
    jax.jit(chosen.evaluate)(jax.random.key(1), chosen.init(jax.random.key(0), batch(1)), batch(num))["denoising"]
  )
  assert abs(found.mean() - BENT) < 4.5 * found.std() / np.sqrt(num)
  assert found.std() / np.sqrt(num) < 0.02 * BENT


def test_one_step_is_exact_and_the_law_is_kept():
  key, state = jax.random.key(3), None
  start = np.asarray(random.normal(jax.random.split(key)[0], 1000, SHAPE))
  for sampler in STRAIGHT:
    chosen = model(sampler=sampler)
    state = having(chosen.init(jax.random.key(0), batch(1)), variables(1.0))
    drawn = jax.jit(chosen.sample, static_argnums=2)(key, state, 1000)
    np.testing.assert_allclose(drawn, MEAN + STD * start, atol=1e-5)
  # The teacher's one step is the data's mean.
  one = jax.jit(model().sample, static_argnums=2)(key, having(state, variables(0.0)), 1000)
  np.testing.assert_allclose(one, MEAN, atol=1e-5)


def test_straight_ways_are_straight_and_others_as_bent_as_they_are():
  """Of N(0, STD^2) the way is eps g(t), g^2 = ((1 - t) STD)^2 + t^2, and the bend eps^2 (int g'^2 dt - (g(1) - g(0))^2)."""
  x, grid = normal(6), grids.in_time(noise.straight(), 400)
  measure = jax.jit(lambda part, x: reflow.straightness(distillation.applied(MODULE, variables(part)), x, grid))
  assert measure(1.0, x).max() < 1e-7
  slope = lambda t: (t - (1 - t) * STD**2) / np.sqrt(((1 - t) * STD) ** 2 + t**2)
  bend = integrate.quad(lambda t: slope(t) ** 2, 0, 1)[0] - (1 - STD) ** 2
  expected = bend * (np.asarray(x, np.float64) ** 2).reshape(6, -1).mean(1)
  np.testing.assert_allclose(measure(0.0, x), expected, rtol=0.01)


@pytest.mark.parametrize("rounds", [1, 2])
def test_training_straightens(rounds):
  """From E[x_0 | x] to the line, by gradient descent, and from there on there is nothing more to learn."""
  # Unlike EXACT it is right whoever the teacher is; for the first one to 1 in 100.
  method = multistep.DPMpp(2)(grids.in_time(noise.straight(), 32))
  ways = {"learn": optax.sgd(0.2 / BENT), "stay": optax.set_to_zero()}
  optimizer = optax.multi_transform(ways, {"network": {"reflowed": "learn", "shift": "stay"}})
  chosen = model(optimizer=optimizer, method=method, rounds=rounds, round_steps=30, decay=0.5)
  state, step = chosen.init(jax.random.key(0), batch(1)), jax.jit(chosen.step)
  for index in range(30 * rounds):
    state, metrics = step(jax.random.key(index), state, batch(256))
  found = state.average.variables["params"]["network"]
  assert found["reflowed"] == pytest.approx(1.0, abs=0.06)
  assert metrics["round"] == rounds - 1


def test_couples_made_before_are_learnt_the_same_way():
  """A data set of couples, by the plainest model there is."""
  recipe = recipes.Recipe(parameterizations.image(), levels.evenly(noise.straight()), weights.flow)
  never = lambda model, key, num, condition: None
  chosen = from_objective(MODULE, reflow.matching(recipe), never, optax.sgd(0.0), reports="denoising")
  eps = np.random.default_rng(0).standard_normal((512, *SHAPE)).astype(np.float32)
  couples = {"image": MEAN + STD * eps, "noise": eps}
  state = chosen.init(jax.random.key(0), couples)
  of = lambda student: chosen.evaluate(jax.random.key(1), having(state, student), couples)["denoising"]
  assert of(variables(1.0)).max() < 1e-8
  assert of(variables(0.0)).mean() > 1e-2
  # At a level, a shift costs its square at the flow's weight.
  only = recipe._replace(levels=levels.only([0.7]))
  chosen = from_objective(MODULE, reflow.matching(only), never, optax.sgd(0.0), reports="denoising")
  np.testing.assert_allclose(of(variables(1.0, shift=0.1)), 0.1**2 * (1 / 0.7 + 1) ** 2, rtol=1e-3)


def test_couples_are_of_the_labels_that_the_student_hears():
  class Named(nn.Module):
    @nn.compact
    def __call__(self, x, number, label, train):
      table = self.param("table", nn.initializers.zeros, (4,))
      return jnp.broadcast_to(noise.like(table[jnp.full(len(x), 3) if label is None else label], x), x.shape)

  module = diffusion.Denoiser(Named(), parameterizations.image(), 3)
  taught = {"params": {"network": {"table": jnp.array([1.0, 2.0, 3.0, 10.0])}}}
  told = dict(image_shape=SHAPE, write=lambda x: x, label_dropout=0.5)
  chosen = reflow.reflow(module, taught, optax.sgd(0.1), STRAIGHT[1], diffusion.Sampler(STRAIGHT[1]), **told)
  given = {**batch(256), "label": np.arange(256, dtype=np.int32) % 3}
  state = chosen.init(jax.random.key(0), given)
  assert jax.jit(chosen.step)(jax.random.key(1), state, given)[1]["loss"] < 1e-6
  assert jax.jit(chosen.evaluate)(jax.random.key(1), state, given)["denoising"].max() < 1e-4


def test_noise_on_the_way_couples_nothing():
  noisy = solvers.Ancestral()(grids.karras(4))
  with pytest.raises(UserError, match="adds noise"):
    reflow.couple(denoise(0.0), noisy, normal(2))
  asked_for_noise = diffusion.Denoiser(Line(), parameterizations.noise())
  with pytest.raises(ValueError, match="nothing is left of the image"):
    reflow.reflow(asked_for_noise, variables(0.0), optax.sgd(0.0), EXACT, diffusion.Sampler(EXACT), image_shape=SHAPE)
