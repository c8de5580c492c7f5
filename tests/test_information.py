"""Tables against scipy and by enumeration; Monte Carlo against closed forms, and against what it says of its own error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments import monte_carlo as experiment
from gm_jax import distributions as dist
from gm_jax import information as info

RNG = np.random.default_rng(0)
JOINT = RNG.dirichlet(np.full(24, 0.5)).reshape(2, 3, 4)  # of X, Y, Z
OTHER = RNG.dirichlet(np.full(24, 2.0)).reshape(2, 3, 4)
ZEROS = JOINT * (RNG.uniform(size=JOINT.shape) < 0.6)
ZEROS[1, 2] = 0  # a whole conditional that never occurs
ZEROS /= ZEROS.sum()
joints = pytest.mark.parametrize("joint", [JOINT, ZEROS], ids=["dense", "sparse"])


def close(value, expected, tolerance=2e-6):
  np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance)


def H(table):
  return stats.entropy(np.ravel(table))


@joints
def test_entropies_and_divergences_are_scipys(joint):
  close(info.entropy(joint), H(joint))
  close(info.kl(joint, OTHER), stats.entropy(joint.ravel(), OTHER.ravel()))
  close(info.cross_entropy(joint, OTHER), H(joint) + stats.entropy(joint.ravel(), OTHER.ravel()))
  close(info.bits(info.entropy(joint)), stats.entropy(joint.ravel(), base=2))
  assert info.kl(joint, joint) == 0


@joints
def test_the_chain_rule(joint):
  """H(X, Y, Z) = H(X) + H(Y | X) + H(Z | X, Y), each term from its definition, in whatever order."""
  for first, second, third in [(0, 1, 2), (2, 0, 1), (1, 2, 0)]:
    pair = joint.sum(third)
    given_first = info.conditional_entropy(pair, given=0 if first < second else 1)
    total = info.entropy(joint.sum((second, third))) + given_first + info.conditional_entropy(joint, given=(first, second))
    close(total, info.entropy(joint))


@joints
def test_mutual_information_is_what_each_tells_of_the_others(joint):
  x, yz = joint.sum((1, 2)), joint.sum(0)
  expected = H(x) + H(yz) - H(joint)
  close(info.mutual_information(joint, 0), expected)
  close(info.mutual_information(joint, (1, 2)), expected)
  close(info.mutual_information(joint, (-1, -2)), expected)
  close(info.entropy(x) - info.conditional_entropy(joint, given=(1, 2)), expected)
  # I(X; Y, Z) = I(X; Z) + I(X; Y | Z)
  close(info.mutual_information(joint.sum(1), 0) + info.conditional_mutual_information(joint, 0, given=2), expected)


def test_extremes_of_mutual_information():
  independent = np.outer(RNG.dirichlet(np.ones(3)), RNG.dirichlet(np.ones(5)))
  close(info.mutual_information(independent, 0), 0, 1e-7)
  same = np.diag(RNG.dirichlet(np.ones(4)))
  close(info.mutual_information(same, 0), H(np.diag(same)))
  close(info.conditional_entropy(same, given=1), 0, 1e-7)
  close(info.bits(info.entropy(np.full((2, 4), 1 / 8))), 3)


def test_a_small_remainder_keeps_its_digits():
  """H(Y | X) of a copy that fails once in a million: 1.5e-5 nats, and float32's step at H(X, Y) is 1e-7."""
  rare = 1e-6
  joint = np.array([[1 - rare, rare], [rare, 1 - rare]]) / 2
  close(info.conditional_entropy(jnp.float32(joint), given=0) / H([rare, 1 - rare]), 1, 1e-2)


def test_impossible_events_have_no_slope():
  for function in [
    info.entropy,
    lambda joint: info.kl(joint, OTHER),
    lambda joint: info.conditional_entropy(joint, given=1),
    lambda joint: info.mutual_information(joint, 0),
    lambda joint: info.conditional_mutual_information(joint, 0, given=2),
  ]:
    value, slope = jax.value_and_grad(function)(jnp.float32(ZEROS))
    assert np.isfinite(value)
    assert np.all(np.isfinite(slope))
  assert info.kl(OTHER, ZEROS) == np.inf == info.cross_entropy(OTHER, ZEROS)


def test_an_axis_that_is_not_there():
  with pytest.raises(ValueError, match="axes \\(3,\\) of a table with 3 variables"):
    info.mutual_information(JOINT, 3)


def test_maximum_likelihood_is_minimum_divergence():
  """Of all binomials, the one most likely to have made the data is the one nearest to the table of their frequencies."""
  data = RNG.choice(6, 400, p=[0.1, 0.3, 0.2, 0.1, 0.25, 0.05])
  frequencies = jnp.float32(np.bincount(data, minlength=6) / 400)
  log_choose = jnp.float32(np.log([1, 5, 10, 10, 5, 1]))
  log_probs = lambda logit: log_choose + jnp.arange(6) * logit - 5 * jax.nn.softplus(logit)

  likelihood = lambda logit: log_probs(logit)[data].mean()
  cross_entropy = lambda logit: info.cross_entropy(frequencies, jnp.exp(log_probs(logit)))
  divergence = lambda logit: info.kl(frequencies, jnp.exp(log_probs(logit)))
  logits = jnp.linspace(-3, 3, 601)
  values = [jax.vmap(function)(logits) for function in (likelihood, cross_entropy, divergence)]
  best = [int(values[0].argmax()), int(values[1].argmin()), int(values[2].argmin())]
  assert len(set(best)) == 1
  # In closed form: the mean of the data over 5.
  assert float(jax.nn.sigmoid(logits[best[0]])) == pytest.approx(data.mean() / 5, abs=0.0025)
  # They are one function up to sign and a constant, which is the entropy of the data.
  close(values[1], -values[0], 1e-5)
  close(values[1] - values[2], np.full(601, H(frequencies)), 1e-5)
  slopes = [jax.vmap(jax.grad(function))(logits[::20]) for function in (likelihood, cross_entropy, divergence)]
  close(slopes[1], -slopes[0], 1e-4)
  close(slopes[2], slopes[1], 1e-4)


# Monte Carlo.


def test_an_estimate_is_scipys():
  values = RNG.normal(size=(50, 3)).astype(np.float32) * [1, 2, 3] + [0, 10, -5]
  estimate = info.estimate(jnp.float32(values))
  close(estimate.value, values.mean(0), 1e-5)
  close(estimate.stderr, stats.sem(values), 1e-5)
  assert estimate.count == 50
  for confidence in (0.5, 0.95, 0.999):
    expected = stats.t.interval(confidence, 49, values.mean(0), stats.sem(values))
    close(estimate.interval(confidence), expected, 1e-4)


@pytest.mark.parametrize("count", [9, 30, 1000, 10**7])
def test_intervals_are_students(count):
  low, high = info.Estimate(jnp.float32(0), jnp.float32(1), jnp.int32(count)).interval(0.95)
  close([low, high], stats.t.interval(0.95, count - 1), 1e-3)


def test_merging_is_having_had_all_draws_at_once():
  """Pieces of 1, 0 and other sizes, in any order; a mean of 1e4 beside a spread of 1 is no trouble."""
  values = jnp.float32(1e4 + RNG.normal(size=400))
  whole = info.estimate(values)
  nothing = info.Estimate(jnp.float32(0), jnp.float32(0), jnp.int32(0))
  for cuts in [(1, 2, 3, 200), (399,), (100, 200, 300)]:
    total = nothing
    for piece in np.split(values, cuts)[::-1]:
      total = info.merge(total, info.estimate(piece))
    total = info.merge(total, nothing)
    assert total.count == 400
    np.testing.assert_allclose(total.value, whole.value, rtol=3e-7)
    np.testing.assert_allclose(total.stderr, whole.stderr, rtol=2e-3)
  np.testing.assert_allclose(whole.stderr, stats.sem(np.float64(values)), rtol=1e-4)
  assert info.estimate(values[:1]).stderr == np.inf


@pytest.mark.parametrize("batch_size", [1, 7, 50, 100, 1000])
def test_draws_come_in_chunks_and_each_once(batch_size):
  """A counter in place of a sampler: 100 draws whatever the chunks, no two chunks with one key."""
  seen = []

  def sample(key, num):
    seen.append(num)
    return jax.random.uniform(key, (num,))

  estimate = info.monte_carlo(lambda x: jnp.stack([x, x**2], -1), sample, jax.random.key(0), 100, batch_size)
  assert estimate.count == 100
  assert max(seen) <= batch_size
  # Had chunks shared their draws, the mean of a hundred would be off by far more than it says.
  assert np.all(np.abs(estimate.value - np.array([1 / 2, 1 / 3])) < 4 * np.array([0.289, 0.298]) / 10)
  np.testing.assert_allclose(estimate.stderr, np.array([0.289, 0.298]) / 10, rtol=0.25)


def test_estimates_of_gaussians_are_the_closed_forms():
  """Within four of their own standard errors, which are small."""
  mean, log_var = jnp.array([[0.5, -1.0]]), jnp.array([[0.3, -0.7]])
  other_mean, other_log_var = jnp.zeros((1, 2)), jnp.array([[0.5, 0.2]])
  sample = lambda key, num: mean + jnp.exp(log_var / 2) * jax.random.normal(key, (num, 2))
  log_prob = lambda x: dist.normal_log_prob(x, mean, log_var)
  other = lambda x: dist.normal_log_prob(x, other_mean, other_log_var)
  keys = jax.random.split(jax.random.key(1), 3)
  entropy, kl = dist.normal_entropy(log_var)[0], dist.kl_normal(mean, log_var, other_mean, other_log_var)[0]
  for estimate, truth in [
    (info.estimate_entropy(log_prob, sample, keys[0], 100_000), entropy),
    (info.estimate_kl(log_prob, sample, other, keys[1], 100_000), kl),
    (info.estimate_cross_entropy(sample, other, keys[2], 100_000), entropy + kl),
  ]:
    assert estimate.count == 100_000
    assert estimate.stderr < 0.01
    assert abs(estimate.value - truth) < 4 * estimate.stderr


def test_mutual_information_of_correlated_normals():
  """-log(1 - r^2) / 2."""
  r = 0.8
  tril = jnp.array([[1, 0], [r, np.sqrt(1 - r**2)]], jnp.float32)

  def sample(key, num):
    pair = jax.random.normal(key, (num, 2)) @ tril.T
    return pair[:, :1], pair[:, 1:]

  log_joint = lambda pair: dist.full_normal_log_prob(jnp.concatenate(pair, 1), jnp.zeros(2), tril)
  alone = dist.standard_normal_log_prob
  estimate = info.estimate_mutual_information(log_joint, alone, alone, sample, jax.random.key(0), 100_000)
  assert estimate.stderr < 0.01
  assert abs(estimate.value + np.log(1 - r**2) / 2) < 4 * estimate.stderr


def test_variance_falls_as_one_over_the_count_and_intervals_hold():
  """Slope -1 +- 0.05 over four decades of N; 95% intervals cover the truth 93 to 97% of 2000 times."""
  rows = experiment.measure(jax.random.key(0), repeats=(2000, 2000, 2000, 500, 200))
  assert [row.num for row in rows] == [10, 100, 1000, 10_000, 100_000]
  assert experiment.slope(rows) == pytest.approx(-1, abs=0.05)
  for row in rows[:3]:  # those of 2000 estimates
    assert 0.93 < row.coverage < 0.97, row
  for row in rows:  # what the estimates say of their error is their error
    assert row.stderr == pytest.approx(np.sqrt(row.variance), rel=0.16), row
