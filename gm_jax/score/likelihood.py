"""How probable does a denoiser make an image?  A bound, and the exact number of another model of the same denoiser.

    -log p(x_0)  <=  KL(q(x | x_0, lowest) || N(0, I))  +  1/2 int SNR E|x_0 - D(x)|^2 d log_snr  -  E log p(x_0 | x, highest)

is the variational bound of the way back with noise (Kingma et al. 2021, "Variational diffusion models", equations 11 and 18).
The three terms are a rate, a rate and a distortion, as a VAE's: the noisiest level has to be sent, then how each less noisy one
differs, then the image (decoders.py).  Between its two ends the bound does not care how fast noise goes away.

The way back without noise is another model, whose density is known: flow_likelihood.py.  `scores` and `measure` report both.

All numbers are nats per example, [B].  Images are uint8, 256 levels on [-1, 1], 1 / 127.5 apart, and what is scored is their
mass; floats are points, and what is scored is their density.  A denoiser here is `(x [B, ...], log_snr [] or [B]) -> x_0`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import images, random
from gm_jax.distributions import kl_to_standard_normal, sum_over_example
from gm_jax.errors import UserError
from gm_jax.score import grids, noise
from gm_jax.score.decoders import Decoder, density, levels
from gm_jax.score.diffusion import Denoiser, denoiser
from gm_jax.score.flow_likelihood import ode_nll


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
  """By `bound` "nll_bound" and its parts; by `ode_nll` "nll", "nll_error" and the number of "evaluations" behind them, left out
  where `num_steps` is 0.  Arguments are theirs; both see the same range of log SNR."""
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
