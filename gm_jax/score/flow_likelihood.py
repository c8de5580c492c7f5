"""How probable does the probability flow make an image?  Exactly, but for its steps.

The way from noise without any new noise is a model of its own: its density follows from how much it spreads volumes
(Chen et al. 2018; Song et al. 2021, "Score-based generative modeling through SDEs", section 4.3).  With log SNR as time,

    dx / d log_snr = alpha / 2 (D - alpha x),            d log p(x) / d log_snr = -divergence,

which is bounded, fades at both ends, and changes over one unit of log SNR at whatever scale the data have their structure: even
steps resolve all scales alike, where even steps of an angle or of time run past the fine ones.

All numbers are nats per example, [B].  A denoiser here is `(x [B, ...], log_snr []) -> x_0`.  The bound of the way with noise,
and how both are measured together: likelihood.py.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import images, random
from gm_jax.distributions import standard_normal_log_prob, sum_over_example
from gm_jax.errors import UserError
from gm_jax.score import decoders, noise

# An image enters at the highest log SNR: a function `(key, pixels, highest) -> (x, nats [B])`, whose nats are what has to be
# added to -log p(x) at that level.


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
  return x, log_q - decoders.levels().log_prob(None, x_0, x, highest)


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
