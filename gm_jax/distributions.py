"""Log densities, divergences and entropies: pure functions in nats, one number per example.

The leading axis is the batch; every other axis is summed, so `[B, ...] -> [B]`.  Parameters broadcast against `x`.
"""

import math

import jax
import jax.numpy as jnp


def sum_over_example(x):
  """[B, ...] -> [B]."""
  return x.reshape(len(x), -1).sum(-1)


def bernoulli_log_prob(logits, x):
  """log p(x) of independent Bernoullis, x in {0, 1} (or a mean in [0, 1]): [B].  Finite at any logit."""
  return -sum_over_example(jax.nn.softplus(logits) - x * logits)


def bernoulli_entropy(logits):
  """Entropy of independent Bernoullis, [B]."""
  return sum_over_example(jax.nn.softplus(logits) - jax.nn.sigmoid(logits) * logits)


def normal_log_prob(x, mean, log_var):
  """log N(x; mean, exp(log_var)) with a diagonal covariance, [B]."""
  return -0.5 * sum_over_example(math.log(2 * math.pi) + log_var + (x - mean) ** 2 * jnp.exp(-log_var))


def standard_normal_log_prob(x):
  """log N(x; 0, I), [B]."""
  return -0.5 * sum_over_example(math.log(2 * math.pi) + x**2)


def kl_to_standard_normal(mean, log_var):
  """KL(N(mean, exp(log_var)) || N(0, I)), [B].  Kingma & Welling 2014, appendix B."""
  return 0.5 * sum_over_example(jnp.expm1(log_var) - log_var + mean**2)


def kl_normal(mean, log_var, other_mean, other_log_var):
  """KL(N(mean, exp(log_var)) || N(other_mean, exp(other_log_var))), diagonal, [B]."""
  log_ratio = log_var - other_log_var
  return 0.5 * sum_over_example(jnp.expm1(log_ratio) - log_ratio + (mean - other_mean) ** 2 * jnp.exp(-other_log_var))


def categorical_log_prob(logits, x):
  """log p(x) of independent categoricals: logits [B, ..., K], x integers [B, ...] -> [B]."""
  log_probs = jax.nn.log_softmax(logits)
  return sum_over_example(jnp.take_along_axis(log_probs, x[..., None], -1)[..., 0])


def discretized_normal_log_prob(x, mean, log_var, bin_width=1 / 127.5, low=-1.0, high=1.0):
  """log of the mass that N(mean, exp(log_var)) puts on the bin around x; the outermost bins take the tails.  [B].

  The masses of all bins sum to one for any parameters (Ho et al. 2020, equation 13).
  """
  scale = jnp.exp(-log_var / 2)
  upper = jnp.where(x > high - bin_width / 2, jnp.inf, (x + bin_width / 2 - mean) * scale)
  lower = jnp.where(x < low + bin_width / 2, -jnp.inf, (x - bin_width / 2 - mean) * scale)
  # Work in the left tail, where the difference of two cumulative probabilities keeps its digits.
  flip = mean < x
  left = jnp.where(flip, -upper, lower)
  right = jnp.where(flip, -lower, upper)
  log_right, log_left = _log_normal_cdf(right), _log_normal_cdf(left)
  ratio = jnp.minimum(log_left - log_right, -1e-7)
  return sum_over_example(log_right + jnp.log(-jnp.expm1(ratio)))


def _log_normal_cdf(x):
  return jax.scipy.stats.norm.logcdf(x)
