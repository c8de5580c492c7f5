"""What a network is asked for: its guess F makes a guess of the image, D = skip x + out F(inp x, label), all by log SNR.

Noise, image, velocity, flow, score and the mixture of Karras et al. are six values of one type.  What F is trained towards is a
mixture of image and noise as well, written out so that no digits cancel at either end:

    F wants    of_image x_0 + of_noise eps,          |D - x_0|^2 = out^2 |F - target|^2
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from gm_jax.score.noise import Gauge, alpha, like, rectified_flow, sigma, variance_exploding, variance_preserving


class Parameterization(NamedTuple):
  """Functions of log SNR, as of arrays; see the file's head.

  Attributes:
    skip, out: D = skip x + out F.
    inp: F sees inp x: the gauge that the network was made for.
    of_image, of_noise: what F is trained towards.
    bottomless: whether D is defined where nothing is left of the image.
  """

  skip: Callable
  out: Callable
  inp: Callable
  of_image: Callable
  of_noise: Callable
  bottomless: bool = True

  def target(self, x_0, noise, log_snr):
    """What F should say, [B, ...]."""
    return like(self.of_image(log_snr), x_0) * x_0 + like(self.of_noise(log_snr), x_0) * noise

  def image(self, x, output, log_snr):
    """D: the guess of x_0 from x and F's output, [B, ...]."""
    return like(self.skip(log_snr), x) * x + like(self.out(log_snr), x) * output


def _zero(log_snr):
  return jnp.zeros_like(log_snr)


def _one(log_snr):
  return jnp.ones_like(log_snr)


def _minus_one(log_snr):
  return -jnp.ones_like(log_snr)


def noise(gauge: Gauge = variance_preserving) -> Parameterization:
  """F guesses eps (Ho et al. 2020)."""
  skip, out = lambda log_snr: 1 / alpha(log_snr), lambda log_snr: -sigma(log_snr) / alpha(log_snr)
  return Parameterization(skip, out, gauge, _zero, _one, bottomless=False)


def image(gauge: Gauge = variance_preserving) -> Parameterization:
  """F guesses x_0."""
  return Parameterization(_zero, _one, gauge, _one, _zero)


def velocity(gauge: Gauge = variance_preserving) -> Parameterization:
  """F guesses v = alpha eps - sigma x_0 (Salimans and Ho 2022)."""
  minus_sigma = lambda log_snr: -sigma(log_snr)
  return Parameterization(alpha, minus_sigma, gauge, minus_sigma, alpha)


def flow(gauge: Gauge = rectified_flow) -> Parameterization:
  """F guesses u = eps - x_0, the way from the image to the noise (Liu et al. 2023; Lipman et al. 2023)."""
  total = lambda log_snr: alpha(log_snr) + sigma(log_snr)
  skip, out = lambda log_snr: 1 / total(log_snr), lambda log_snr: -sigma(log_snr) / total(log_snr)
  return Parameterization(skip, out, gauge, _minus_one, _one)


def score(gauge: Gauge = variance_exploding) -> Parameterization:
  """F guesses sigma times the gradient of log p(x), that is -eps (Song and Ermon 2019 weigh by sigma, as this does)."""
  return noise(gauge)._replace(out=lambda log_snr: sigma(log_snr) / alpha(log_snr), of_noise=_minus_one)


def karras(data_std: float = 0.5) -> Parameterization:
  """F has inputs and targets of unit variance at every level, for data of that deviation (Karras et al. 2022, table 1)."""
  # Their y is x / alpha and their sigma is sigma / alpha; 1 / root is in units of x.
  root = lambda log_snr: jnp.sqrt(sigma(log_snr) ** 2 + (data_std * alpha(log_snr)) ** 2)
  return Parameterization(
    skip=lambda log_snr: data_std**2 * alpha(log_snr) / root(log_snr) ** 2,
    out=lambda log_snr: data_std * sigma(log_snr) / root(log_snr),
    inp=lambda log_snr: 1 / root(log_snr),
    of_image=lambda log_snr: sigma(log_snr) / (data_std * root(log_snr)),
    of_noise=lambda log_snr: -data_std * alpha(log_snr) / root(log_snr),
  )


def level_number(log_snr):
  """How a network is told log SNR: evenly from 0 at +20 to 1000 at -20, float32."""
  return 25 * (20 - jnp.clip(log_snr.astype(jnp.float32), -20, 20))
