"""The variational bound against the truth, for data whose best guess E[x_0 | x] is known (laws.py); and both likelihoods as a
measure."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import evaluation, parallel
from gm_jax.core import Average
from gm_jax.data import dataset
from gm_jax.errors import UserError
from gm_jax.score import decoders, flow_likelihood, grids, likelihood, noise, parameterizations
from gm_jax.score.diffusion import Denoiser
from gm_jax.score.noise import alpha
from tests.score.laws import correlated, gaussian, on_levels

HIGHEST, LOWEST = 13.3, -5.0
VARIANCE = 0.25  # of the scalar Gaussian
CLOSED_FORM = 5.9560146336  # nats between these ends: log((1 + s^2 e^highest) / (1 + s^2 e^lowest)) / 2

CLOCKS = {
  "uniform": noise.uniform(HIGHEST, LOWEST),
  "cosine": noise.cosine(0.0, HIGHEST, LOWEST),
  "karras": noise.karras(np.exp(-HIGHEST / 2), np.exp(-LOWEST / 2), 7.0),
}


def standard_error(values):
  return np.std(values) / np.sqrt(len(values))


def scalars(num):
  return (np.sqrt(VARIANCE) * np.random.default_rng(3).standard_normal((num, 1, 1, 1))).astype(np.float32)


@pytest.mark.parametrize("name", CLOCKS)
@pytest.mark.parametrize("num_levels", [1, 3, 64])
def test_diffusion_term_is_its_closed_form_whatever_the_clock(name, num_levels):
  """I-MMSE: half the integral of s^2 / (s^2 + e^-log_snr), by any number of levels."""
  denoise, clock = gaussian(0.0, VARIANCE), CLOCKS[name].log_snr
  score = lambda x: likelihood.bound(denoise, clock, x, jax.random.key(0), num_levels=num_levels)
  found = np.asarray(jax.jit(score)(scalars(2**14 // num_levels))["rate_diffusion"], np.float64)
  assert abs(found.mean() - CLOSED_FORM) < 4 * standard_error(found)
  assert standard_error(found) < 0.15 or name == "cosine"  # which is seldom where there is most to learn


def test_many_levels_are_more_exact_than_one():
  denoise, clock = gaussian(0.0, VARIANCE), CLOCKS["uniform"].log_snr
  few, many = (
    jax.jit(lambda x, num=num: likelihood.bound(denoise, clock, x, jax.random.key(0), num_levels=num))(scalars(1024))
    for num in (2, 32)
  )
  assert many["rate_diffusion"].std() < few["rate_diffusion"].std() / 3


def discrete_closed_form(grid):
  """The sum over steps of (SNR_s - SNR_t) / 2 times the variance of x_0 given x_t."""
  snr = np.exp(np.asarray(grid))
  return (np.diff(snr) / 2 * VARIANCE / (1 + VARIANCE * snr[:-1])).sum()


@pytest.mark.parametrize("num_levels", [None, 8, 2])
def test_bound_of_few_steps_is_its_closed_form_above_that_of_all(num_levels):
  denoise, previous = gaussian(0.0, VARIANCE), np.inf
  for steps in (16, 64):
    grid = grids.in_log_snr(HIGHEST, LOWEST, steps, last=None)
    score = lambda x, grid=grid: likelihood.discrete_bound(denoise, grid, x, jax.random.key(1), num_levels=num_levels)
    found = np.asarray(jax.jit(score)(scalars(2**11))["rate_diffusion"], np.float64)
    expected = discrete_closed_form(grid)
    assert abs(found.mean() - expected) < 4 * standard_error(found)
    assert CLOSED_FORM < expected < previous
    assert found.mean() > CLOSED_FORM + 4 * standard_error(found) or steps > 16
    previous = expected


def test_bound_of_a_table_is_its_first_steps_closed_form():
  """DDPM's own: 1000 betas have 999 divergences between their levels, taken here by 27 of them."""
  schedule = noise.discrete(noise.linear_betas())
  grid = schedule.log_snr(np.arange(1000, 0, -1) / 1000)
  score = lambda x: likelihood.discrete_bound(gaussian(0.0, VARIANCE), grid, x, jax.random.key(2), num_levels=27)
  parts = jax.jit(score)(scalars(2**11))
  found = np.asarray(parts["rate_diffusion"], np.float64)
  assert abs(found.mean() - discrete_closed_form(grid)) < 4 * standard_error(found)
  mean_square = np.mean(np.square(scalars(2**11)))
  kept = alpha(grid[0]) ** 2
  np.testing.assert_allclose(parts["rate_prior"].mean(), (kept * mean_square - kept - np.log1p(-kept)) / 2, rtol=1e-2)


@pytest.mark.parametrize("decoder", [decoders.levels(), decoders.discretized()])
def test_bound_is_above_the_truth_and_meets_it(decoder):
  """Pixels of three levels and the denoiser that knows them: wide ends lose nothing, narrow ones bits at either end."""
  levels, shares = np.array([0, 100, 255], np.uint8), np.array([0.2, 0.5, 0.3])
  pixels = np.repeat(levels, 4096).reshape(-1, 1, 1, 1)
  entropy = -(shares * np.log(shares)).sum()
  losses = []
  for highest, lowest in ((16.0, -10.0), (8.0, -10.0), (16.0, 3.0)):
    clock = noise.uniform(highest, lowest).log_snr
    score = lambda x, clock=clock: likelihood.bound(on_levels(levels, shares), clock, x, jax.random.key(4), decoder=decoder)
    parts = jax.jit(score)(pixels)
    terms = parts["distortion"] + parts["rate_diffusion"] + parts["rate_prior"]
    np.testing.assert_allclose(parts["nll_bound"], terms, rtol=1e-5)
    each = np.asarray(parts["nll_bound"], np.float64).reshape(3, -1)
    error = np.sqrt((shares**2 * each.var(1) / each.shape[1]).sum())
    losses.append(shares @ each.mean(1) - entropy)
    assert losses[-1] > -4 * error
    assert losses[-1] < 4 * error + 0.005 if len(losses) == 1 else losses[-1] > 0.05


def test_bound_of_points_is_above_the_density_and_meets_it():
  denoise, _, points, truth = correlated()
  score = lambda x: likelihood.bound(denoise, noise.uniform(18.0, -14.0).log_snr, x, jax.random.key(5), num_levels=64)
  copies = np.repeat(points, 512, 0)
  each = np.asarray(jax.jit(score)(copies)["nll_bound"], np.float64).reshape(len(points), -1)
  np.testing.assert_allclose(each.mean(1), truth, atol=5 * np.max(each.std(1)) / np.sqrt(512))


def test_an_example_is_bounded_alone():
  denoise, _, points, _ = correlated()
  score = jax.jit(lambda x: likelihood.bound(denoise, CLOCKS["cosine"].log_snr, x, jax.random.key(6), num_levels=3))
  np.testing.assert_allclose(score(points[:5])["nll_bound"], score(points)["nll_bound"][:5], rtol=1e-4)


@pytest.mark.parametrize(("grid", "num_levels"), [([-5, 0, np.inf], None), ([-5, 0, 5, 9], 2), ([0, -1], None)])
def test_impossible_bounds_are_refused(grid, num_levels):
  with pytest.raises(UserError):
    likelihood.discrete_bound(gaussian(0.0, 1.0), grid, jnp.zeros((1, 1, 1, 1)), jax.random.key(0), num_levels=num_levels)


# --- As a measure ---


class Exact(nn.Module):
  """The network that guesses correctly pixels of three levels, told the level's number."""

  @nn.compact
  def __call__(self, x, number, label=None, train=False):
    return on_levels([0, 100, 255], [0.2, 0.5, 0.3])(x, 20 - number / 25) + self.param("shift", nn.initializers.zeros, ())


class VariablesOnly:
  def __init__(self, variables):
    self.average = Average(variables, jnp.zeros((), jnp.int32))


jax.tree_util.register_pytree_node(VariablesOnly, lambda s: ((s.average.variables,), None), lambda _, c: VariablesOnly(*c))


def test_measure_reports_both_likelihoods_in_bits():
  module = Denoiser(Exact(), parameterizations.image())
  state = VariablesOnly({"params": {"network": {"shift": jnp.zeros(())}}})
  how = dict(num_levels=16, num_steps=64, num_probes=None, enter=flow_likelihood.gaussian_dequantization)
  pixels = np.repeat(np.array([0, 100, 255], np.uint8), [20, 50, 30]).reshape(-1, 1, 1, 1)
  split = dataset.from_arrays(pixels, np.zeros(100, np.int32), data="three levels", split="test")
  report = evaluation.evaluate(
    likelihood.measure(module, highest=15.0, lowest=-10.0, **how),
    state, split, batch_size=50, seed=0, strategy=parallel.single(), protocol={"bin_width": 1.0},
  )["metrics"]  # fmt: skip
  bits = -(np.array([0.2, 0.5, 0.3]) * np.log2([0.2, 0.5, 0.3])).sum()
  assert abs(report["nll_bits_per_dim"]["mean"] - bits) < 0.1
  bound = report["nll_bound_bits_per_dim"]
  assert abs(bound["mean"] - bits) < 4 * bound["stderr"]
  assert report["nll_error"]["unit"] == report["distortion"]["unit"] == report["rate_diffusion"]["unit"] == "nats"
  assert report["evaluations"]["mean"] == 6 * 64
