"""How probable does a denoiser make an image?  A bound, and the exact number of another model of the same denoiser.

    -log p(x_0)  <=  KL(q(x | x_0, lowest) || N(0, I))  +  1/2 int SNR E|x_0 - D(x)|^2 d log_snr  -  E log p(x_0 | x, highest)

is the variational bound of the way back with noise (Kingma et al. 2021, "Variational diffusion models", equations 11 and 18).
The three terms are a rate, a rate and a distortion, as a VAE's: the noisiest level has to be sent, then how each less noisy one
differs, then the image.  Between its two ends the bound does not care how fast noise goes away.

The way back without noise, the probability flow, is another model: its density follows from how much it spreads volumes
(Chen et al. 2018; Song et al. 2021, "Score-based generative modeling through SDEs", section 4.3).  With log SNR as time,

    dx / d log_snr = alpha / 2 (D - alpha x),            d log p(x) / d log_snr = -divergence,

which is bounded, fades at both ends, and changes over one unit of log SNR at whatever scale the data have their structure: even
steps resolve all scales alike, where even steps of an angle or of time run past the fine ones.

All numbers are nats per example, [B].  Images are uint8, 256 levels on [-1, 1], 1 / 127.5 apart, and what is scored is their
mass; floats are points, and what is scored is their density.  A denoiser here is `(x [B, ...], log_snr [] or [B]) -> x_0`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import images, random
from gm_jax.distributions import (
  discretized_normal_log_prob,
  kl_to_standard_normal,
  normal_log_prob,
  standard_normal_log_prob,
  sum_over_example,
)
from gm_jax.errors import UserError
from gm_jax.score import grids, noise
from gm_jax.score.diffusion import Denoiser, denoiser

# What is left to say of the image at the highest log SNR.


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


# The bound.


def bound(denoise: Callable, clock: Callable, pixels, key, *, num_levels: int = 32, decoder: Decoder | None = None) -> dict:
  """The bound in continuous time, without bias for any number of levels.

  Args:
    denoise: `(x, log_snr [B]) -> x_0`.
    clock: t -> log SNR, falling over [0, 1] and finite at both ends, as `noise.uniform(highest, lowest).log_snr`.
    pixels: uint8 [B, ...], or points.
    key: of levels and noise.
    num_levels: at which each example is guessed, one in each of as many equal pieces of [0, 1].
    decoder: `levels()` for images and `density()` for points if None.

  Returns:
    {"nll_bound", and its parts "distortion", "rate_diffusion", "rate_prior"}, each [B].
  """
  level_key, noise_key, ends_key = jax.random.split(key, 3)
  x_0 = images.to_symmetric(pixels)
  start = random.evenly(level_key, len(x_0))

  def add(total, index):
    t = (index + start) / num_levels
    log_snr, slope = jax.jvp(clock, (t,), (jnp.ones_like(t),))
    eps = random.normal(jax.random.fold_in(noise_key, index), len(x_0), x_0.shape[1:])
    return total - slope / 2 * noise_error(denoise, x_0, log_snr, eps), None

  total, _ = jax.lax.scan(add, jnp.zeros(len(x_0)), jnp.arange(num_levels))
  return with_ends(denoise, clock, pixels, ends_key, total / num_levels, decoder)


def discrete_bound(
  denoise: Callable, grid, pixels, key, *, num_levels: int | None = None, decoder: Decoder | None = None
) -> dict:
  """The bound of T steps with the variance of q(x_s | x_t, x_0): a sum of T divergences (Ho et al. 2020, equation 5).

  Args:
    denoise, pixels, key, decoder: as for `bound`.
    grid: log SNR [T + 1], rising and finite; of a table, `schedule.log_snr(np.arange(T, 0, -1) / T)`, whose steps are T - 1.
    num_levels: how many of the T are guessed, one at random in each of as many equal pieces; all of them if None.

  Returns:
    As `bound`.
  """
  grid = grids.checked(grid)
  num_steps = len(grid) - 1
  num_levels = num_levels or num_steps
  if num_steps % num_levels or not np.isfinite(grid).all():
    raise UserError(f"a bound takes a finite grid, and {num_levels} levels that divide its {num_steps} steps; it is {grid}")
  level_key, noise_key, ends_key = jax.random.split(key, 3)
  x_0 = images.to_symmetric(pixels)
  # KL(q(x_s | x_t, x_0) || q(x_s | x_t, D)) = (SNR_s - SNR_t) / 2 |x_0 - D|^2, with the digits of a small difference kept.
  cost = jnp.asarray(np.expm1(np.diff(grid)) / 2, jnp.float32)
  log_snrs, piece = jnp.asarray(grid[:-1], jnp.float32), num_steps // num_levels

  def add(total, index):
    step = index * piece + random.randint(jax.random.fold_in(level_key, index), len(x_0), (), 0, piece)
    eps = random.normal(jax.random.fold_in(noise_key, index), len(x_0), x_0.shape[1:])
    return total + piece * cost[step] * noise_error(denoise, x_0, log_snrs[step], eps), None

  total, _ = jax.lax.scan(add, jnp.zeros(len(x_0)), jnp.arange(num_levels))
  return with_ends(denoise, noise.uniform(grid[-1], grid[0]).log_snr, pixels, ends_key, total, decoder)


def noise_error(denoise: Callable, x_0, log_snr, eps):
  """The squared error of the noise that the guess of the image amounts to, SNR |x_0 - D|^2: log_snr [B] -> [B]."""
  error = x_0 - denoise(noise.diffuse(x_0, log_snr, eps), log_snr)
  return sum_over_example(jnp.square(noise.like(jnp.exp(log_snr / 2), x_0) * error))


def with_ends(denoise: Callable, clock: Callable, pixels, key, rate_diffusion, decoder: Decoder | None = None) -> dict:
  """The bound and its parts, from what the levels between the ends of the clock cost, [B]."""
  decoder = decoder or (levels() if pixels.dtype == jnp.uint8 else density())
  x_0 = images.to_symmetric(pixels)
  highest, lowest = _ends(clock)
  x = noise.diffuse(x_0, highest, random.normal(key, len(x_0), x_0.shape[1:]))
  distortion = -decoder.log_prob(denoise, x_0, x, highest)
  rate_prior = kl_to_standard_normal(noise.alpha(lowest) * x_0, -jax.nn.softplus(lowest))
  parts = {"distortion": distortion, "rate_diffusion": rate_diffusion, "rate_prior": rate_prior}
  return {"nll_bound": distortion + rate_diffusion + rate_prior, **parts}


# The probability flow.  An image enters it at the highest log SNR: a function `(key, pixels, highest) -> (x, nats [B])`, whose
# nats are what has to be added to -log p(x) at that level.


def as_points(key, pixels, highest):
  """Points as they are.  What is scored is the density of the data blurred by sigma / alpha at `highest`: in each direction of
  deviation s its log is off by about sigma^2 / (2 s^2), the share of the blur, and a highest log SNR of 15 or more is free."""
  del key
  num_dims, scale = pixels[0].size, noise.alpha(highest)
  return scale * pixels, jnp.full(len(pixels), -num_dims * jnp.log(scale))


def uniform_dequantization(key, pixels, highest):
  """uint8 spread over the bins of their levels, a density of which the mass of the image is the mean times (1 / 127.5)^dims.

  It is for denoisers that were trained on images like these, or whose `highest` is at most about 12, where the noise is as
  wide as a bin: one that knows the levels finds everything between them improbable.
  """
  x_0 = (images.dequantize(key, pixels) * 256 - 0.5) / 127.5 - 1
  x, nats = as_points(key, x_0, highest)
  return x, nats + x_0[0].size * math.log(127.5)


def gaussian_dequantization(key, pixels, highest):
  """uint8 with the noise of the highest level, and what it takes to send the image then (`levels`): a bound for the flow and
  the decoder together, all but tight where `levels` is sure (from 13 on), for denoisers that know the levels."""
  x_0 = images.to_symmetric(pixels)
  eps = random.normal(key, len(x_0), x_0.shape[1:])
  x = noise.diffuse(x_0, highest, eps)
  log_q = standard_normal_log_prob(eps) - x_0[0].size * jnp.log(noise.sigma(highest))
  return x, log_q - _levels_log_prob(None, x_0, x, highest)


class FlowLikelihood(NamedTuple):
  """Minus the log-likelihood under the probability flow.

  Attributes:
    nll: nats [B].
    error: [B], how far half as many steps are from that.  Where the steps are fine enough their error is a fifteenth of it;
      where it is large no digit of the nll means anything.  What random probes add to the spread is not in it.
    num_evaluations: of the denoiser, in all.
  """

  nll: jax.Array
  error: jax.Array
  num_evaluations: int


def ode_nll(
  denoise: Callable,
  pixels,
  key,
  *,
  highest: float = 13.0,
  lowest: float = -10.0,
  num_steps: int = 64,
  num_probes: int | None = 1,
  enter: Callable | None = None,
) -> FlowLikelihood:
  """Each example by itself: no step depends on what else is in the batch.

  What is left of the way between `highest` and the image is not integrated; `enter` says what that amounts to.

  Args:
    denoise: `(x, log_snr []) -> x_0`, differentiable in x.
    pixels: uint8 [B, ...], or points.
    key: of the probes, one set for all of the way, and of dequantisation.
    highest, lowest: log SNR where the image enters, and where x is taken to be standard normal.
    num_steps: of Runge and Kutta's method of fourth order, even in log SNR; an even number.
    num_probes: random signs v by which the divergence is estimated, the mean of v^T J v (Hutchinson 1990); None for the exact
      trace, by as many derivatives as an example has numbers.
    enter: `uniform_dequantization` for images and `as_points` for points if None.
  """
  if num_steps < 2 or num_steps % 2:
    raise UserError(f"the error is estimated from half as many steps: take an even number of steps, not {num_steps}")
  if num_probes is not None and num_probes < 1:
    raise UserError(f"take at least one probe, or None for the exact trace; not {num_probes}")
  enter_key, probe_key = jax.random.split(key)
  enter = enter or (uniform_dequantization if pixels.dtype == jnp.uint8 else as_points)
  x, nats = enter(enter_key, pixels, jnp.float32(highest))
  probes = _probes(probe_key, x, num_probes)
  solve = lambda steps: nats - _log_density(denoise, x, probes, num_probes or 1, highest, lowest, steps)
  fine, coarse = solve(num_steps), solve(num_steps // 2)
  return FlowLikelihood(fine, jnp.abs(fine - coarse), 4 * num_steps + 2 * num_steps)


def _probes(key, x, num_probes: int | None):
  """Random signs [P, B, ...], or the unit vectors [D, 1, ...]."""
  if num_probes is None:
    return jnp.eye(x[0].size, dtype=x.dtype).reshape(-1, 1, *x.shape[1:])
  signs = lambda key: 2.0 * random.randint(key, len(x), x.shape[1:]).astype(x.dtype) - 1
  return jax.vmap(signs)(jax.random.split(key, num_probes))


def _log_density(denoise, x, probes, num_samples: int, highest: float, lowest: float, num_steps: int):
  """log p(x) at `highest`, [B]."""
  width = (lowest - highest) / num_steps

  def flow(x, log_snr):
    guess, trace = _guess_and_trace(lambda x: denoise(x, log_snr), x, probes)
    scale = noise.alpha(log_snr)
    return scale / 2 * (guess - scale * x), scale / 2 * (trace / num_samples - scale * x[0].size)

  def stage(carry, row):
    # Four rows make a step: each stands at its start plus some of the last slope, and the last row ends the step.
    start, here, gained = carry
    log_snr, weight, ahead, ends = row
    slope = flow(here[0], log_snr)
    gained = jax.tree.map(lambda g, k: g + width * weight * k, gained, slope)
    end = jax.tree.map(jnp.add, start, gained)
    here = jax.tree.map(lambda s, k, e: jnp.where(ends, e, s + width * ahead * k), start, slope, end)
    start = jax.tree.map(lambda s, e: jnp.where(ends, e, s), start, end)
    return (start, here, jax.tree.map(lambda g: jnp.where(ends, jnp.zeros_like(g), g), gained)), None

  stages = ([0, 0.5, 0.5, 1], [1 / 6, 1 / 3, 1 / 3, 1 / 6], [0.5, 0.5, 1, 0], [0, 0, 0, 1])
  done, weights, ahead, ends = (jnp.asarray(np.tile(column, num_steps), jnp.float32) for column in stages)
  log_snr = highest + width * (jnp.repeat(jnp.arange(num_steps), 4) + done)
  begin = (x, jnp.zeros(len(x), x.dtype))
  begin = (begin, begin, jax.tree.map(jnp.zeros_like, begin))
  ((x, total), _, _), _ = jax.lax.scan(stage, begin, (log_snr, weights, ahead, ends > 0))
  return standard_normal_log_prob(x) + total


def _guess_and_trace(function: Callable, x, probes):
  """function(x) [B, ...], and the sum over probes v of v^T J v, [B]."""
  guess, push = jax.linearize(function, x)

  def product(probe):
    probe = jnp.broadcast_to(probe, x.shape)
    return sum_over_example(probe * push(probe))

  return guess, jax.lax.map(product, probes, batch_size=min(16, len(probes))).sum(0)


# What an experiment's `measure(config)` returns.


def measure(module: Denoiser, *, highest: float = 13.0, lowest: float = -10.0, **how) -> Callable:
  """Both likelihoods of a diffusion model: `(key, state, batch) -> {name: [B]}`, given the labels if the module reads them.

  Images are scored by their mass: an experiment says so by the protocol {"bin_width": 1.0}.

  Args:
    module: that the model was made of.
    highest, lowest: the ends of log SNR.
    how: the options of `scores`.
  """
  clock = noise.uniform(highest, lowest).log_snr

  def evaluate(key, state, batch):
    guess, label = denoiser(module, state), batch.get("label")
    return scores(lambda x, log_snr: guess(x, log_snr, label), clock, batch["image"], key, **how)

  return evaluate


def scores(
  denoise: Callable,
  clock: Callable,
  pixels,
  key,
  *,
  num_levels: int = 64,
  num_steps: int = 64,
  num_probes: int | None = 1,
  decoder: Decoder | None = None,
  enter: Callable | None = None,
) -> dict:
  """"nll_bound" and its parts by `bound`; "nll", "nll_error" and the number of "evaluations" behind them by `ode_nll`, which is
  left out where `num_steps` is 0.  Arguments are theirs; both see the same range of log SNR."""
  bound_key, flow_key = jax.random.split(key)
  parts = bound(denoise, clock, pixels, bound_key, num_levels=num_levels, decoder=decoder)
  if not num_steps:
    return parts
  highest, lowest = _ends(clock)
  how = dict(highest=highest, lowest=lowest, num_steps=num_steps, num_probes=num_probes, enter=enter)
  solved = ode_nll(denoise, pixels, flow_key, **how)
  evaluations = jnp.full(len(pixels), solved.num_evaluations, jnp.float32)
  return {"nll": solved.nll, "nll_error": solved.error, "evaluations": evaluations, **parts}


def _ends(clock: Callable):
  return tuple(jnp.asarray(clock(jnp.float32(t)), jnp.float32) for t in (0, 1))
