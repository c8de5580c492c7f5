"""Which two points of one way a consistency model compares: how many levels there are, and what is a neighbour of what.

Levels are the even times of a schedule's clock, 0 at the image, or a sampler's grid.  See consistency.py.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import random
from gm_jax.errors import UserError
from gm_jax.score import grids, noise


class Neighbours(NamedTuple):
  """Two points of one way, [B, ...], their log SNR [B], and what it costs if they disagree [B]."""

  x: jax.Array
  log_snr: jax.Array
  cleaner: jax.Array
  cleaner_log_snr: jax.Array
  weight: jax.Array


def on_the_flow(solver: Callable, grid) -> Callable:
  """`(key, denoise, x_0, label, steps) -> Neighbours`, one step of a solver apart on the flow of a denoiser.

  Args:
    solver: of one step and no noise: DDIM or Heun.
    grid: log SNR of the levels, the last one that of `least`.
  """
  grid = grids.checked(grid)
  methods = [solver(pair) for pair in zip(grid[:-1], grid[1:])]
  if any(method.noise.any() for method in methods):
    raise UserError("a solver that adds noise leaves the way: take DDIM or Heun")
  log_snr, weights = (np.stack([method[field] for method in methods]).astype(np.float32) for field in (0, 1))

  def neighbours(key, denoise, x_0, label, steps):
    del steps
    index_key, noise_key = jax.random.split(key)
    index = _piece(random.evenly(index_key, len(x_0)), len(methods))
    start, end = (jnp.asarray(ends, jnp.float32)[index] for ends in (grid[:-1], grid[1:]))
    x = noise.diffuse(x_0, start, random.normal(noise_key, len(x_0), x_0.shape[1:]))
    slots = [x] + [jnp.zeros_like(x)] * (weights.shape[2] - 1)
    for row in range(weights.shape[1]):  # as `solvers.follow`, but each example by the numbers of its own level
      known = [*slots, denoise(slots[0], jnp.asarray(log_snr[:, row])[index], label)]
      mixed = jnp.asarray(weights[:, row])[index]  # [B, S, S + 1]
      slots = [sum(noise.like(mixed[:, i, j], x) * value for j, value in enumerate(known)) for i in range(len(slots))]
    return Neighbours(x, start, slots[0], end, jnp.ones(len(x)))

  return neighbours


def with_the_same_noise(schedule: noise.Schedule, num_levels: Callable, clock: Callable) -> Callable:
  """`(key, denoise, x_0, label, steps) -> Neighbours`: an image at two levels; they cost one over how far these are apart.

  Args:
    schedule: its log SNR at even times are the levels.
    num_levels: of steps taken: `doubling` and others.
    clock: a number in [0, 1) -> the time at which neighbours are chosen: `even` or `lognormal`.
  """

  def neighbours(key, denoise, x_0, label, steps):
    del denoise, label
    time_key, noise_key = jax.random.split(key)
    pieces = num_levels(steps) - 1
    index = _piece(clock(random.evenly(time_key, len(x_0))), pieces)
    cleaner, noisier = schedule.log_snr(index / pieces), schedule.log_snr((index + 1) / pieces)
    eps = random.normal(noise_key, len(x_0), x_0.shape[1:])
    x, nearer = noise.diffuse(x_0, noisier, eps), noise.diffuse(x_0, cleaner, eps)
    return Neighbours(x, noisier, nearer, cleaner, 1 / (noise.ratio(noisier) - noise.ratio(cleaner)))

  return neighbours


def _piece(t, count):
  """Which of `count` even pieces of [0, 1) t is in."""
  return jnp.clip((t * count).astype(jnp.int32), 0, count - 1)


# How many levels, and which: functions of the number of steps taken, and of a number in [0, 1).


def fixed(num: int) -> Callable:
  """Always `num` levels."""
  _check_levels(num - 1, num - 1)
  return lambda steps: jnp.full_like(steps, num)


def doubling(total: int, first: int = 10, last: int = 1280) -> Callable:
  """first + 1 levels, then twice as many pieces again and again, up to last + 1, by `total` steps (Song and Dhariwal 2024)."""
  _check_levels(first, last)
  stages = math.floor(math.log2(last // first)) + 1
  each = max(total // stages, 1)
  return lambda steps: jnp.minimum(first * 2 ** jnp.minimum(steps // each, stages), last) + 1


def growing(total: int, first: int = 2, last: int = 150) -> Callable:
  """From first to last + 1 levels, as the root of the number of steps (Song et al. 2023, appendix C)."""
  _check_levels(first, last)

  def num_levels(steps):
    done = jnp.minimum(steps / total, 1.0)
    root = jnp.sqrt(done * ((last + 1.0) ** 2 - first**2) + first**2)
    return jnp.ceil(root - 1 - 1e-4).astype(jnp.int32) + 1  # float32 must not step over a whole number

  return num_levels


def _check_levels(first: int, last: int):
  if not 1 <= first <= last:
    raise UserError(f"neighbours take two levels at least, and no fewer later than before; got {first} to {last} pieces")


def even(u):
  """Every pair of neighbours alike (Song et al. 2023)."""
  return u


def lognormal(schedule: noise.Schedule, mean: float = -1.1, std: float = 2.0) -> Callable:
  """As often as log(sigma / alpha) of a normal law lies between the two (Song and Dhariwal 2024)."""
  of_image, of_noise = (-schedule.log_snr(t) / 2 for t in (0.0, 1.0))
  low, high = (0.5 * (1 + math.erf((end - mean) / std / math.sqrt(2))) for end in (of_image, of_noise))

  def clock(u):
    level = mean + std * jax.scipy.special.ndtri(low + (high - low) * u)
    return schedule.time(-2 * level)

  return clock
