"""What is left to say of an image when hardly any noise is left in it: p(x_0 | x) at the highest log SNR, in nats.

Images are uint8, 256 levels on [-1, 1], 1 / 127.5 apart, and what is scored is their mass; points are floats, and what is
scored is their density.  The variational bound counts it as distortion (likelihood.py), and images that enter the probability
flow with noise in place of their last digits count it too (flow_likelihood.py).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax import images
from gm_jax.distributions import discretized_normal_log_prob, normal_log_prob, sum_over_example
from gm_jax.score import noise


class Decoder(NamedTuple):
  """p(x_0 | x) where hardly any noise is left.

  Attributes:
    log_prob: `(denoise, x_0, x, log_snr) -> [B]`.
    likeliest: `(denoise, x, log_snr) -> x_0`, as samples end.
  """

  log_prob: Callable
  likeliest: Callable


def levels() -> Decoder:
  """What the noise alone says: each of the 256 levels by N(x; alpha level, sigma^2), which sum to one (Kingma et al. 2021)."""
  return Decoder(_levels_log_prob, lambda denoise, x, log_snr: x / noise.alpha(log_snr))


def discretized() -> Decoder:
  """N(D(x), sigma^2), its mass in the bin of each level; the outer bins take the tails (Ho et al. 2020, equation 13)."""

  def log_prob(denoise, x_0, x, log_snr):
    return discretized_normal_log_prob(x_0, denoise(x, log_snr), -jax.nn.softplus(log_snr))

  return Decoder(log_prob, lambda denoise, x, log_snr: denoise(x, log_snr))


def density() -> Decoder:
  """Of points: N(D(x), sigma^2 / alpha^2), which is the truth for data that are smooth at that scale."""
  log_prob = lambda denoise, x_0, x, log_snr: normal_log_prob(x_0, denoise(x, log_snr), -log_snr)
  return Decoder(log_prob, lambda denoise, x, log_snr: denoise(x, log_snr))


@jax.checkpoint  # its 256 numbers for each pixel are never in memory, not for the gradient either
def _log_normalizer(x_0, distance, precision):
  every = images.to_symmetric(jnp.arange(256, dtype=jnp.uint8)).reshape(*(1,) * x_0.ndim, 256)
  to_level = every - x_0[..., None]  # [B, ..., 256]
  # How much better than x_0 each level explains x: a difference of two squares, multiplied out to keep its digits.
  gain = to_level * (2 * distance[..., None] - to_level) * (precision / 2)
  return jax.nn.logsumexp(gain, -1)


def _levels_log_prob(denoise, x_0, x, log_snr):
  del denoise
  distance = x / noise.alpha(log_snr) - x_0
  return -sum_over_example(_log_normalizer(x_0, distance, jnp.exp(log_snr)))
