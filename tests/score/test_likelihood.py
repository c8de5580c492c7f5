"""Likelihoods of diffusion against the truth, for data whose best guess E[x_0 | x] is known: Gaussians with any correlations,
mixtures of them, uniform pixels, and pixels of a few levels."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax import evaluation, images, parallel
from gm_jax.core import Average
from gm_jax.data import dataset
from gm_jax.errors import UserError
from gm_jax.score import grids, likelihood, noise, parameterizations
from gm_jax.score.diffusion import Denoiser
from gm_jax.score.noise import alpha, sigma

HIGHEST, LOWEST = 13.3, -5.0
VARIANCE = 0.25  # of the scalar Gaussian
CLOSED_FORM = 5.9560146336  # nats between these ends: log((1 + s^2 e^highest) / (1 + s^2 e^lowest)) / 2


def gaussian(mean, covariance):
  """E[x_0 | x] of N(mean, covariance), for x [B, ...] and log_snr [] or [B]."""
  values, vectors = (jnp.asarray(array, jnp.float32) for array in np.linalg.eigh(np.atleast_2d(covariance)))
  mean = jnp.asarray(np.atleast_1d(mean), jnp.float32)[None]

  def denoise(x, log_snr, label=None):
    log_snr = jnp.broadcast_to(jnp.asarray(log_snr, jnp.float32), (len(x),))[:, None]
    a, s = alpha(log_snr), sigma(log_snr)
    gain = a * values[None] / (a**2 * values[None] + s**2)
    centred = x.reshape(len(x), -1) - a * mean
    return (((centred @ vectors) * gain) @ vectors.T + mean).reshape(x.shape)

  return denoise


def mixture(shares, means, std):
  """E[x_0 | x] of a mixture of N(means[k], std^2 I), x [B, 1, 1, D]."""
  shares, means = jnp.asarray(shares, jnp.float32), jnp.asarray(means, jnp.float32)

  def denoise(x, log_snr, label=None):
    a, s = alpha(jnp.float32(log_snr)), sigma(jnp.float32(log_snr))
    total = (a * std) ** 2 + s**2
    away = x.reshape(len(x), 1, -1) - a * means[None]  # [B, K, D]
    chance = jax.nn.softmax(jnp.log(shares)[None] - (away**2).sum(-1) / (2 * total))
    guesses = means[None] + a * std**2 / total * away
    return (chance[..., None] * guesses).sum(1).reshape(x.shape)

  return denoise


def on_levels(levels, shares):
  """E[x_0 | x] of pixels that are one of a few uint8 levels."""
  values = images.to_symmetric(jnp.asarray(levels, jnp.uint8))

  def denoise(x, log_snr, label=None):
    log_snr = jnp.broadcast_to(jnp.asarray(log_snr, jnp.float32), (len(x),)).reshape(-1, *(1,) * x.ndim)
    distance = x[..., None] / alpha(log_snr) - values.reshape(*(1,) * x.ndim, -1)
    chance = jax.nn.softmax(jnp.log(jnp.asarray(shares)).reshape(*(1,) * x.ndim, -1) - distance**2 * jnp.exp(log_snr) / 2)
    return (chance * values.reshape(*(1,) * x.ndim, -1)).sum(-1)

  return denoise


@functools.cache
def correlated():
  """A Gaussian whose deviations are 1.5, 0.4 and 0.03, in no direction that is an axis."""
  generator = np.random.default_rng(0)
  turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
  covariance = turn @ np.diag([1.5, 0.4, 0.03]) ** 2 @ turn.T
  mean = np.array([0.5, -0.3, 0.1])
  points = generator.multivariate_normal(mean, covariance, 20)
  truth = -stats.multivariate_normal(mean, covariance).logpdf(points)
  return gaussian(mean, covariance), covariance, points.astype(np.float32)[:, None, None], truth


def jitted(denoise, pixels, seed=0, **how):
  solve = lambda pixels: likelihood.ode_nll(denoise, pixels, jax.random.key(seed), **how)
  return jax.jit(solve)(jnp.asarray(pixels))


def standard_error(values):
  return np.std(values) / np.sqrt(len(values))


# --- The flow ---


def test_flow_of_a_gaussian_is_its_density():
  denoise, _, points, truth = correlated()
  found = jitted(denoise, points, highest=18.0, lowest=-14.0, num_steps=96, num_probes=None)
  np.testing.assert_allclose(found.nll, truth, atol=2e-3)
  assert found.num_evaluations == 6 * 96


def test_what_is_scored_is_the_density_blurred_by_the_highest_level():
  """Where the flow stops short of the data, their covariance has e^-highest more: to the digit, so the truncation is known."""
  denoise, covariance, points, _ = correlated()
  for highest in (4.0, 7.0):
    blurred = stats.multivariate_normal([0.5, -0.3, 0.1], covariance + np.exp(-highest) * np.eye(3))
    found = jitted(denoise, points, highest=highest, lowest=-14.0, num_steps=80, num_probes=None)
    np.testing.assert_allclose(found.nll, -blurred.logpdf(points[:, 0, 0]), atol=1e-3)


def test_steps_are_of_fourth_order_and_the_error_of_halving_is_honest():
  denoise, _, points, _ = correlated()
  solve = lambda steps: jitted(denoise, points, highest=12.0, lowest=-12.0, num_steps=steps, num_probes=None)
  truth, found = solve(192).nll, [solve(steps) for steps in (12, 24, 48)]
  errors = [np.abs(each.nll - truth) for each in found]
  for error, each in zip(errors, found):
    assert np.all(error < 2 * each.error + 2e-4)
    assert error.mean() < each.error.mean() / 4
  assert errors[0].mean() / errors[1].mean() > 10  # 16, were it not for higher orders
  assert errors[0].max() > 1e-2  # there was something to gain


def test_flow_of_a_mixture_is_its_density():
  shares, means, std = [0.2, 0.5, 0.3], np.array([[-1.0, 0.0], [0.5, 0.8], [0.9, -0.7]]), 0.2
  generator = np.random.default_rng(1)
  points = means[generator.choice(3, 40, p=shares)] + std * generator.normal(size=(40, 2))
  density = sum(share * stats.multivariate_normal(mean, std**2 * np.eye(2)).pdf(points) for share, mean in zip(shares, means))
  how = dict(highest=16.0, lowest=-12.0, num_probes=None)
  found = jitted(mixture(shares, means, std), points.astype(np.float32)[:, None, None], num_steps=128, **how)
  np.testing.assert_allclose(found.nll, -np.log(density), atol=3e-3)
  few = jitted(mixture(shares, means, std), points.astype(np.float32)[:, None, None], num_steps=16, **how)
  assert np.abs(few.nll + np.log(density)).mean() < few.error.mean() + 1e-3


def test_probes_of_a_diagonal_jacobian_have_no_variance():
  points = np.random.default_rng(2).normal(size=(6, 1, 1, 3)).astype(np.float32)
  denoise = gaussian(np.zeros(3), np.diag([1.0, 0.1, 0.02]))
  exact = jitted(denoise, points, num_steps=16, num_probes=None)
  for seed in range(3):
    np.testing.assert_allclose(jitted(denoise, points, seed, num_steps=16).nll, exact.nll, atol=1e-4)


@pytest.mark.parametrize("num_probes", [1, 3])
def test_probes_have_hutchinsons_mean_and_variance(num_probes):
  """One set of probes serves all of the way, so the estimate is v^T M v with M = int alpha J / 2 d log_snr, in closed form."""
  denoise, covariance, points, _ = correlated()
  highest, lowest = 12.0, -10.0
  how = dict(highest=highest, lowest=lowest, num_steps=48)
  copies = np.repeat(points[:1], 8192, 0)
  found = np.asarray(jitted(denoise, copies, num_probes=num_probes, **how).nll, np.float64)
  exact = np.asarray(jitted(denoise, points[:1], num_probes=None, **how).nll)
  values, vectors = np.linalg.eigh(covariance)
  spread = vectors @ np.diag(np.log((1 + values * np.exp(highest)) / (1 + values * np.exp(lowest))) / 2) @ vectors.T
  variance = 2 * ((spread**2).sum() - (np.diag(spread) ** 2).sum()) / num_probes
  assert abs(found.mean() - exact[0]) < 5 * np.sqrt(variance / len(found))
  np.testing.assert_allclose(found.var(), variance, rtol=0.1)


def test_a_solve_converges_for_each_set_of_probes():
  """Fresh probes at every step would leave a difference of their own between two solves, however many steps they take."""
  denoise, _, points, _ = correlated()
  fine, other = (jitted(denoise, points, seed, num_steps=64) for seed in (0, 1))
  assert fine.error.max() < 2e-3
  np.testing.assert_array_equal(fine.nll, jitted(denoise, points, 0, num_steps=64).nll)
  assert np.abs(fine.nll - other.nll).max() > 0.1


def test_an_example_is_solved_alone():
  denoise, _, points, _ = correlated()
  whole = jitted(denoise, points, num_steps=8).nll
  np.testing.assert_allclose(jitted(denoise, points[:7], num_steps=8).nll, whole[:7], atol=1e-5)
  mates = np.concatenate([points[:7], 100 + points[7:]])  # others that are far away take no smaller steps on its account
  np.testing.assert_allclose(jitted(denoise, mates, num_steps=8).nll[:7], whole[:7], atol=1e-5)
  exact = lambda points: jitted(denoise, points, num_steps=8, num_probes=None).nll
  np.testing.assert_allclose(exact(points[::-1]), exact(points)[::-1], atol=1e-5)


def uniform_pixels(x, log_snr, label=None):
  """E[x_0 | x] of pixels uniform over the bins of all levels: the mean of a normal cut off at both ends."""
  level, edge, y = noise.ratio(jnp.float32(log_snr)), 1 + 1 / 255, x / alpha(jnp.float32(log_snr))
  low, high = (-edge - y) / level, (edge - y) / level
  mass = jax.scipy.stats.norm.cdf(high) - jax.scipy.stats.norm.cdf(low)
  cut = y + level * (jnp.exp(-(low**2) / 2) - jnp.exp(-(high**2) / 2)) / (np.sqrt(2 * np.pi) * jnp.maximum(mass, 1e-3))
  # Where the noise is wide that is a small difference of two: a sum over the interval, which is exact there, takes its place.
  nodes, weights = (array.astype(np.float32).reshape(*(1,) * x.ndim, -1) for array in np.polynomial.legendre.leggauss(32))
  nodes, wide = edge * nodes, jnp.maximum(level, 0.4)
  chance = weights * jax.nn.softmax((2 * y[..., None] * nodes - nodes**2) / (2 * wide**2))
  return jnp.where(level > 0.4, (chance * nodes).sum(-1) / chance.sum(-1), cut)


def test_uniform_pixels_are_worth_eight_bits():
  inner = np.arange(10, 246, dtype=np.uint8).reshape(-1, 1, 2, 2)
  nll = jitted(uniform_pixels, inner, highest=14.0, lowest=-12.0, num_steps=96, num_probes=None).nll
  np.testing.assert_allclose(images.bits_per_dim(nll, 4), 8, atol=1e-3)


def test_flow_through_noise_scores_pixels_of_few_levels():
  """A denoiser that knows the levels: the noise of the highest level stands in for dequantisation, and p is what it was."""
  levels, shares = [0, 100, 255], [0.2, 0.5, 0.3]
  pixels = np.repeat(np.array(levels, np.uint8), 16).reshape(-1, 1, 1, 1)
  how = dict(highest=15.0, lowest=-12.0, num_steps=256, num_probes=None, enter=likelihood.gaussian_dequantization)
  found = jitted(on_levels(levels, shares), pixels, **how)
  np.testing.assert_allclose(found.nll, -np.log(np.repeat(shares, 16)), atol=0.02)


def test_impossible_flows_are_refused():
  denoise, _, points, _ = correlated()
  for how in (dict(num_steps=7), dict(num_steps=0), dict(num_probes=0)):
    with pytest.raises(UserError):
      likelihood.ode_nll(denoise, jnp.asarray(points), jax.random.key(0), **how)


# --- The decoders ---


@pytest.mark.parametrize("decoder", [likelihood.levels(), likelihood.discretized()])
@pytest.mark.parametrize("level", [1e-4, 1e-3, 4e-3, 0.03, 1.0, 10.0])
def test_decoders_sum_to_one_over_the_levels(decoder, level):
  every = images.to_symmetric(jnp.arange(256, dtype=jnp.uint8)).reshape(256, 1, 1, 1)
  for y in (-1.0, -0.7031, 0.002, 0.99, 1.0, 1.2):
    log_snr = jnp.float32(noise.from_ratio(level))
    x = jnp.full((256, 1, 1, 1), y) * alpha(log_snr)
    log_prob = decoder.log_prob(lambda x, at: x / alpha(at), every, x, log_snr)
    np.testing.assert_allclose(np.exp(np.asarray(log_prob, np.float64)).sum(), 1, atol=1e-5)


def test_levels_are_told_by_the_noise():
  """p(level | x) by Bayes' rule in float64."""
  values = np.arange(256) / 127.5 - 1
  log_snr = np.float32(11.0)
  a, s = (function(np.float64(log_snr)) for function in (alpha, sigma))
  x = a * np.array([-0.51, 0.3, 0.999])
  log_joint = stats.norm.logpdf(x[:, None], a * values, s)
  expected = (log_joint - np.logaddexp.reduce(log_joint, 1, keepdims=True))[[0, 1, 2], [60, 166, 254]]
  x_0 = images.to_symmetric(jnp.array([60, 166, 254], jnp.uint8))
  shaped = lambda array: jnp.asarray(array, jnp.float32).reshape(3, 1, 1, 1)
  found = likelihood.levels().log_prob(None, shaped(x_0), shaped(x), jnp.float32(log_snr))
  np.testing.assert_allclose(found, expected, rtol=1e-3)


# --- The bound ---

CLOCKS = {
  "uniform": noise.uniform(HIGHEST, LOWEST),
  "cosine": noise.cosine(0.0, HIGHEST, LOWEST),
  "karras": noise.karras(np.exp(-HIGHEST / 2), np.exp(-LOWEST / 2), 7.0),
}


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


@pytest.mark.parametrize("decoder", [likelihood.levels(), likelihood.discretized()])
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
  how = dict(num_levels=16, num_steps=64, num_probes=None, enter=likelihood.gaussian_dequantization)
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
