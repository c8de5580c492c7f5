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


# Gaussians with correlations, in float64 by scipy.

FACTOR, OTHER_FACTOR = RNG.normal(size=(5, 2)).astype(np.float32), RNG.normal(size=(5, 3)).astype(np.float32)
VECTOR, OTHER_VECTOR, NOISE, OTHER_NOISE = RNG.normal(size=(4, 5)).astype(np.float32)
TRIL, OTHER_TRIL = (np.tril(RNG.normal(size=(5, 5)), -1) + np.diag(RNG.uniform(0.3, 2, 5)) for _ in range(2))
POINTS = RNG.normal(size=(7, 5)).astype(np.float32) * 2
NOISES = pytest.mark.parametrize("noise", [NOISE, np.float32(-3.0), -8.0], ids=["diagonal", "isotropic", "number"])


def covariance(factor, log_var):
  return factor.astype(np.float64) @ factor.T + np.diag(np.exp(np.broadcast_to(log_var, 5).astype(np.float64)))


def kl_of_covariances(mean, cov, other_mean, other_cov):
  """The textbook's formula, float64."""
  inverse, shift = np.linalg.inv(other_cov), np.float64(mean) - other_mean
  log_det = np.linalg.slogdet(other_cov)[1] - np.linalg.slogdet(cov)[1]
  return 0.5 * (np.trace(inverse @ cov) - len(mean) + log_det + shift @ inverse @ shift)


def test_full_normal_is_scipys():
  law = stats.multivariate_normal(VECTOR, TRIL @ TRIL.T)
  np.testing.assert_allclose(dist.full_normal_log_prob(POINTS, VECTOR, jnp.float32(TRIL)), law.logpdf(POINTS), rtol=1e-5)
  np.testing.assert_allclose(dist.full_normal_entropy(jnp.float32(TRIL)), law.entropy(), rtol=1e-6)
  signs = np.float32([1, -1, -1, 1, -1])  # the same covariance
  np.testing.assert_allclose(dist.full_normal_log_prob(POINTS, VECTOR, TRIL * signs), law.logpdf(POINTS), rtol=1e-5)


@NOISES
def test_low_rank_normal_is_scipys(noise):
  law = stats.multivariate_normal(VECTOR, covariance(FACTOR, noise))
  np.testing.assert_allclose(dist.low_rank_normal_log_prob(POINTS, VECTOR, FACTOR, noise), law.logpdf(POINTS), rtol=1e-5)
  np.testing.assert_allclose(dist.low_rank_normal_entropy(FACTOR, noise), law.entropy(), rtol=1e-5, atol=1e-5)


def test_low_rank_normal_keeps_its_digits_at_small_noise():
  """Points in the plane of the factor, noise e^-12: Woodbury's difference of squares would be off by whole nats."""
  latent = RNG.normal(size=(50, 2))
  x = np.float32(10 * latent @ FACTOR.T + np.exp(-6) * RNG.normal(size=(50, 5)))
  exact = stats.multivariate_normal(np.zeros(5), covariance(FACTOR, -12.0)).logpdf(x)
  got = dist.low_rank_normal_log_prob(x, jnp.zeros(5), FACTOR, -12.0)
  # float32 already places x itself only to 1e-7 of its size, that is to 3e-4 of the noise.
  np.testing.assert_allclose(got, exact, rtol=1e-3, atol=2e-2)


def test_kl_of_full_normals_is_the_textbooks():
  got = dist.kl_full_normal(VECTOR, jnp.float32(TRIL), OTHER_VECTOR, jnp.float32(OTHER_TRIL))
  np.testing.assert_allclose(got, kl_of_covariances(VECTOR, TRIL @ TRIL.T, OTHER_VECTOR, OTHER_TRIL @ OTHER_TRIL.T), rtol=1e-4)
  assert dist.kl_full_normal(VECTOR, jnp.float32(TRIL), VECTOR, jnp.float32(TRIL)) == pytest.approx(0, abs=1e-9)
  diagonals = jnp.diag(jnp.exp(NOISE / 2)), jnp.diag(jnp.exp(OTHER_NOISE / 2))
  diagonal = dist.kl_normal(*(value[None] for value in (VECTOR, NOISE, OTHER_VECTOR, OTHER_NOISE)))
  np.testing.assert_allclose(dist.kl_full_normal(VECTOR, diagonals[0], OTHER_VECTOR, diagonals[1]), diagonal[0], rtol=1e-5)


@NOISES
def test_kl_of_low_rank_normals_is_the_textbooks(noise):
  got = dist.kl_low_rank_normal(VECTOR, FACTOR, OTHER_NOISE, OTHER_VECTOR, OTHER_FACTOR, noise)
  exact = kl_of_covariances(VECTOR, covariance(FACTOR, OTHER_NOISE), OTHER_VECTOR, covariance(OTHER_FACTOR, noise))
  np.testing.assert_allclose(got, exact, rtol=1e-3)
  same = dist.kl_low_rank_normal(VECTOR, FACTOR, noise, VECTOR, FACTOR, noise)
  assert same == pytest.approx(0, abs=2e-3 if np.ndim(noise) == 0 else 1e-5)


def test_entropies_and_kls_of_discrete_laws_are_scipys():
  weights, others = (np.float64(np.exp(value)) for value in (MEAN, OTHER_MEAN))  # [6, 2, 3]: two categoricals of three levels
  entropy, kl = stats.entropy(weights, axis=-1).sum(1), stats.entropy(weights, others, axis=-1).sum(1)
  np.testing.assert_allclose(dist.categorical_entropy(MEAN), entropy, rtol=1e-5)
  np.testing.assert_allclose(dist.kl_categorical(MEAN, OTHER_MEAN), kl, rtol=1e-4, atol=1e-6)
  pair = lambda logits: np.stack([np.exp(np.float64(logits)), np.ones(logits.shape)], -1)
  expected = of_example(stats.entropy(pair(MEAN), pair(OTHER_MEAN), axis=-1))
  np.testing.assert_allclose(dist.kl_bernoulli(MEAN, OTHER_MEAN), expected, rtol=1e-4, atol=1e-6)


def test_a_level_that_never_occurs_costs_nothing():
  logits = jnp.array([[0.0, 1.0, -jnp.inf, -300.0]])
  for function, expected in [
    (dist.categorical_entropy, stats.entropy([1, np.e])),
    (lambda logits: dist.kl_categorical(logits, jnp.zeros((1, 4))), stats.entropy([1, np.e, 0, 0], [1, 1, 1, 1])),
  ]:
    np.testing.assert_allclose(function(logits), [expected], rtol=1e-6)
    slope = jax.grad(lambda logits, function=function: function(logits)[0])(logits)
    assert np.all(np.isfinite(slope))
  assert dist.kl_categorical(jnp.zeros((1, 4)), logits)[0] == np.inf
  np.testing.assert_allclose(
    dist.kl_categorical(logits, jnp.array([[0.0, 1.0, 0.0, -jnp.inf]])), [np.log1p(1 / (1 + np.e))], rtol=1e-5
  )


@pytest.mark.parametrize("logit", [-80.0, -20.0, 0.0, 20.0, 80.0])
def test_kl_of_bernoullis_at_any_logit(logit):
  """Two nearly certain coins a little apart: e^-20 or so, not the rounding of 20."""
  for other in (logit + 0.5, logit - 3.0, -logit):
    sign = 1 if logit >= 0 else -1
    log_p, log_not_p = -np.logaddexp(0, sign * logit), -np.logaddexp(0, -sign * logit)  # of the outcome that is rarer under p
    log_q, log_not_q = -np.logaddexp(0, sign * other), -np.logaddexp(0, -sign * other)
    exact = np.exp(log_p) * (log_p - log_q) + np.exp(log_not_p) * (log_not_p - log_not_q)
    got = dist.kl_bernoulli(jnp.full((1, 1), logit), jnp.full((1, 1), other))[0]
    assert float(got) == pytest.approx(exact, rel=1e-4, abs=1e-7 if logit == 0 else 0), (logit, other)


def test_logistic_is_scipys():
  scale = np.exp(np.float64(LOG_VAR))
  np.testing.assert_allclose(
    dist.logistic_log_prob(X, MEAN, LOG_VAR), of_example(stats.logistic.logpdf(X, MEAN, scale)), rtol=1e-5
  )
  np.testing.assert_allclose(dist.logistic_entropy(LOG_VAR), of_example(stats.logistic.entropy(MEAN, scale)), rtol=1e-5)
  np.testing.assert_allclose(dist.normal_entropy(LOG_VAR), of_example(stats.norm.entropy(0, np.sqrt(scale))), rtol=1e-5)
  far = dist.logistic_log_prob(jnp.array([[1e4], [-1e4]]), jnp.zeros((1, 1)), jnp.zeros((1, 1)))
  np.testing.assert_allclose(far, [-1e4, -1e4])


def logistic_masses(mean, log_scale):
  """Log masses of all 256 levels, [256]."""
  parameters = (jnp.full((256, 1), value, jnp.float32) for value in (mean, log_scale))
  return dist.discretized_logistic_log_prob(jnp.asarray(LEVELS)[:, None], *parameters)


def exact_logistic_masses(mean, log_scale):
  """The same in float64 by scipy, in whichever tail keeps the digits; the outermost bins take the tails."""
  edges, scale = (np.arange(257) - 128) / 127.5, np.exp(np.float64(log_scale))
  edges[[0, -1]] = -np.inf, np.inf
  below, above = stats.logistic.logcdf(edges, mean, scale), stats.logistic.logsf(edges, mean, scale)
  left = below[1:] + np.log(-np.expm1(np.minimum(below[:-1] - below[1:], -1e-300)))
  right = above[:-1] + np.log(-np.expm1(np.minimum(above[1:] - above[:-1], -1e-300)))
  return np.where(edges[1:] < mean, left, right)


LOG_SCALES = pytest.mark.parametrize("log_scale", range(-7, 3))
LOGISTIC_MEANS = np.float32([*MEANS, -30.0, -3.0, 4.0, 30.0])  # networks start far outside


@LOG_SCALES
def test_discretized_logistic_sums_to_one(log_scale):
  totals = [np.exp(np.float64(logistic_masses(mean, log_scale))).sum() for mean in LOGISTIC_MEANS]
  np.testing.assert_allclose(totals, 1, atol=5e-5)


@LOG_SCALES
def test_discretized_logistic_is_a_difference_of_scipys_cumulatives(log_scale):
  """Down to masses of exp(-30,000), which float32 itself cannot hold."""
  for mean in LOGISTIC_MEANS:
    # float32 places the mean only to 1e-7 of the larger of it and the range, that is to 1e-4 of the smallest scale.
    atol = 3e-7 * max(1, abs(mean)) / np.exp(log_scale) + 1e-5
    np.testing.assert_allclose(
      logistic_masses(mean, log_scale), exact_logistic_masses(np.float64(mean), log_scale), rtol=1e-6, atol=atol
    )


@LOG_SCALES
def test_discretized_logistic_has_the_right_slopes_everywhere(log_scale):
  """Against float64 differences; at the outermost levels too, and where float32 would see no mass at all."""
  one = lambda mean, log_scale, x: dist.discretized_logistic_log_prob(*(value.reshape(1, 1) for value in (x, mean, log_scale)))
  slopes = jax.jit(jax.vmap(jax.grad(lambda *args: one(*args)[0], (0, 1)), (None, None, 0)))
  scale = np.exp(np.float64(log_scale))
  for mean in LOGISTIC_MEANS:
    by_mean, by_log_scale = slopes(jnp.float32(mean), jnp.float32(log_scale), jnp.asarray(LEVELS))
    exact, step = exact_logistic_masses, 1e-4 * scale
    expected = (exact(np.float64(mean) + step, log_scale) - exact(np.float64(mean) - step, log_scale)) / (2 * step)
    np.testing.assert_allclose(by_mean, expected, atol=1e-3 / scale)
    expected = (exact(np.float64(mean), log_scale + 1e-4) - exact(np.float64(mean), log_scale - 1e-4)) / 2e-4
    np.testing.assert_allclose(by_log_scale, expected, rtol=2e-5, atol=3e-7 * max(1, abs(mean)) / scale + 1e-4)


def test_mixture_is_a_weighted_sum():
  """Scipy's densities of three normals; a component without weight, and densities that underflow."""
  weights = np.array([0.2, 0.8, 0.0])
  means, x = np.array([-1.0, 0.5, 3.0]), np.linspace(-3, 3, 11)
  parts = stats.norm.logpdf(x[:, None], means)
  got = dist.mixture_log_prob(jnp.log(weights), jnp.float32(parts))
  np.testing.assert_allclose(got, np.log(np.exp(parts) @ weights), rtol=1e-5)
  per_row = np.tile(weights, (11, 1))
  np.testing.assert_allclose(dist.mixture_log_prob(jnp.log(per_row), jnp.float32(parts)), got, rtol=1e-6)
  np.testing.assert_allclose(dist.mixture_log_prob(jnp.log(weights), jnp.float32(parts) - 1e4), got - 1e4, rtol=1e-6)
  slope = jax.grad(lambda parts: dist.mixture_log_prob(jnp.log(weights), parts).sum())(jnp.float32(parts))
  np.testing.assert_allclose(slope.sum(1), 1, rtol=1e-5)
