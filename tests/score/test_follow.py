"""The loop that follows tables, against a plain one in float64; samples are functions of their key and of their index alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import random, rows
from gm_jax.errors import UserError
from gm_jax.score import grids, noise, parameterizations, solvers
from gm_jax.score.diffusion import Denoiser, Sampler
from gm_jax.score.multistep import DPMpp, UniPC
from gm_jax.score.solvers import Ancestral, Heun
from tests.score import gaussian
from tests.score.members import SOLVERS


@pytest.mark.parametrize("name", ["DDIM 0.3", "churned", "DPM++ 2S", "SDE 3", "UniPC 3", "iPNDM 4", "Langevin"])
def test_compiled_loop_is_the_table(name):
  """float32 in a scan, with the noise of fold_in(key, row), against a plain loop in float64."""
  method, denoise, key = SOLVERS[name](grids.karras(5, 0.05, 20.0)), gaussian.mixture(), jax.random.key(3)

  @jax.jit
  def draw():
    start = random.normal(jax.random.key(4), 6, (2,))
    noises = jax.lax.map(lambda i: random.normal(jax.random.fold_in(key, i), 6, (2,)), jnp.arange(len(method.log_snr)))
    return solvers.follow(denoise, method, start, key), start, noises

  x, start, noises = (np.asarray(array, np.float64) for array in draw())
  np.testing.assert_allclose(x, gaussian.follow(denoise, method, start, noises), atol=2e-4)


def test_noise_is_new_at_each_row():
  """Rows that erase x and guesses that repeat it: so each row's noise is seen, and all are standard normal and unrelated."""
  num, count, key = 4000, 6, jax.random.key(0)
  method = solvers.multistep(np.arange(count + 1.0), np.zeros(count), np.zeros((count, 1)), np.ones(count))
  start = random.normal(key, num, (2,))
  last, guesses = solvers.follow(lambda x, log_snr: x, method, start, key, num_frames=count)
  seen = np.array([*guesses, last]).reshape(count + 1, -1)
  np.testing.assert_array_equal(seen[0], np.ravel(start))
  np.testing.assert_allclose(np.cov(seen), np.eye(count + 1), atol=5 / np.sqrt(2 * num))


def test_drawn_samples_have_the_tables_mean_and_variance():
  """What the recursion says in expectation, the sampler does with random draws."""
  mean, std, num = 0.5, 0.3, 4096
  for solver in (Ancestral("large"), Heun(churn=4.0)):
    method = solver(grids.in_time(noise.cosine(), 12, 6.0))
    x = np.asarray(Sampler(method)(gaussian.denoiser(mean, std), jax.random.key(2), num, (1,)), np.float64).ravel()
    m, v = gaussian.moments(method, mean, std)[:, -1]
    assert abs(x.mean() - m) < 4 * np.sqrt(v / num)
    assert abs(x.var() / v - 1) < 4 * np.sqrt(2 / num)


def test_image_i_is_the_same_in_any_company():
  """Drawn one at a time, in sevens or all at once."""
  sampler, key = Sampler(DPMpp(2, sde=True)(grids.karras(4, 0.05, 20.0))), jax.random.key(5)

  def draw(first, num):
    with rows.view(first):
      return sampler(gaussian.mixture(), key, num, (2, 2, 1))

  whole = jax.jit(lambda: draw(0, 64))()
  for num in (1, 7):
    part = jax.jit(lambda first, num=num: draw(first, num))
    for first in (0, 7, 57):
      np.testing.assert_allclose(part(first), whole[first : first + num], rtol=1e-5, atol=1e-5)
  assert len(np.unique(np.asarray(whole).round(4), axis=0)) == 64


@pytest.mark.parametrize("name", ["DDIM", "DPM++ 2M", "UniPC 2"])
def test_gauges_agree(name):
  """One grid and one truth: networks made for x, x / alpha or x / (alpha + sigma), whatever they guess, draw the same x_0."""
  truth, method = gaussian.denoiser(0.3, 0.5), SOLVERS[name](grids.in_log_snr(6.0, -6.0, 8))

  def sampled(chosen):
    def network(inputs, number, label, train):
      log_snr = 20 - number / 25
      x = inputs / noise.like(chosen.inp(log_snr), inputs)
      guess = truth(x, log_snr) - noise.like(chosen.skip(log_snr), x) * x
      return guess / noise.like(chosen.out(log_snr), x)

    denoise = lambda x, log_snr, label: Denoiser(network, chosen).apply({}, x, log_snr, label)
    return Sampler(method)(denoise, jax.random.key(1), 16, (1, 1, 1))

  alike = (
    parameterizations.velocity(noise.variance_preserving),
    parameterizations.noise(noise.variance_exploding),
    parameterizations.flow(noise.rectified_flow),
    parameterizations.karras(0.5),
  )
  first, *others = jax.jit(lambda: [sampled(chosen) for chosen in alike])()
  for x in others:
    np.testing.assert_allclose(x, first, atol=1e-5)


def test_frames_are_the_guesses():
  """Evenly spread, the last one the result; all of them if asked; too many are refused."""
  method, denoise, x = DPMpp(2)(grids.karras(7)), gaussian.mixture(), random.normal(jax.random.key(0), 3, (2,))
  follow = lambda num: jax.jit(lambda x: solvers.follow(denoise, method, x, jax.random.key(1), num_frames=num))(x)
  result, every = follow(7)
  np.testing.assert_array_equal(every[-1], result)
  for i in range(7):  # each guess ends the grid that is cut there and led to the image
    cut = DPMpp(2)(np.append(grids.karras(7)[: i + 1], np.inf))
    np.testing.assert_allclose(every[i], gaussian.follow(denoise, cut, np.asarray(x, np.float64)), atol=1e-4)
  for num, kept in ((1, [6]), (3, [2, 4, 6])):
    np.testing.assert_allclose(follow(num)[1], np.asarray(every)[kept], rtol=1e-6)
  for num in (-1, 8):
    with pytest.raises(UserError):
      follow(num)


def test_frames_take_their_own_memory_only():
  """No array of the program is as large as all steps' images: 60 steps, 3 frames kept."""
  method, x = UniPC(2)(grids.karras(60)), jnp.zeros((5, 11))
  program = jax.make_jaxpr(lambda x: solvers.follow(gaussian.denoiser(), method, x, jax.random.key(0), num_frames=3))(x)
  sizes = [np.prod(var.aval.shape) for var in variables(program.jaxpr)]
  tables = method.weights.size
  assert max(size for size in sizes if size != tables) == 3 * x.size
  assert 3 * x.size < tables < 60 * x.size


def variables(jaxpr):
  """All that a program computes, inner programs' too."""
  for equation in jaxpr.eqns:
    yield from equation.outvars
    for value in equation.params.values():
      for inner in value if isinstance(value, tuple) else [value]:
        if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
          yield from variables(getattr(inner, "jaxpr", inner))
