"""The probability flow's likelihood against the truth, for data whose best guess E[x_0 | x] is known (laws.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax import images
from gm_jax.errors import UserError
from gm_jax.score import flow_likelihood, noise
from gm_jax.score.noise import alpha
from tests.score.laws import correlated, gaussian, mixture, on_levels


def jitted(denoise, pixels, seed=0, **how):
  solve = lambda pixels: flow_likelihood.ode_nll(denoise, pixels, jax.random.key(seed), **how)
  return jax.jit(solve)(jnp.asarray(pixels))


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
  how = dict(highest=15.0, lowest=-12.0, num_steps=256, num_probes=None, enter=flow_likelihood.gaussian_dequantization)
  found = jitted(on_levels(levels, shares), pixels, **how)
  np.testing.assert_allclose(found.nll, -np.log(np.repeat(shares, 16)), atol=0.02)


def test_impossible_flows_are_refused():
  denoise, _, points, _ = correlated()
  for how in (dict(num_steps=7), dict(num_steps=0), dict(num_probes=0)):
    with pytest.raises(UserError):
      flow_likelihood.ode_nll(denoise, jnp.asarray(points), jax.random.key(0), **how)
