"""How noisy: log SNR, and schedules of it.  Read this file first: all of `score` speaks the language of its first paragraph.

A noisy image is x = alpha x_0 + sigma eps with alpha^2 + sigma^2 = 1, and how noisy it is, is said by one number,

    log_snr = log(alpha^2 / sigma^2)            +inf: the image itself; -inf: nothing but noise.

Other papers scale x otherwise: "variance exploding" ones divide by alpha, rectified flows by alpha + sigma.  That is a choice
of unit, a `Gauge`, which only a network's input ever sees (parameterizations.py): solvers, guidance and likelihoods live in the
unit above, in which x has unit variance if the data have.  A `Schedule` puts a clock t in [0, 1] to log SNR, t = 0 the image.

  Kingma et al. 2021, "Variational diffusion models": log SNR as the variable; https://arxiv.org/abs/2107.00630
  Karras et al. 2022, "Elucidating the design space of diffusion-based generative models"; https://arxiv.org/abs/2206.00364

Functions of this file take jax arrays, and NumPy arrays as well: tables for solvers are made in float64 on the host.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.errors import UserError


def alpha(log_snr):
  """How much of x_0 is in x: sqrt(sigmoid(log SNR))."""
  return _xp(log_snr).exp(-_softplus(-log_snr) / 2)


def sigma(log_snr):
  """How much noise is in x: sqrt(sigmoid(-log SNR))."""
  return _xp(log_snr).exp(-_softplus(log_snr) / 2)


def ratio(log_snr):
  """sigma / alpha, the noise level of Karras et al.; inf where no image is left."""
  return _xp(log_snr).exp(-log_snr / 2)


def from_ratio(level):
  """The log SNR at which sigma / alpha is `level`; +inf at 0."""
  xp = _xp(level)
  if xp is np:
    with np.errstate(divide="ignore"):
      return -2 * np.log(level)
  return -2 * jnp.log(level)


def like(values, x):
  """Numbers [] or one for each example [B] -> a shape that multiplies x [B, ...]."""
  values = jnp.asarray(values, x.dtype)
  return values.reshape(values.shape + (1,) * (x.ndim - values.ndim))


def diffuse(x_0, log_snr, noise):
  """A draw of q(x | x_0): x_0, noise [B, ...], log_snr [] or [B] -> x [B, ...]."""
  return like(alpha(log_snr), x_0) * x_0 + like(sigma(log_snr), x_0) * noise


# Units.  A gauge is one function: log SNR -> what x is multiplied by.

Gauge = Callable


def variance_preserving(log_snr):
  """x itself (Ho et al. 2020)."""
  return _xp(log_snr).ones_like(log_snr)


def variance_exploding(log_snr):
  """x / alpha = x_0 + (sigma / alpha) eps (Song and Ermon 2019; Karras et al. 2022)."""
  return 1 / alpha(log_snr)


def rectified_flow(log_snr):
  """x / (alpha + sigma) = (1 - t) x_0 + t eps (Liu et al. 2023; Lipman et al. 2023)."""
  return 1 / (alpha(log_snr) + sigma(log_snr))


# Schedules.


class Schedule(NamedTuple):
  """A clock: t in [0, 1], 0 at the image.

  Attributes:
    log_snr: t -> log SNR, falling.
    time: its inverse.
    num_steps: T, if the schedule is a table of T times t = 1 / T, ..., 1; 0 if it is continuous.
  """

  log_snr: Callable
  time: Callable
  num_steps: int = 0


def uniform(highest: float = 15.0, lowest: float = -10.0) -> Schedule:
  """Log SNR falls evenly, as the noise levels of NCSN do; the variational bound does not care for any other (Kingma et al.)."""
  if not highest > lowest:
    raise UserError(f"a schedule's log SNR falls from `highest` to `lowest`; got {highest} and {lowest}")
  return Schedule(lambda t: highest + (lowest - highest) * t, lambda log_snr: (log_snr - highest) / (lowest - highest))


def linear(first: float = 0.1, last: float = 20.0) -> Schedule:
  """The continuous limit of DDPM's: noise is added at a rate that rises from `first` to `last` (Song et al. 2021, eq. 32)."""
  if not 0 <= first < last:
    raise UserError(f"the rates of a linear schedule are numbers 0 <= first < last; got {first} and {last}")

  def log_snr(t):
    return -_log_expm1(t * first + t * t * (last - first) / 2)

  def time(log_snr):
    total = _softplus(-log_snr)
    # The root of the quadratic, free of cancellation.
    return 2 * total / (first + _xp(log_snr).sqrt(first**2 + 2 * (last - first) * total))

  return Schedule(log_snr, time)


def cosine(shift: float = 0.0, highest: float = 15.0, lowest: float = -15.0) -> Schedule:
  """alpha = cos, sigma = sin of an angle that grows evenly, cut to a range of log SNR.

  Nichol and Dhariwal 2021, as Hoogeboom et al. 2023 ("simple diffusion", section 3.1) write it; `shift` is added to log SNR:
  2 log(64 / side) for images larger than 64.
  """
  angle = lambda log_snr: math.atan(math.exp(-(log_snr - shift) / 2))
  start, end = angle(highest), angle(lowest)
  tangent = lambda t: _xp(t).tan(start + (end - start) * t)
  log_snr = lambda t: shift - 2 * _xp(t).log(tangent(t))
  time = lambda value: (_xp(value).arctan(_xp(value).exp((shift - value) / 2)) - start) / (end - start)
  return Schedule(log_snr, time)


def sigmoid(start: float = -3.0, end: float = 3.0, temperature: float = 1.0, floor: float = 1e-6) -> Schedule:
  """alpha^2 is a piece of a logistic curve (Jabri et al. 2022, algorithm 1), `floor` away from 0 and 1."""
  curve = lambda z: 1 / (1 + math.exp(-z / temperature))
  low, high = curve(start), curve(end)

  def log_snr(t):
    # Shares of what is kept and of what is lost, both but for a factor and free of cancellation: differences of logistic
    # functions are products, sinh((a - b) / 2) / (2 cosh(a / 2) cosh(b / 2)).
    xp, width = _xp(t), (end - start) / temperature
    kept = xp.sinh((1 - t) * width / 2) * math.cosh(start / temperature / 2)
    lost = xp.sinh(t * width / 2) * math.cosh(end / temperature / 2)
    whole = floor / (1 - 2 * floor) * (kept + lost)
    return xp.log(kept + whole) - xp.log(lost + whole)

  def time(value):
    xp = _xp(value)
    kept = (1 / (1 + xp.exp(-value)) - floor) / (1 - 2 * floor)
    z = high - kept * (high - low)
    return ((xp.log(z) - xp.log1p(-z)) * temperature - start) / (end - start)

  return Schedule(log_snr, time)


def karras(least: float = 0.002, largest: float = 80.0, rho: float = 7.0) -> Schedule:
  """(sigma / alpha)^(1 / rho) grows evenly (Karras et al. 2022, equation 5)."""
  if not 0 < least < largest:
    raise UserError(f"noise levels grow from `least` > 0 to `largest`; got {least} and {largest}")
  low, high = least ** (1 / rho), largest ** (1 / rho)
  log_snr = lambda t: -2 * rho * _xp(t).log(low + (high - low) * t)
  time = lambda value: (_xp(value).exp(-value / (2 * rho)) - low) / (high - low)
  return Schedule(log_snr, time)


def straight(shift: float = 1.0) -> Schedule:
  """Rectified flow's, sigma / (alpha + sigma) = t at shift 1: all of log SNR from +inf to -inf.

  sigma / alpha = shift t / (1 - t): larger images want a larger shift (Esser et al. 2024, equation 23).
  """
  if not shift > 0:
    raise UserError(f"the shift of a schedule is above 0, not {shift}")

  def log_snr(t):
    xp = _xp(t)
    with np.errstate(divide="ignore"):
      return 2 * (xp.log1p(-t) - xp.log(t) - math.log(shift))

  def time(value):
    xp = _xp(value)
    return 1 / (1 + shift * xp.exp(value / 2)) if xp is np else jax.nn.sigmoid(-value / 2 - math.log(shift))

  return Schedule(log_snr, time)


def discrete(betas) -> Schedule:
  """A table of T times: noise of variance betas[i - 1] comes in at step i, t = i / T; [T], each in (0, 1).

  Between its times log SNR is interpolated; before the first it is that of the first.
  """
  betas = np.asarray(betas, np.float64)
  if betas.ndim != 1 or not len(betas) or not np.all((betas > 0) & (betas < 1)):
    raise UserError(f"betas are numbers between 0 and 1, one for each step; got {betas}")
  log_alphas_bar = np.cumsum(np.log1p(-betas))
  table = log_alphas_bar - np.log(-np.expm1(log_alphas_bar))  # precise at both ends, where 1 - alpha_bar is not
  times = np.arange(1, len(betas) + 1) / len(betas)
  log_snr = lambda t: _interpolated(t, times, table)
  time = lambda value: _interpolated(value, table[::-1], times[::-1])
  return Schedule(log_snr, time, len(betas))


def linear_betas(num_steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> np.ndarray:
  """DDPM's, float64 [T].  The end values are for 1000 steps (Ho et al. 2020, section 4)."""
  return np.linspace(first, last, num_steps)


def cosine_betas(num_steps: int = 1000, offset: float = 0.008, largest: float = 0.999) -> np.ndarray:
  """Nichol and Dhariwal 2021, equation 17, float64 [T]: alpha_bar falls as a squared cosine, and the last beta is capped."""
  log_alphas_bar = 2 * np.log(np.cos((np.arange(num_steps) / num_steps + offset) / (1 + offset) * np.pi / 2))
  return np.minimum(-np.expm1(np.diff(log_alphas_bar, append=-np.inf)), largest)


def zero_terminal(betas) -> np.ndarray:
  """log SNR at t = 1 / T, ..., 1 of `betas` [T] stretched so that nothing is left of the image at the end, float64 [T].

  Lin et al. 2024, algorithm 1: sqrt(alpha_bar) is shifted to end at 0 and scaled to start where it did.
  """
  signal = np.exp(np.cumsum(np.log1p(-np.asarray(betas, np.float64))) / 2)
  signal = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
  with np.errstate(divide="ignore"):
    return 2 * np.log(signal) - np.log1p(-(signal**2))


def _xp(values):
  return jnp if isinstance(values, jax.Array) else np


def _softplus(values):
  return jax.nn.softplus(values) if isinstance(values, jax.Array) else np.logaddexp(0, values)


def _log_expm1(values):
  """log(exp(values) - 1) for values > 0."""
  xp = _xp(values)
  with np.errstate(divide="ignore"):
    return values + xp.log(-xp.expm1(-values))


def _interpolated(values, at, table):
  xp = _xp(values)
  return xp.interp(values, xp.asarray(at), xp.asarray(table))
