"""Densities against scipy, divergences against Monte Carlo and quadrature, and slopes where float32 is tempted to fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from gm_jax import distributions as dist

RNG = np.random.default_rng(0)
X, MEAN, LOG_VAR, OTHER_MEAN, OTHER_LOG_VAR = RNG.normal(size=(5, 6, 2, 3)).astype(np.float32)


def of_example(x):
  return np.asarray(x, np.float64).reshape(len(x), -1).sum(1)


def test_normal_is_scipys():
  expected = of_example(stats.norm.logpdf(X, MEAN, np.exp(LOG_VAR / 2)))
  np.testing.assert_allclose(dist.normal_log_prob(X, MEAN, LOG_VAR), expected, rtol=1e-5)
  np.testing.assert_allclose(dist.standard_normal_log_prob(X), of_example(stats.norm.logpdf(X)), rtol=1e-5)


def test_parameters_broadcast_over_the_batch():
  one = dist.normal_log_prob(X, MEAN[:1], LOG_VAR[:1])
  np.testing.assert_allclose(one, dist.normal_log_prob(X, np.repeat(MEAN[:1], 6, 0), np.repeat(LOG_VAR[:1], 6, 0)), rtol=1e-6)


def test_bernoulli_is_scipys():
  x = (X > 0).astype(np.float32)
  probs = 1 / (1 + np.exp(-MEAN.astype(np.float64)))
  np.testing.assert_allclose(dist.bernoulli_log_prob(MEAN, x), of_example(stats.bernoulli.logpmf(x, probs)), rtol=1e-5)
  np.testing.assert_allclose(dist.bernoulli_entropy(MEAN), of_example(stats.bernoulli.entropy(probs)), rtol=1e-5)
  # A mean in between is the expectation over draws with that mean.
  between = 0.3 * np.ones_like(x)
  expected = of_example(0.3 * stats.bernoulli.logpmf(1, probs) + 0.7 * stats.bernoulli.logpmf(0, probs))
  np.testing.assert_allclose(dist.bernoulli_log_prob(MEAN, between), expected, rtol=1e-5)


@pytest.mark.parametrize("logit", [-300.0, -50.0, -20.0, 0.0, 20.0, 50.0, 300.0])
@pytest.mark.parametrize("x", [0.0, 1.0])
def test_bernoulli_at_any_logit(logit, x):
  """Values right to float32's step at the logit, where log(sigmoid) would be infinite; slopes, where they would be NaN."""
  log_prob = lambda logit: dist.bernoulli_log_prob(logit.reshape(1, 1), jnp.full((1, 1), x))[0]
  value, slope = jax.value_and_grad(log_prob)(jnp.float32(logit))
  sign = 2 * x - 1
  np.testing.assert_allclose(value, -np.logaddexp(0, -sign * logit), rtol=1e-6, atol=2e-7 * (1 + abs(logit)))
  np.testing.assert_allclose(slope, sign / (1 + np.exp(sign * logit)), rtol=1e-5, atol=2e-7)


@pytest.mark.parametrize("logit", [-60.0, -15.0, 0.0, 15.0, 60.0])
def test_bernoulli_entropy_at_any_logit(logit):
  value, slope = jax.value_and_grad(lambda logit: dist.bernoulli_entropy(logit.reshape(1, 1))[0])(jnp.float32(logit))
  p = np.exp(-np.abs(logit)) / (1 + np.exp(-np.abs(logit)))  # of the rarer outcome
  np.testing.assert_allclose(value, -p * np.log(p) - (1 - p) * np.log1p(-p), rtol=1e-5, atol=2e-7 * (1 + abs(logit)))
  np.testing.assert_allclose(slope, -logit * p * (1 - p), rtol=1e-5, atol=1e-7 * (1 + abs(logit)))


def test_categorical_is_a_table():
  logits = RNG.normal(size=(5, 4, 3, 7)).astype(np.float32)
  x = RNG.integers(0, 7, (5, 4, 3))
  table = np.exp(logits, dtype=np.float64) / np.exp(logits, dtype=np.float64).sum(-1, keepdims=True)
  expected = of_example(np.log([[[table[b, i, j, x[b, i, j]] for j in range(3)] for i in range(4)] for b in range(5)]))
  np.testing.assert_allclose(dist.categorical_log_prob(logits, x), expected, rtol=1e-5)
  far = dist.categorical_log_prob(jnp.array([[1e4, 0.0, -1e4]]), jnp.array([2]))
  np.testing.assert_allclose(far, [-2e4])


def test_kl_is_its_integral():
  """One dimension, by quadrature."""
  for m, v, n, w in [(0.3, -1.0, -0.5, 0.7), (2.0, 1.0, 0.0, 0.0), (0.0, -4.0, 0.0, 0.0), (0.0, 3.0, 0.1, 2.0)]:
    p, q = stats.norm(m, np.exp(v / 2)), stats.norm(n, np.exp(w / 2))
    expected = integrate.quad(lambda x, p=p, q=q: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), *p.interval(1 - 1e-14), limit=200)[0]
    got = dist.kl_normal(*(jnp.full((1, 1), value) for value in (m, v, n, w)))
    np.testing.assert_allclose(got, [expected], rtol=1e-5)
    if (n, w) == (0.0, 0.0):
      np.testing.assert_allclose(dist.kl_to_standard_normal(jnp.full((1, 1), m), jnp.full((1, 1), v)), [expected], rtol=1e-5)


def test_kl_is_its_monte_carlo_mean():
  """Six dimensions, a million draws, each example within four standard errors."""
  noise = RNG.normal(size=(170_000, 1, 2, 3))
  for other_mean, other_log_var, got in [
    (OTHER_MEAN, OTHER_LOG_VAR, dist.kl_normal(MEAN, LOG_VAR, OTHER_MEAN, OTHER_LOG_VAR)),
    (np.zeros_like(MEAN), np.zeros_like(MEAN), dist.kl_to_standard_normal(MEAN, LOG_VAR)),
  ]:
    for b in range(len(MEAN)):
      z = MEAN[b] + np.exp(LOG_VAR[b] / 2) * noise[:, 0]
      ratio = of_example(stats.norm.logpdf(z, MEAN[b], np.exp(LOG_VAR[b] / 2)))
      ratio -= of_example(stats.norm.logpdf(z, other_mean[b], np.exp(other_log_var[b] / 2)))
      assert abs(ratio.mean() - float(got[b])) < 4 * ratio.std() / np.sqrt(len(z))


def test_kl_is_zero_if_and_only_if_equal():
  np.testing.assert_array_equal(dist.kl_normal(MEAN, LOG_VAR, MEAN, LOG_VAR), np.zeros(6))
  np.testing.assert_array_equal(dist.kl_to_standard_normal(jnp.zeros((3, 4)), jnp.zeros((3, 4))), np.zeros(3))
  zero = jnp.zeros((1, 4))
  for small in (1e-2, 1e-3):  # off by `small` in the log-variance costs small^2 / 4 a dimension, below float32's step at 1
    off = jnp.full((1, 4), small)
    np.testing.assert_allclose(dist.kl_to_standard_normal(zero, off), [small**2], rtol=2e-2)
    np.testing.assert_allclose(dist.kl_normal(off, off, zero, zero), [3 * small**2], rtol=2e-2)
  assert np.all(np.asarray(dist.kl_normal(MEAN, LOG_VAR, OTHER_MEAN, OTHER_LOG_VAR)) > 0)


LEVELS = np.arange(256, dtype=np.float32) / 127.5 - 1
SCALES = np.exp(np.arange(-7.0, 3.0))
MEANS = np.array([-1.3, -1.0, -0.501, 0.0, 0.0039, 0.77, 1.0, 1.2])


def masses(mean, scale):
  """Log masses of all 256 levels, [256]."""
  x = jnp.asarray(LEVELS)[:, None]
  return dist.discretized_normal_log_prob(x, jnp.full((256, 1), mean), jnp.full((256, 1), 2 * np.log(scale)))


@pytest.mark.parametrize("scale", SCALES)
def test_discretized_normal_sums_to_one(scale):
  totals = [float(jnp.exp(jax.nn.logsumexp(masses(mean, scale)))) for mean in MEANS]
  np.testing.assert_allclose(totals, 1, atol=2e-4)


@pytest.mark.parametrize("scale", SCALES)
def test_discretized_normal_is_a_difference_of_scipys_cumulatives(scale):
  """In float64 and in whichever tail keeps the digits; the outermost bins take the tails."""
  edges = (np.arange(257) - 128) / 127.5
  edges[[0, -1]] = -np.inf, np.inf
  for mean in MEANS:
    below, above = stats.norm.logcdf(edges, mean, scale), stats.norm.logsf(edges, mean, scale)
    left = below[1:] + np.log(-np.expm1(np.minimum(below[:-1] - below[1:], -1e-300)))
    right = above[:-1] + np.log(-np.expm1(np.minimum(above[1:] - above[:-1], -1e-300)))
    expected = np.where(edges[1:] < mean, left, right)
    # Relative for far bins, whose log mass is in the millions; absolute to a few parts in ten thousand of the mass.
    np.testing.assert_allclose(masses(mean, scale), expected, rtol=2e-3, atol=5e-4)


@pytest.mark.parametrize("scale", SCALES)
def test_discretized_normal_has_finite_slopes_everywhere(scale):
  """At every level, edges included; and against the slope of the density where a bin is narrow beside the scale."""
  one = lambda mean, log_var, x: dist.discretized_normal_log_prob(x.reshape(1, 1), mean.reshape(1, 1), log_var.reshape(1, 1))[0]
  slopes = jax.jit(jax.vmap(jax.grad(one, (0, 1)), (None, None, 0)))
  for mean in MEANS:
    by_mean, by_log_var = slopes(jnp.float32(mean), jnp.float32(2 * np.log(scale)), jnp.asarray(LEVELS))
    assert np.all(np.isfinite(by_mean))
    assert np.all(np.isfinite(by_log_var))
    if scale >= 0.1:
      z = (LEVELS.astype(np.float64)[1:-1] - mean) / scale
      near = np.abs(z) < 5
      np.testing.assert_allclose(by_mean[1:-1][near], (z / scale)[near], atol=2e-2 / scale)
      np.testing.assert_allclose(by_log_var[1:-1][near], ((z**2 - 1) / 2)[near], atol=5e-2)
