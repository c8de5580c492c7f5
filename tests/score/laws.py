"""Data in many dimensions whose best guess E[x_0 | x] is known: Gaussians with any correlations, mixtures of them, pixels of
a few levels.  Denoisers take jax arrays, x [B, ...] and log_snr [] or [B].
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from gm_jax import images
from gm_jax.score.noise import alpha, sigma


def gaussian(mean, covariance):
  """E[x_0 | x] of N(mean, covariance)."""
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
  """A Gaussian whose deviations are 1.5, 0.4 and 0.03, in no direction that is an axis.

  Returns:
    Its denoiser, its covariance, points [20, 1, 1, 3] and their -log p.
  """
  generator = np.random.default_rng(0)
  turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
  covariance = turn @ np.diag([1.5, 0.4, 0.03]) ** 2 @ turn.T
  mean = np.array([0.5, -0.3, 0.1])
  points = generator.multivariate_normal(mean, covariance, 20)
  truth = -stats.multivariate_normal(mean, covariance).logpdf(points)
  return gaussian(mean, covariance), covariance, points.astype(np.float32)[:, None, None], truth
