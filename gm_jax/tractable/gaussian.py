"""One Gaussian, fitted in closed form: the mean image, and the directions in which images differ most.

    p(x) = N(x; mu, Sigma),     Sigma = E diag(lambda) E^T,     x = mu + E diag(lambda)^(1/2) z     with z ~ N(0, I)

Maximum likelihood is the sample mean and the sample covariance; they are kept as running averages, so once over the data set,
in batches of one size, is all there is to learn.  The columns of E are the principal directions, lambda the variances there.

Where the covariance has too many entries for the data or for the memory, `low_rank` keeps R directions and gives all the others
one variance (probabilistic PCA, Tipping & Bishop 1999, https://doi.org/10.1111/1467-9868.00196):

    Sigma = W W^T + sigma^2 I,     W [D, R]

It is learnt by their EM, which never holds a D x D matrix, with one more parameter that makes it fast: the latents' own
covariance is fitted too and then absorbed into W (PX-EM, Liu, Rubin & Wu 1998).  Without that, EM finds the directions at once
and crawls towards their lengths when the noise is small.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax import images, random
from gm_jax.core import GenerativeModel, global_mean
from gm_jax.distributions import full_normal_log_prob, low_rank_normal_log_prob


class State(NamedTuple):
  """Moments of the examples so far."""

  mean: jax.Array  # [H, W, C]
  covariance: jax.Array  # [D, D]
  updates: jax.Array  # int32 []


def maximum_likelihood(covariance):
  """The covariance as it was measured: [D, D] -> [D, D]."""
  return covariance


def towards_sphere(share: float) -> Callable:
  """A `share` of the covariance replaced by a sphere of the same total variance (Ledoit & Wolf 2004): for few examples."""
  return lambda covariance: (1 - share) * covariance + share * jnp.diag(covariance).mean() * jnp.eye(len(covariance))


def gaussian(pixels: images.Pixels = images.DEQUANTIZED, regularize: Callable = maximum_likelihood) -> GenerativeModel:
  """A Gaussian with a full covariance.

  Args:
    pixels: how x is read from images and written back.  Dequantised pixels vary a little even where training images do not.
    regularize: `covariance [D, D] -> covariance`; the likelihood needs it to have full rank, which takes more than D examples.
  """

  def read(key, batch):
    return _flat(pixels.read(key, batch["image"]))

  def init(key, batch):
    # The first moments are taken about this mean, see `step`; then neither it nor the covariance weighs anything.
    mean = read(key, batch).mean(0).reshape(batch["image"].shape[1:])
    return State(mean, jnp.eye(mean.size), jnp.zeros((), jnp.int32))

  def step(key, state, batch):
    x = read(key, batch)
    step_size = 1 / (state.updates + 1)
    # About the old mean, not the origin: there float32 would lose the small variances of bright pixels.
    deviation = x - state.mean.reshape(1, -1)
    shift, second = global_mean((deviation.mean(0), deviation.T @ deviation / len(x)))
    shift = step_size * shift
    # Not old + step_size * (new - old): the first covariance is the identity, and variances of 1e-6 would be lost beside 1.
    covariance = (1 - step_size) * state.covariance + step_size * second - shift[:, None] * shift[None]
    state = State(state.mean + shift.reshape(state.mean.shape), covariance, state.updates + 1)
    return state, {"nll": global_mean(_nll(state, x).mean())}

  def sample(key, state, num, condition=None):
    del condition
    variances, directions = principal(regularize(state.covariance))
    z = random.normal(key, num, variances.shape)
    x = state.mean.reshape(1, -1) + (z * jnp.sqrt(variances)[None]) @ directions.T
    return pixels.write(x.reshape(num, *state.mean.shape))

  def evaluate(key, state, batch):
    return {"nll": _nll(state, read(key, batch))}

  def _nll(state, x):
    log_prob = full_normal_log_prob(x, state.mean.reshape(-1), cholesky(regularize(state.covariance)))
    return x.shape[1] * pixels.log_levels - log_prob

  return GenerativeModel(init, step, sample, evaluate)


def cholesky(covariance):
  """Its lower triangular root [D, D].  By way of the correlations: in float32 a variance of 1e-6 would drown beside 1e-1."""
  scale = jnp.sqrt(jnp.diag(covariance))
  return scale[:, None] * jnp.linalg.cholesky(covariance / (scale[:, None] * scale[None]))


def principal(covariance):
  """Variances [D], largest first and none below zero, and the directions [D, D] along which they lie, as columns."""
  variances, directions = jnp.linalg.eigh(covariance)
  return jnp.maximum(variances[::-1], 0), directions[:, ::-1]


class LowRankState(NamedTuple):
  """W is also the average of (x - mean) z^T, in coordinates in which the average of E[z z^T | x] is the identity."""

  mean: jax.Array  # [H, W, C]
  factor: jax.Array  # W, [D, R]
  power: jax.Array  # [], average of |x - mean|^2
  updates: jax.Array  # int32 []


def low_rank(
  rank: int, pixels: images.Pixels = images.DEQUANTIZED, step_size: Callable = lambda updates: 1.0
) -> GenerativeModel:
  """A Gaussian of `rank` free directions and one variance for the rest, by EM.

  Args:
    rank: R, below D.
    pixels: how x is read from images and written back.
    step_size: `(updates so far) -> (0, 1]`, how far a batch moves the moments; 1 with the whole data set as the batch is EM.
  """
  if rank < 1:
    raise ValueError(f"rank {rank}; take at least 1")

  def init(key, batch):
    read_key, factor_key = jax.random.split(key)
    x = _flat(pixels.read(read_key, batch["image"]))
    if rank >= x.shape[1]:
      raise ValueError(f"rank {rank} of images with {x.shape[1]} dimensions; take fewer, or `gaussian`")
    mean = x.mean(0)
    variance = ((x - mean[None]) ** 2).mean()
    factor = jnp.sqrt(variance) * jax.random.normal(factor_key, (x.shape[1], rank)) / jnp.sqrt(rank)
    power = x.shape[1] * variance + (factor**2).sum()  # so that sigma^2 begins as the average variance
    return LowRankState(mean.reshape(batch["image"].shape[1:]), factor, power, jnp.zeros((), jnp.int32))

  def step(key, state, batch):
    x = _flat(pixels.read(key, batch["image"]))
    blend = lambda old, new, by: old + by * (new - old)
    mean = blend(state.mean.reshape(-1), global_mean(x.mean(0)), 1 / (state.updates + 1))
    deviation = x - mean[None]

    # E-step: z | x is Gaussian with this mean and, for all x, this covariance.
    z, covariance = _posterior(state.factor, low_rank_noise(state), deviation)

    # M-step: regress x on z, and make the latents white again.
    cross, outer, power = global_mean((deviation.T @ z / len(x), z.T @ z / len(x), (deviation**2).sum(1).mean()))
    by = jnp.asarray(step_size(state.updates), x.dtype)
    cross, power = blend(state.factor, cross, by), blend(state.power, power, by)
    white = jnp.linalg.cholesky(blend(jnp.eye(rank), outer + covariance, by))
    factor = jax.scipy.linalg.solve_triangular(white, cross.T, lower=True).T
    state = LowRankState(mean.reshape(state.mean.shape), factor, power, state.updates + 1)
    return state, {"nll": global_mean(_nll(state, x).mean())}

  def sample(key, state, num, condition=None):
    del condition
    z_key, noise_key = jax.random.split(key)
    x = state.mean.reshape(1, -1) + random.normal(z_key, num, (rank,)) @ state.factor.T
    x += jnp.sqrt(low_rank_noise(state)) * random.normal(noise_key, num, x.shape[1:])
    return pixels.write(x.reshape(num, *state.mean.shape))

  def evaluate(key, state, batch):
    return {"nll": _nll(state, _flat(pixels.read(key, batch["image"])))}

  def _nll(state, x):
    log_prob = low_rank_normal_log_prob(x, state.mean.reshape(-1), state.factor, jnp.log(low_rank_noise(state)))
    return x.shape[1] * pixels.log_levels - log_prob

  return GenerativeModel(init, step, sample, evaluate)


def low_rank_noise(state: LowRankState):
  """sigma^2, the variance in every direction that W leaves out: what W does not explain, over all dimensions."""
  return (state.power - (state.factor**2).sum()) / len(state.factor)


def encode(state: LowRankState, x):
  """The posterior mean of the R coordinates, x [B, H, W, C] in the model's units -> [B, R]; PCA's, as the noise vanishes."""
  return _posterior(state.factor, low_rank_noise(state), _flat(x - state.mean[None]))[0]


def _posterior(factor, variance, deviation):
  """Mean [B, R] and covariance [R, R] of z given x - mean [B, D]."""
  precision = factor.T @ factor / variance + jnp.eye(factor.shape[1])
  covariance = jnp.linalg.inv(precision)
  return deviation @ factor @ covariance / variance, covariance


def _flat(x):
  return x.reshape(len(x), -1)
