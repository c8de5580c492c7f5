"""Log densities, entropies and divergences: pure functions in nats, one number per example.

The leading axis is the batch; every other axis is summed, so `[B, ...] -> [B]`.  Parameters broadcast against `x`.  Gaussians
with correlations are the exception: they describe vectors of D numbers, and their parameters serve the whole batch [B, D].

What has no closed form (the KL between two logistics, anything of a mixture but its density) is estimated: `information`.
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


def kl_bernoulli(logits, other_logits):
  """KL of independent Bernoullis from others, [B]."""
  # Named by their rarer outcome, which changes nothing, two nearly certain ones differ by small numbers and not by large ones.
  sign = jnp.where(logits > 0, -1.0, 1.0).astype(logits.dtype)
  logits, other_logits = sign * logits, sign * other_logits
  of_normalisers = jax.nn.softplus(other_logits) - jax.nn.softplus(logits)
  return sum_over_example(jax.nn.sigmoid(logits) * (logits - other_logits) + of_normalisers)


def normal_log_prob(x, mean, log_var):
  """log N(x; mean, exp(log_var)) with a diagonal covariance, [B]."""
  return -0.5 * sum_over_example(math.log(2 * math.pi) + log_var + (x - mean) ** 2 * jnp.exp(-log_var))


def standard_normal_log_prob(x):
  """log N(x; 0, I), [B]."""
  return -0.5 * sum_over_example(math.log(2 * math.pi) + x**2)


def normal_entropy(log_var):
  """Differential entropy of Gaussians with a diagonal covariance, [B]."""
  return 0.5 * sum_over_example(math.log(2 * math.pi * math.e) + log_var)


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


def categorical_entropy(logits):
  """Entropy of independent categoricals, logits [B, ..., K] -> [B].  A logit of -inf is a level that never occurs."""
  log_probs = jax.nn.log_softmax(logits)
  return -sum_over_example(_expectation(log_probs, log_probs))


def kl_categorical(logits, other_logits):
  """KL of independent categoricals from others, logits [B, ..., K] -> [B]; infinite if only the others exclude a level."""
  log_probs, other_log_probs = jax.nn.log_softmax(logits), jax.nn.log_softmax(other_logits)
  return sum_over_example(_expectation(log_probs, log_probs) - _expectation(log_probs, other_log_probs))


def mixture_log_prob(log_weights, log_probs):
  """log sum_k w_k p_k, stable: log weights [..., K] that sum to one as exp, log p_k [..., K] -> [...].

  Weights [K] serve every example.  One mixture per pixel gives one number per pixel: `sum_over_example` adds them.
  """
  shared_axes = (1,) * (log_probs.ndim - log_weights.ndim)
  return jax.nn.logsumexp(log_weights.reshape(*shared_axes, *log_weights.shape) + log_probs, axis=-1)


# Gaussians with correlations.  Many of them are taken one after the other, by `jax.lax.map` over these and not by `jax.vmap`:
# jaxlib's batched LAPACK waits on the very threads that it needs, for ever with 8 virtual devices.


def full_normal_log_prob(x, mean, scale_tril):
  """log N(x; mean, L L^T): x [B, D], mean [D], L lower triangular [D, D] -> [B]."""
  white = jax.scipy.linalg.solve_triangular(scale_tril, (x - mean.reshape(-1, x.shape[1])).T, lower=True)  # [D, B]
  return -0.5 * (white**2).sum(0) - 0.5 * x.shape[1] * math.log(2 * math.pi) - _half_log_det(scale_tril)


def full_normal_entropy(scale_tril):
  """Differential entropy of N(mean, L L^T): L [D, D] -> []."""
  return 0.5 * len(scale_tril) * math.log(2 * math.pi * math.e) + _half_log_det(scale_tril)


def kl_full_normal(mean, scale_tril, other_mean, other_scale_tril):
  """KL(N(mean, L L^T) || N(other mean, other L L^T)): vectors [D], lower triangles [D, D] -> []."""
  solve = lambda right: jax.scipy.linalg.solve_triangular(other_scale_tril, right, lower=True)
  ratio = solve(scale_tril)  # lower triangular: its diagonal is the ratio of the diagonals
  log_ratio = jnp.log(jnp.abs(jnp.diagonal(scale_tril))) - jnp.log(jnp.abs(jnp.diagonal(other_scale_tril)))
  mixing, shift = jnp.tril(ratio, -1), solve(mean - other_mean)
  return 0.5 * ((jnp.expm1(2 * log_ratio) - 2 * log_ratio).sum() + (mixing**2).sum() + (shift**2).sum())


def low_rank_normal_log_prob(x, mean, factor, log_var):
  """log N(x; mean, F F^T + diag(exp(log_var))): x [B, D], mean [D], F [D, R], log_var [] or [D] -> [B].

  No D x D matrix appears (Woodbury 1950): it costs O(B D R + D R^2).
  """
  squares, half_log_det = _low_rank_squares(x - mean.reshape(-1, x.shape[1]), factor, log_var)
  return -0.5 * squares - 0.5 * x.shape[1] * math.log(2 * math.pi) - half_log_det


def low_rank_normal_entropy(factor, log_var):
  """Differential entropy of N(mean, F F^T + diag(exp(log_var))): F [D, R], log_var [] or [D] -> []."""
  _, half_log_det = _low_rank_squares(jnp.zeros((1, len(factor)), factor.dtype), factor, log_var)
  return 0.5 * len(factor) * math.log(2 * math.pi * math.e) + half_log_det


def kl_low_rank_normal(mean, factor, log_var, other_mean, other_factor, other_log_var):
  """KL between two Gaussians of low rank plus noise, whose ranks may differ: arguments as for the density -> []."""
  log_var, other_log_var = (jnp.broadcast_to(value, mean.shape) for value in (log_var, other_log_var))
  _, half_log_det = _low_rank_squares(jnp.zeros_like(mean)[None], factor, log_var)
  # tr(T^-1 F F^T) and the shift are d^T T^-1 d for a few d; tr(T^-1 V) needs the diagonal of T^-1.
  rows = jnp.concatenate([factor.T, (mean - other_mean)[None]])
  squares, other_half_log_det = _low_rank_squares(rows, other_factor, other_log_var)
  noise = (jnp.exp(log_var) * _low_rank_precisions(other_factor, other_log_var)).sum()
  return 0.5 * (squares.sum() + noise - len(mean)) + other_half_log_det - half_log_det


# Logistics.


def logistic_log_prob(x, mean, log_scale):
  """log density of independent logistics, [B].  Their variance is pi^2 / 3 times the squared scale."""
  z = (x - mean) * jnp.exp(-log_scale)
  return -sum_over_example(log_scale + jax.nn.softplus(z) + jax.nn.softplus(-z))


def logistic_entropy(log_scale):
  """Differential entropy of independent logistics, log scale + 2 for each number, [B]."""
  return sum_over_example(log_scale + 2.0)


def discretized_logistic_log_prob(x, mean, log_scale, bin_width=1 / 127.5, low=-1.0, high=1.0):
  """log of the mass that a logistic puts on the bin around x; the outermost bins take the tails.  [B].

  The masses of all bins sum to one for any parameters (Kingma et al. 2016, appendix A; Salimans et al. 2017, equation 2).
  """
  scale = jnp.exp(-log_scale)
  above, below = (x + bin_width / 2 - mean) * scale, (x - bin_width / 2 - mean) * scale
  # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)): a product keeps its digits in either tail, at any width.
  not_above = jnp.where(x > high - bin_width / 2, 0.0, jax.nn.log_sigmoid(above))
  not_below = jnp.where(x < low + bin_width / 2, 0.0, jax.nn.log_sigmoid(-below))
  at_edge = (x > high - bin_width / 2) | (x < low + bin_width / 2)
  return sum_over_example(not_above + not_below + jnp.where(at_edge, 0.0, jnp.log(-jnp.expm1(-bin_width * scale))))


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


def _expectation(log_probs, values):
  """Term by term, p * value, where what never occurs counts as zero, even if it is infinite."""
  probs = jnp.exp(log_probs)
  return probs * jnp.where(probs > 0, values, 0.0)


def _half_log_det(scale_tril):
  """log det of a lower triangular L, half that of L L^T.  The signs of the diagonal do not matter."""
  return jnp.log(jnp.abs(jnp.diagonal(scale_tril))).sum()


def _low_rank_squares(deviation, factor, log_var):
  """d^T S^-1 d for each row d of `deviation` [B, D], and half the log det of S = F F^T + diag(exp(log_var)): ([B], [])."""
  factor, scale, log_var = _whitened(factor, log_var)
  deviation = deviation * jnp.exp(-log_var / 2)[None]
  latent = jax.scipy.linalg.cho_solve((scale, True), factor.T @ deviation.T).T  # E[z | x], [B, R]
  # min over z of |d - F z|^2 + |z|^2: two sums of squares, where Woodbury's difference would lose its digits at small noise.
  squares = ((deviation - latent @ factor.T) ** 2).sum(1) + (latent**2).sum(1)
  return squares, log_var.sum() / 2 + _half_log_det(scale)


def _low_rank_precisions(factor, log_var):
  """The diagonal of the inverse of F F^T + diag(exp(log_var)), [D]."""
  factor, scale, log_var = _whitened(factor, log_var)
  explained = (jax.scipy.linalg.solve_triangular(scale, factor.T, lower=True) ** 2).sum(0)
  return jnp.exp(-log_var) * (1 - explained)


def _whitened(factor, log_var):
  """F in units of the noise, the Cholesky factor of I + F^T F in those units [R, R], and log_var [D]."""
  log_var = jnp.broadcast_to(log_var, factor.shape[:1])
  factor = factor * jnp.exp(-log_var / 2)[:, None]
  return factor, jnp.linalg.cholesky(jnp.eye(factor.shape[1], dtype=factor.dtype) + factor.T @ factor), log_var
