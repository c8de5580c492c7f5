"""Data of which the best guess is known: what the tests of `score` hold solvers against.

For x_0 ~ N(mean, std^2), x ~ N(alpha mean, V) with V = (alpha std)^2 + sigma^2, and E[x_0 | x] is linear in x.  So what a
solver's table does to the mean and to the variance follows exactly, in float64; and the probability flow conserves
(x - alpha mean) / sqrt(V).  A mixture of Gaussians is as exact, and not linear.  In one dimension, and so in all.

Everything here takes NumPy arrays and jax arrays.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import integrate

from gm_jax.score.noise import alpha, like, ratio, sigma


def variance(log_snr, std):
  """V of q(x)."""
  return (alpha(log_snr) * std) ** 2 + sigma(log_snr) ** 2


def denoiser(mean=0.0, std=1.0):
  """E[x_0 | x] of N(mean, std^2)."""

  def denoise(x, log_snr, label=None):
    a, v = alpha(log_snr), variance(log_snr, std)
    if isinstance(x, jax.Array):
      a, v = like(a, x), like(v, x)
    return mean + a * std**2 / v * (x - a * mean)

  return denoise


def mixture(shares=(0.3, 0.7), means=(-1.0, 0.8), stds=(0.4, 0.25)):
  """E[x_0 | x] of a mixture of Gaussians, pixel by pixel."""

  def denoise(x, log_snr, label=None):
    xp = jnp if isinstance(x, jax.Array) else np
    each = [(x - alpha(log_snr) * m) ** 2 / (2 * variance(log_snr, s)) for m, s in zip(means, stds)]
    logits = xp.stack([np.log(p) - xp.log(variance(log_snr, s)) / 2 - e for p, s, e in zip(shares, stds, each)])
    chances = xp.exp(logits - logits.max(0, keepdims=True))
    guesses = xp.stack([denoiser(m, s)(x, log_snr) for m, s in zip(means, stds)])
    return (chances * guesses).sum(0) / chances.sum(0)

  return denoise


def flow(denoise, log_snr, start):
  """The probability flow's solution through x = `start` at log_snr[0], at all of `log_snr`: integrated to 1e-13."""
  levels = ratio(log_snr)
  slope = lambda level, y: (y - denoise(y * alpha(-2 * np.log(level)), -2 * np.log(level))) / level
  # In log(sigma / alpha), in which it is smooth.
  found = integrate.solve_ivp(
    lambda u, y: np.exp(u) * slope(np.exp(u), y),
    (np.log(levels[0]), np.log(levels[-1])),
    np.atleast_1d(start / alpha(log_snr[0])),
    method="DOP853",
    t_eval=np.log(levels),
    rtol=1e-13,
    atol=1e-13,
  )
  return alpha(log_snr) * found.y[0]


def follow(denoise, method, x, noises=None):
  """`solvers.follow` in float64: x at the end."""
  return resumed(denoise, method, [x, *(np.zeros_like(x) for _ in method.noise[0][1:])], noises=noises)[0]


def resumed(denoise, method, slots, first=0, noises=None):
  """All slots at the end, from given ones before row `first`."""
  for i in range(first, len(method.log_snr)):
    known = np.array([*slots, denoise(slots[0], method.log_snr[i])])
    slots = np.tensordot(method.weights[i], known, 1)
    if noises is not None:
      slots = slots + np.multiply.outer(method.noise[i], noises[i])
  return slots


def moments(method, mean, std, start=(0.0, 1.0)):
  """Mean and variance of slots[0] before each row and after the last, [2, N + 1], from `start`: exact for N(mean, std^2)."""
  num_slots = method.noise.shape[1]
  first = np.eye(num_slots)[0]
  m, c = start[0] * first, start[1] * np.outer(first, first)
  visited = [start]
  denoise = denoiser(mean, std)
  for log_snr, weights, noise in zip(*method):
    offset = denoise(0.0, log_snr)
    slope = denoise(1.0, log_snr) - offset
    matrix = weights[:, :-1] + slope * np.outer(weights[:, -1], first)
    m = matrix @ m + offset * weights[:, -1]
    c = matrix @ c @ matrix.T + np.outer(noise, noise)
    visited.append((m[0], c[0, 0]))
  return np.array(visited).T


def marginal(grid, mean, std):
  """Mean and variance of q(x) at each level, [2, N + 1]."""
  return np.array([alpha(grid) * mean, variance(grid, std)])


def slope(counts, errors):
  """The order of convergence: minus the slope of log error by log of the number of steps."""
  return -np.polyfit(np.log(counts), np.log(errors), 1)[0]
