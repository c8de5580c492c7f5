"""Which noise levels training visits: distributions of log SNR."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import random
from gm_jax.errors import UserError
from gm_jax.score.noise import Schedule, from_ratio


class Levels(NamedTuple):
  """A distribution of log SNR.

  Attributes:
    sample: `(key, num) -> log SNR [num]`, row i by the key and i alone.
    density: log SNR [B] -> its density [B], by which `weights.bound` divides.
  """

  sample: Callable
  density: Callable


def uniform(schedule: Schedule) -> Levels:
  """t uniform: on the schedule's T times if it is a table, else on (0, 1)."""
  if schedule.num_steps:
    return _one_of(_table(schedule), _anyone)
  return Levels(lambda key, num: schedule.log_snr(_open(random.uniform(key, num))), _density_of_time(schedule))


def evenly(schedule: Schedule) -> Levels:
  """t uniform, but spread over the batch, which makes the loss less noisy (Kingma et al. 2021, appendix I.1).

  Theirs are u + i / B modulo 1; here they are steps of the golden ratio, for which nobody needs to know the batch size.
  """
  if schedule.num_steps:
    return _one_of(_table(schedule), lambda key, num, count: (random.evenly(key, num) * count).astype(jnp.int32))
  return Levels(lambda key, num: schedule.log_snr(_open(random.evenly(key, num))), _density_of_time(schedule))


def lognormal(mean: float = -1.2, std: float = 1.2) -> Levels:
  """log(sigma / alpha) is normal (Karras et al. 2022, table 1)."""
  sample = lambda key, num: -2 * (mean + std * random.normal(key, num))
  return Levels(sample, lambda log_snr: _normal_density(log_snr, -2 * mean, 2 * std))


def logit_normal(mean: float = 0.0, std: float = 1.0, shift: float = 1.0) -> Levels:
  """The logit of rectified flow's time is normal (Esser et al. 2024, equation 19): log SNR is minus twice that."""
  if not (std > 0 and shift > 0):
    raise UserError(f"a standard deviation and a shift are above 0; got {std} and {shift}")
  return lognormal(mean + math.log(shift), std)


def only(ratios) -> Levels:
  """One of some noise levels sigma / alpha, each alike (Song and Ermon 2019)."""
  return _one_of(from_ratio(ratios), _anyone)


def _table(schedule: Schedule):
  """Log SNR of its T times, looked up and not interpolated: where it falls steeply, the last digit of t would be many of it."""
  return schedule.log_snr(np.arange(1, schedule.num_steps + 1) / schedule.num_steps)


def _one_of(table, index: Callable) -> Levels:
  """Entries of a table; `index`: (key, num, length of the table) -> int32 [num]."""
  table = np.asarray(table, np.float32)
  return Levels(lambda key, num: jnp.asarray(table)[index(key, num, len(table))], _no_density)


def _anyone(key, num, count):
  return random.randint(key, num, (), 0, count)


def _open(t):
  """Off 0 and 1, where some schedules are infinite, by what float32 can tell apart near 1."""
  return jnp.clip(t, 2.0**-20, 1 - 2.0**-20)


def _density_of_time(schedule: Schedule) -> Callable:
  slope = jax.vmap(jax.grad(schedule.time))
  return lambda log_snr: jnp.abs(slope(log_snr))


def _normal_density(x, mean, std):
  return jnp.exp(-(((x - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))


def _no_density(log_snr):
  raise UserError("a table of noise levels has no density; the bound as a weight wants a continuous schedule")
