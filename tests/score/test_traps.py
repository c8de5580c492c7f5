"""Mistakes that diffusion code is known for: each is here as something that holds, and would not if it were made."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax import random
from gm_jax.score import (
  conditional,
  diffusion,
  flow_likelihood,
  grids,
  guidance,
  langevin,
  levels,
  likelihood,
  multistep,
  noise,
  parameterizations,
  recipes,
  solvers,
)
from gm_jax.score.noise import alpha, sigma
from gm_jax.tasks import editing, inpainting
from tests.score import gaussian, laws
from tests.score.members import FLOWS, SOLVERS, each

DDPM = noise.discrete(noise.linear_betas())
SHARES, MEANS, STDS = (0.3, 0.7), (-1.0, 0.8), (0.4, 0.25)  # of gaussian.mixture


def chance(x, log_snr):
  """How probable it is to be below x, of the mixture with noise."""
  below = [stats.norm.cdf(x, alpha(log_snr) * m, np.sqrt(gaussian.variance(log_snr, s))) for m, s in zip(MEANS, STDS)]
  return np.tensordot(SHARES, below, 1)


# --- Samples of data with two modes ---


@each(FLOWS)
def test_the_flow_of_a_mixture_keeps_everyones_place(solver):
  """On a line no way overtakes another: the share of all x that is below stays what it was, from noise to the image."""
  start, grid = np.linspace(-2.5, 2.5, 41), np.linspace(-7, 9, 161)
  end = gaussian.follow(gaussian.mixture(), solver(grid), start)
  first_order = solver in (FLOWS["DDIM"], FLOWS["DPM++ 1"], FLOWS["iPNDM 1"])
  np.testing.assert_allclose(chance(end, grid[-1]), chance(start, grid[0]), rtol=0, atol=0.03 if first_order else 2e-3)
  assert np.ptp(chance(end, grid[-1])) > 0.95  # both modes are reached


@each({name: solver for name, solver in SOLVERS.items() if name not in FLOWS})
def test_random_walks_draw_from_a_mixture(solver):
  """In float64: the largest difference from the law, Kolmogorov's, is chance's, and the steps' own."""
  rng, num, grid = np.random.default_rng(0), 6000, np.linspace(-7, 6, 201)
  method = solver(grid)
  x, denoise = rng.normal(size=num), gaussian.mixture()
  x = gaussian.follow(denoise, method, x, rng.normal(size=(len(method.log_snr), num)))
  found = np.sort(chance(x, grid[-1]))
  steps = np.arange(num + 1) / num
  assert max((found - steps[:-1]).max(), (steps[1:] - found).max()) < 1.95 / np.sqrt(num) + 0.01


# --- The first step and the last ---


@pytest.mark.parametrize("zero", [False, True], ids=["some image left", "nothing left"])
def test_a_start_that_is_not_all_noise_costs_brightness(zero):
  """Where alpha of the image is left, samples that start from N(0, 1) are off by mean std alpha / sqrt(V); else by nothing.

  Lin et al. 2024; the way is followed in all of the table's steps, to its last level of noise.
  """
  mean, std, betas = 0.8, 0.5, noise.linear_betas(1000, 0.00085, 0.012)
  log_snr = noise.zero_terminal(betas) if zero else noise.discrete(betas).log_snr(np.arange(1, 1001) / 1000)
  grid = log_snr[::-1]
  found, _ = gaussian.moments(multistep.DPMpp(2)(grid), mean, std)[:, -1]
  left, spread = alpha(grid[0]), np.sqrt(gaussian.variance(grid[[0, -1]], std))
  expected = mean * (alpha(grid[-1]) - left * spread[1] / spread[0])
  assert found == pytest.approx(expected, abs=1e-4)
  assert (mean - found < 1e-3) == zero


def test_no_noise_is_left_of_a_thousand_steps():
  """Compiled, in float32, on DDPM's own table: data of one point, and no sample differs from it or from another."""
  names = ("small", "large", "optimal", "DDIM 1", "churned", "SDE 3", "Euler-Maruyama", "Langevin", "UniPC 3")
  grid = grids.trailing(DDPM, 1000)
  point = lambda x, log_snr, label=None: jnp.full_like(x, 0.7)
  draw = lambda key: [diffusion.Sampler(SOLVERS[name](grid))(point, key, 5, (2,)) for name in names]
  for name, x in zip(names, jax.jit(draw)(jax.random.key(0))):
    np.testing.assert_allclose(x, 0.7, rtol=0, atol=2e-5, err_msg=name)


def test_no_noise_is_left_where_an_image_was_filled_in():
  """The hole of data that are one point: both halves end on it, though the known one was noised anew at every step."""
  draw = lambda x: inpainting.inpaint(
    lambda x, log_snr, label=None: jnp.full_like(x, 0.7),
    x,
    jnp.arange(16).reshape(4, 4) % 3 == 0,
    jax.random.key(0),
    grid=grids.trailing(DDPM, 50),
    jump=5,
    resamples=3,
  )
  np.testing.assert_allclose(jax.jit(draw)(jnp.full((3, 4, 4, 1), 0.7)), 0.7, rtol=1e-6)


@pytest.mark.parametrize("make", [levels.uniform, levels.evenly], ids=["uniform", "evenly"])
@pytest.mark.parametrize("table", [noise.linear_betas(), noise.cosine_betas()], ids=["linear", "cosine"])
def test_tables_keep_their_digits_where_training_reads_them(table, make):
  """alpha and sigma of all of T times, as drawn in float32, against products in extended precision."""
  kept = np.cumprod(1 - np.asarray(table, np.longdouble))
  drawn = np.unique(jax.jit(lambda key: make(noise.discrete(table)).sample(key, 2**14))(jax.random.key(0)))[::-1]
  assert len(drawn) == len(table)
  drawn = drawn.astype(np.float64)
  np.testing.assert_allclose(alpha(drawn), np.sqrt(kept).astype(np.float64), rtol=2e-6)
  np.testing.assert_allclose(sigma(drawn), np.sqrt(1 - kept).astype(np.float64), rtol=2e-6)


# --- Guesses that are changed on the way ---


@pytest.mark.parametrize("name", ["DDIM", "DDIM 0.3", "small", "iPNDM 1"])
def test_the_noise_follows_a_guess_that_was_cut(name):
  """x = alpha D + sigma eps before the step whatever was done to D: eps is that of the cut guess, not of the network's."""
  grid, key = np.array([-3.0, -1.5, 0.0, 1.0, 2.5]), jax.random.key(1)
  method, mixture = SOLVERS[name](grid), gaussian.mixture()
  sampler = diffusion.Sampler(method, (guidance.clipped(-0.5, 0.4),))
  found = jax.jit(lambda: sampler(mixture, key, 6, (2,)))()
  start_key, steps_key = jax.random.split(key)
  normal = lambda key: np.asarray(diffusion.random.normal(key, 6, (2,)), np.float64)
  x, cuts = normal(start_key), 0
  for i, (t, s) in enumerate(zip(grid[:-1], grid[1:])):
    guess = np.clip(mixture(x, t), -0.5, 0.4)
    cuts += (guess != mixture(x, t)).mean()
    eps = (x - alpha(t) * guess) / sigma(t)
    eta = {"DDIM 0.3": 0.3, "small": 1.0}.get(name, 0.0)
    new = eta * sigma(s) / sigma(t) * np.sqrt(1 - (alpha(t) / alpha(s)) ** 2)  # Song, Meng and Ermon, equation 16
    x = alpha(s) * guess + np.sqrt(sigma(s) ** 2 - new**2) * eps + new * normal(jax.random.fold_in(steps_key, i))
  np.testing.assert_allclose(found, x, atol=1e-5)
  assert cuts > 1


def test_a_network_of_bfloat16_is_mixed_in_float32():
  """What it says may be coarse; what it is shown, and what its word weighs, is not."""
  chosen, said, shown = parameterizations.karras(0.5), 0.75, []

  def network(x, number, label, train):
    shown.append((x, number))
    return jnp.full(x.shape, said, jnp.bfloat16)

  rng, log_snr = np.random.default_rng(0), np.linspace(-9, 9, 7)
  x = rng.normal(size=(7, 2, 2, 1)).astype(np.float32)
  found = diffusion.Denoiser(network, chosen).apply({}, jnp.asarray(x), jnp.asarray(log_snr, jnp.float32))
  level, wide = noise.ratio(log_snr).reshape(7, 1, 1, 1), lambda values: values.reshape(7, 1, 1, 1)
  y, total = x / wide(alpha(log_snr)), np.sqrt(level**2 + 0.25)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, 0.25 / total**2 * y + level * 0.5 / total * said, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(shown[-1][0], y / total, rtol=1e-5)
  np.testing.assert_allclose(shown[-1][1], 25 * (20 - log_snr), rtol=1e-6)


# --- Keys ---


def test_no_draw_has_a_key_of_its_own_choice():
  for function in (
    solvers.follow,
    diffusion.Sampler.__call__,
    langevin.predictor_corrector,
    langevin.learned_ancestral,
    likelihood.bound,
    likelihood.discrete_bound,
    flow_likelihood.ode_nll,
    editing.image_to_image,
    editing.blend,
    inpainting.inpaint,
    inpainting.outpaint,
    conditional.augmented,
  ):
    assert inspect.signature(function).parameters["key"].default is inspect.Parameter.empty, function


def test_no_two_draws_share_a_key(monkeypatch):
  """Of a loss, samples, both likelihoods and editing: every row of every draw has a key of its own, from step to step too."""
  used, keys, evenly = [], random.keys, random.evenly

  def note(found):
    jax.debug.callback(lambda data: used.extend(row.tobytes() for row in np.reshape(data, (-1, 2))), jax.random.key_data(found))
    return found

  monkeypatch.setattr(random, "keys", lambda key, num: note(keys(key, num)))
  monkeypatch.setattr(random, "evenly", lambda key, num: evenly(note(key), num))
  denoise, key = gaussian.mixture(), jax.random.key(0)
  grid, x_0 = np.array([-2.0, 0.0, 2.0, 4.0]), jnp.zeros((2, 4, 4, 1))
  clock, black_or_white = noise.uniform(9.0, -5.0).log_snr, laws.on_levels([0, 255], [0.5, 0.5])
  model = diffusion.Denoiser(lambda x, number, label, train: x, parameterizations.velocity(), 10).bind({})
  batch = {"image": np.zeros((2, 4, 4, 1), np.uint8), "label": np.zeros(2, np.int32)}
  programs = {  # and how many draws of two rows there are; `evenly` has one key for all rows
    "objective": (lambda: diffusion.denoising(recipes.edm())(model, key, batch, True)[0], 2 * 3),
    "sampler": (lambda: diffusion.Sampler(solvers.Ancestral()(grid))(denoise, key, 2, (3,)), 2 * 4),
    "corrected": (lambda: langevin.PredictorCorrector(grid)(denoise, key, 2, (3,)), 2 * 7),
    "bound": (lambda: likelihood.bound(black_or_white, clock, batch["image"], key, num_levels=2)["nll_bound"], 2 * 3 + 1),
    "steps": (lambda: likelihood.discrete_bound(black_or_white, grid, batch["image"], key)["nll_bound"], 2 * 7),
    "flow": (lambda: flow_likelihood.ode_nll(black_or_white, batch["image"], key, num_steps=2).nll, 2 * 2),
    "mixed": (lambda: editing.blend(denoise, x_0, x_0, [0.5], key, grid=grid, strength=1.0, same_noise=False), 2 * 5),
    "filled": (lambda: inpainting.inpaint(denoise, x_0, np.eye(4) > 0, key, grid=grid, jump=1, resamples=2), 2 * (1 + 2 * 5)),
  }
  for name, (program, count) in programs.items():
    used.clear()
    jax.block_until_ready(jax.jit(program)())
    jax.effects_barrier()
    assert len(set(used)) == len(used) == count, name
