"""Random walks against the papers' loops, written out in the papers' own units, and against exact variances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import random, rows
from gm_jax.errors import UserError
from gm_jax.score import grids, guidance, noise, solvers
from gm_jax.score.langevin import (
  AnnealedLangevin,
  EulerMaruyama,
  PredictorCorrector,
  learned_ancestral,
  predictor_corrector,
)
from gm_jax.score.multistep import DPMpp
from gm_jax.score.noise import alpha, ratio, sigma
from gm_jax.score.solvers import DDIM, Ancestral
from tests.score import gaussian

MIXTURE = gaussian.mixture()
GRID = np.array([-4.0, -2.5, -1.0, 1.0, 3.0, 5.0])


def score(x, log_snr):
  """grad log p(x), from the guess of the image."""
  return (alpha(log_snr) * MIXTURE(x, log_snr) - x) / sigma(log_snr) ** 2


def test_euler_maruyama_is_the_papers_step():
  """x + beta (x / 2 + score) + sqrt(beta) z for each step, beta integrated over it: for a linear schedule in closed form."""
  schedule, count = noise.linear(), 6
  t = np.linspace(1, 0.01, count + 1)
  grid, z = schedule.log_snr(t), np.random.default_rng(0).normal(size=(count, 3))
  x = expected = np.array([-1.0, 0.2, 1.5])
  for i in range(count):
    beta = 0.1 * (t[i] - t[i + 1]) + 19.9 * (t[i] ** 2 - t[i + 1] ** 2) / 2
    expected = expected + beta * (expected / 2 + score(expected, grid[i])) + np.sqrt(beta) * z[i]
  np.testing.assert_allclose(gaussian.follow(MIXTURE, EulerMaruyama()(grid), x, z), expected, rtol=1e-9)


def test_euler_maruyama_meets_the_marginals_at_first_order():
  counts, errors = (64, 128, 256), []
  for count in counts:
    grid = np.linspace(-4, 4, count + 1)
    expected = gaussian.marginal(grid, 0.5, 0.6)
    errors.append(abs(gaussian.moments(EulerMaruyama()(grid), 0.5, 0.6, expected[:, 0])[1, -1] - expected[1, -1]))
  assert abs(gaussian.slope(counts, errors) - 1) < 0.15


@pytest.mark.parametrize("last", [np.inf, None], ids=["to the image", "as in the paper"])
def test_annealed_langevin_is_algorithm_1(last):
  """In its own unit, y = x_0 + s eps, and with its own step sizes e s_i^2 / s_L^2."""
  steps, size = 4, 0.3
  grid = GRID if last is None else np.append(GRID, last)
  method = AnnealedLangevin(steps, size)(grid)
  z = np.random.default_rng(0).normal(size=(len(method.log_snr), 3))
  x, levels = np.array([-1.0, 0.2, 1.5]), ratio(GRID)
  y, noises, epsilon = x / alpha(GRID[0]), iter(z), size * levels[-1] ** 2
  for log_snr, level in zip(GRID, levels):
    step = epsilon * level**2 / levels[-1] ** 2
    for _ in range(steps):
      y = y + step / 2 * score(y * alpha(log_snr), log_snr) * alpha(log_snr) + np.sqrt(step) * next(noises)
  expected = y * alpha(GRID[-1]) if last is None else MIXTURE(y * alpha(GRID[-1]), GRID[-1])
  np.testing.assert_allclose(gaussian.follow(MIXTURE, method, x, z), expected, rtol=1e-9)


def test_annealed_langevin_rests_where_its_step_size_says():
  """On Gaussian data the chain of a level goes to mean and to variance V / (1 - step sigma^2 / (4 V)), no matter from where."""
  mean, std, size = 0.4, 0.7, 0.5
  levels, steps = np.array([-3.0, 0.0, 3.0]), 1500
  moments = gaussian.moments(AnnealedLangevin(steps, size)(levels), mean, std, (3.0, 5.0))
  for i, level in enumerate(levels):
    v = gaussian.variance(level, std)
    scale = alpha(levels[i + 1]) / alpha(level) if i < 2 else 1.0  # the next level's unit
    expected = scale * alpha(level) * mean, scale**2 * v / (1 - size * sigma(level) ** 2 / (4 * v))
    np.testing.assert_allclose(moments[:, (i + 1) * steps], expected, rtol=1e-9)


@pytest.mark.parametrize("solver", [EulerMaruyama(), AnnealedLangevin(2)], ids=str)
def test_grids_from_nothing_are_refused(solver):
  with pytest.raises(UserError, match="-inf"):
    solver([-np.inf, 0.0, 1.0])


# --- Predictor and corrector ---


@pytest.mark.parametrize("corrector_steps", [0, 2])
def test_predictor_corrector_is_the_papers(corrector_steps):
  """In their unit y = x_0 + s eps: Algorithm 4 with each example's own norms, then ancestral sampling (their equation 47)."""
  grid, snr, key = np.append(GRID, np.inf), 0.2, jax.random.key(1)
  start = random.normal(jax.random.key(2), 5, (3, 2))
  draw = lambda x: predictor_corrector(MIXTURE, grid, x, key, snr=snr, corrector_steps=corrector_steps)
  actual = jax.jit(draw)(start)

  def z(i, j):
    return np.asarray(random.normal(jax.random.fold_in(jax.random.fold_in(key, i), j), 5, (3, 2)), np.float64)

  norm = lambda y: np.linalg.norm(y.reshape(5, -1), axis=1)[:, None, None]
  y = np.asarray(start, np.float64) / alpha(grid[0])
  for i, (t, s) in enumerate(zip(grid[:-1], grid[1:])):
    gradient = lambda y, t=t: score(y * alpha(t), t) * alpha(t)
    for j in range(corrector_steps):
      fresh, g = z(i, j), gradient(y)
      epsilon = 2 * (snr * norm(fresh) / norm(g)) ** 2
      y = y + epsilon * g + np.sqrt(2 * epsilon) * fresh
    noisy, less = ratio(t) ** 2, ratio(s) ** 2
    y = y + (noisy - less) * gradient(y) + np.sqrt(less * (noisy - less) / noisy) * z(i, corrector_steps)
  np.testing.assert_allclose(actual, y, atol=2e-4)


def test_corrected_image_i_is_the_same_in_any_company():
  """Norms are of one example: the others, few or many, do not change its step size."""
  grid, key = np.append(GRID[::2], np.inf), jax.random.key(5)

  def draw(first, num):
    with rows.view(first):
      return predictor_corrector(MIXTURE, grid, random.normal(jax.random.key(2), num, (2, 2, 1)), key)

  whole = jax.jit(lambda: draw(0, 64))()
  for num in (1, 7):
    part = jax.jit(lambda first, num=num: draw(first, num))
    for first in (0, 57):
      np.testing.assert_allclose(part(first), whole[first : first + num], rtol=1e-5, atol=1e-5)


def test_corrector_makes_up_for_few_steps():
  """N(0, 1) data in 400 pixels, five steps with too small a variance: Langevin steps bring it nearer to 1."""
  grid, truth = np.linspace(-5, 5, 6), gaussian.denoiser(0.0, 1.0)
  start = random.normal(jax.random.key(0), 64, (400,))
  variances = [
    float(jax.jit(lambda x, n=n: predictor_corrector(truth, grid, x, jax.random.key(1), corrector_steps=n))(start).var())
    for n in (0, 20)
  ]
  assert abs(variances[1] - 1) < abs(variances[0] - 1) / 2


def test_as_a_sampler_it_starts_from_noise_under_guidance():
  """Normal where the grid starts, each pixel; then the walk of the guided denoiser, which is told the labels."""
  grid, key, label = np.append(GRID, np.inf), jax.random.key(6), jnp.arange(7) % 2
  labelled = lambda x, log_snr, label: MIXTURE(x, log_snr) + noise.like(label.astype(x.dtype), x)
  sampler = PredictorCorrector(grid, (guidance.clipped(-0.5, 0.9),), snr=0.2, corrector_steps=2)
  found = jax.jit(lambda: sampler(labelled, key, 7, (3,), label))()
  start_key, steps_key = jax.random.split(key)
  cut = lambda x, log_snr: jnp.clip(labelled(x, log_snr, label), -0.5, 0.9)
  walk = lambda start: predictor_corrector(cut, grid, start, steps_key, snr=0.2, corrector_steps=2)
  np.testing.assert_allclose(found, jax.jit(walk)(random.normal(start_key, 7, (3,))), atol=1e-5)
  np.testing.assert_array_equal(sampler.method.log_snr, GRID)
  seen = []
  sampler = PredictorCorrector(GRID[:2], (lambda denoise: lambda x, *_: seen.append(np.asarray(x)) or x,), corrector_steps=0)
  with jax.disable_jit():
    sampler(None, key, 5000, (2,))
  assert abs(seen[0].var() - 1) < 4 * np.sqrt(2 / seen[0].size)


def test_solvers_with_memory_are_refused_as_predictors():
  with pytest.raises(UserError, match="memory"):
    predictor_corrector(MIXTURE, GRID, jnp.zeros((1, 1)), jax.random.key(0), predictor=DPMpp(2))
  predictor_corrector(MIXTURE, np.array([-np.inf, 0.0, 2.0]), jnp.zeros((1, 1)), jax.random.key(0), predictor=DDIM())


# --- A learned variance ---


def test_learned_variance_is_between_small_and_large():
  """v = 0 and v = 1 are the two fixed ones with the same noise; from nothing and to the image as well."""
  start, key = random.normal(jax.random.key(0), 4, (3,)), jax.random.key(1)
  for grid in (np.append(GRID, np.inf), np.array([-np.inf, -1.0, 2.0])):

    def draw(x, grid=grid):
      learned = [learned_ancestral(lambda x, t, v=v: (MIXTURE(x, t), jnp.full_like(x, v)), grid, x, key) for v in (0.0, 1.0)]
      fixed = [solvers.follow(MIXTURE, Ancestral(name)(grid), x, key) for name in ("small", "large")]
      return learned, fixed

    for learned, fixed in zip(*jax.jit(draw)(start)):
      np.testing.assert_allclose(learned, fixed, atol=2e-5)


def test_learned_variance_is_geometric_and_of_each_pixel():
  """Equation 15: its logarithm is linear in v, one v for each pixel."""
  t, s = GRID[2:4]
  v = jnp.linspace(0, 1, 12).reshape(3, 4)
  key, x = jax.random.key(1), random.normal(jax.random.key(0), 3, (4,))
  actual = learned_ancestral(lambda x, log_snr: (jnp.zeros_like(x), v), GRID[2:4], x, key)
  z = random.normal(jax.random.fold_in(key, 0), 3, (4,))
  small, large = solvers.small(t, s), solvers.added(t, s)
  mean = alpha(t) / alpha(s) * (sigma(s) / sigma(t)) ** 2 * np.asarray(x)
  np.testing.assert_allclose(actual - mean, np.sqrt(small ** (1 - np.asarray(v)) * large ** np.asarray(v)) * z, atol=1e-5)


def test_grids_that_fall_are_refused():
  with pytest.raises(UserError, match="rising"):
    learned_ancestral(lambda x, t: (x, x), grids.karras(3)[::-1], jnp.zeros((1, 1)), jax.random.key(0))
