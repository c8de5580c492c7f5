"""What an error costs at each noise level: functions of log SNR that multiply |D - x_0|^2.

Each is named for what it makes of the papers' own losses: an error of the noise is e^log_snr times that of the image.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax.score.levels import Levels


def simple(log_snr):
  """The squared error of the noise (Ho et al. 2020, equation 14)."""
  return jnp.exp(log_snr)


def image(log_snr):
  """The squared error of the image."""
  return jnp.ones_like(log_snr)


def velocity(log_snr):
  """The squared error of v (Salimans and Ho 2022): SNR + 1."""
  return jnp.exp(log_snr) + 1


def flow(log_snr):
  """The squared error of u = eps - x_0 (Lipman et al. 2023): (sqrt(SNR) + 1)^2."""
  return (jnp.exp(log_snr / 2) + 1) ** 2


def bound(levels: Levels) -> Callable:
  """The variational bound in nats, whatever levels are visited (Kingma et al. 2021, equation 17): SNR / (2 density)."""
  return lambda log_snr: jnp.exp(log_snr) / (2 * levels.density(log_snr))


def min_snr(gamma: float = 5.0) -> Callable:
  """min(SNR, gamma) (Hang et al. 2023)."""
  return lambda log_snr: jnp.minimum(jnp.exp(log_snr), gamma)


def soft_min_snr(gamma: float = 5.0) -> Callable:
  """SNR gamma / (SNR + gamma): min-SNR without its corner (Crowson et al. 2024, section 4.3)."""
  return lambda log_snr: gamma * jax.nn.sigmoid(log_snr - jnp.log(gamma))


def karras(data_std: float = 0.5) -> Callable:
  """(sigma^2 + s^2) / (sigma s)^2 at sigma = 1 / sqrt(SNR): every level starts with a loss of 1 (Karras et al. 2022)."""
  return lambda log_snr: jnp.exp(log_snr) + 1 / data_std**2


def sigmoid(bias: float, levels: Levels) -> Callable:
  """The bound times sigmoid(bias - log SNR): its finest levels left out (Kingma and Gao 2023; Hoogeboom et al. 2024)."""
  full = bound(levels)
  return lambda log_snr: jax.nn.sigmoid(bias - log_snr) * full(log_snr)


def perceptual(gamma: float = 1.0, k: float = 1.0) -> Callable:
  """P2: the squared error of the noise over (k + SNR)^gamma (Choi et al. 2022)."""
  return lambda log_snr: jnp.exp(log_snr) / (k + jnp.exp(log_snr)) ** gamma
