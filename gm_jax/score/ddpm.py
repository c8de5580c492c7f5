"""Denoising diffusion: drown a picture in noise step by step, learn to guess the noise, and walk back.

Forwards, x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps for t = 1 ... T, and x_T is as good as noise.  One network
learns eps from (x_t, t).  Backwards, each step takes a little of the guessed noise away and, in DDPM, adds a little new.

  Ho, Jain, Abbeel, "Denoising diffusion probabilistic models", 2020: Algorithm 1 (training), Algorithm 2 (`ancestral`)
  Song, Meng, Ermon, "Denoising diffusion implicit models", 2021: the same network in far fewer steps (`ddim`)

Time is counted as in the papers: t = 0 is the data and t = T the end, so tables have T + 1 entries and need no shift by one.
Which times a sampler visits is data, an array from T down to 0; every step is told both of its ends.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax import images, random
from gm_jax.core import GenerativeModel, from_objective
from gm_jax.errors import UserError

# --- How fast the picture fades ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Schedule:
  """The signal-to-noise ratio at each time: everything else about a schedule follows from it.

  All tables are float64 [T + 1] on the host.  The logarithm is what is stored: it is precise at both ends, where alpha_bar
  itself, near 1, has few digits left for 1 - alpha_bar.

  Attributes:
    log_snr: log(alpha_bar / (1 - alpha_bar)), falling from +inf at the data to a finite value.
  """

  log_snr: np.ndarray

  def __post_init__(self):
    first, rest = self.log_snr[0], self.log_snr[1:]
    # Finite, since no noise can be guessed away from an x_T that holds nothing else: x_0 would be 0 / 0.
    if not (first == np.inf and len(rest) and np.all(np.isfinite(rest)) and np.all(np.diff(rest) < 0)):
      raise UserError(f"a schedule's log SNR falls from inf at each step and stays finite (beta in (0, 1)); got {self.log_snr}")

  @property
  def num_steps(self) -> int:
    """T."""
    return len(self.log_snr) - 1

  @cached_property
  def log_alphas_bar(self):
    return -np.logaddexp(0, -self.log_snr)

  @cached_property
  def alphas_bar(self):
    """The share of x_t's variance that is signal (unit-variance data)."""
    return np.exp(self.log_alphas_bar)

  @cached_property
  def signal(self):
    """sqrt(alpha_bar): how much of x_0 is in x_t."""
    return np.exp(self.log_alphas_bar / 2)

  @cached_property
  def noise(self):
    """sqrt(1 - alpha_bar): how much of eps is in x_t."""
    return np.exp(-np.logaddexp(0, self.log_snr) / 2)

  def beta(self, t, s):
    """Variance of the noise added from time s to a later time t; `beta(t, t - 1)` is the paper's beta_t."""
    return -np.expm1(self.log_alphas_bar[t] - self.log_alphas_bar[s])

  @cached_property
  def betas(self):
    """beta_t, and 0 at the data."""
    times = np.arange(1, self.num_steps + 1)
    return np.append(0.0, self.beta(times, times - 1))


def from_betas(betas) -> Schedule:
  """The schedule that adds noise of variance betas[t - 1] at step t; [T], each in (0, 1)."""
  log_alphas_bar = np.cumsum(np.log1p(-np.asarray(betas, np.float64)))
  log_snr = log_alphas_bar - np.log(-np.expm1(log_alphas_bar))
  return Schedule(np.append(np.inf, log_snr))


def linear(num_steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
  """DDPM's: beta_t rises evenly.  The end values are for 1000 steps."""
  return from_betas(np.linspace(first, last, num_steps))


def cosine(num_steps: int = 1000, offset: float = 0.008, largest: float = 0.999) -> Schedule:
  """Nichol and Dhariwal 2021, equation 17: alpha_bar falls as a squared cosine.  `linear` drowns small pictures too early."""
  log_alphas_bar = 2 * np.log(np.cos((np.arange(num_steps) / num_steps + offset) / (1 + offset) * np.pi / 2))
  # The last alpha_bar would be 0, and its beta 1; the paper caps it.
  return from_betas(np.minimum(-np.expm1(np.diff(log_alphas_bar, append=-np.inf)), largest))


def diffuse(schedule: Schedule, x_0, time, noise):
  """A draw of q(x_t | x_0), DDPM equation 4: x_0 and noise [B, ...], time int32 [B] -> x_t [B, ...]."""
  return _at(schedule.signal, time, x_0) * x_0 + _at(schedule.noise, time, x_0) * noise


def _at(table, time, like):
  # [B] -> [B, 1, ..., 1]
  return jnp.asarray(table, like.dtype)[time].reshape(-1, *(1,) * (like.ndim - 1))


# --- The walk back ----------------------------------------------------------------------------------------------------------
#
# A sampler is a function (predict_noise, schedule, key, num, shape) -> x_0 [num, *shape], where
# predict_noise: (x_t [num, *shape], time int32 []) -> eps [num, *shape].


class Steps(NamedTuple):
  """A sampler written out as numbers, a row for each step: x_s = keep * x_t - remove * eps(x_t, t) + add * z, z ~ N(0, I)."""

  time: np.ndarray  # int32 [N], the t that each step leaves
  keep: np.ndarray  # float64 [N], as the next two
  remove: np.ndarray
  add: np.ndarray


def follow(predict_noise: Callable, steps: Steps, key, num: int, shape):
  """Take the steps, from noise to x_0 [num, *shape].  This loop is Algorithm 2's, and every sampler's here."""
  start_key, noise_key = jax.random.split(key)

  def step(x, row):
    z = random.normal(jax.random.fold_in(noise_key, row.time), num, shape)
    return row.keep * x - row.remove * predict_noise(x, row.time) + row.add * z, None

  rows = Steps(jnp.asarray(steps.time), *(jnp.asarray(column, jnp.float32) for column in steps[1:]))
  x_0, _ = jax.lax.scan(step, random.normal(start_key, num, shape), rows)
  return x_0


def small(schedule: Schedule, t, s):
  """The variance of q(x_s | x_t, x_0), DDPM equation 7: right if the data are a single point."""
  return (schedule.noise[s] / schedule.noise[t]) ** 2 * schedule.beta(t, s)


def large(schedule: Schedule, t, s):
  """The variance of q(x_t | x_s): right if the data are standard normal."""
  return schedule.beta(t, s)


def ancestral_steps(schedule: Schedule, times, variance: Callable) -> Steps:
  """DDPM, Algorithm 2, line 4; with gaps in `times` a step covers several of the paper's."""
  t, s = _ends(schedule, times)
  keep = schedule.signal[s] / schedule.signal[t]  # the paper's 1 / sqrt(alpha_t)
  remove = keep * schedule.beta(t, s) / schedule.noise[t]
  # z = 0 on the last step: what is left of the noise there is taken out and not renewed.
  return Steps(t, keep, remove, np.where(s > 0, np.sqrt(variance(schedule, t, s)), 0.0))


def ddim_steps(schedule: Schedule, times, eta: float) -> Steps:
  """DDIM, equations 12 and 16: predict x_0, then put back as much noise as x_s should have, eta of it new."""
  t, s = _ends(schedule, times)
  keep = schedule.signal[s] / schedule.signal[t]
  add = eta * np.sqrt(small(schedule, t, s))
  return Steps(t, keep, keep * schedule.noise[t] - np.sqrt(schedule.noise[s] ** 2 - add**2), add)


def _ends(schedule: Schedule, times):
  times = np.asarray(times, np.int32)
  if times[0] != schedule.num_steps or times[-1] != 0 or not np.all(np.diff(times) < 0):
    raise UserError(f"a sampler's times fall from the schedule's {schedule.num_steps} to 0; got {times}")
  return times[:-1], times[1:]


def evenly(schedule_steps: int, num: int) -> np.ndarray:
  """Times from `schedule_steps` down to 0 in `num` steps as even as integers allow, int32 [num + 1]."""
  if not 1 <= num <= schedule_steps:
    raise UserError(f"cannot sample in {num} steps; the schedule has {schedule_steps}: take 1 to {schedule_steps}")
  return np.arange(num, -1, -1, dtype=np.int32) * schedule_steps // num


def ancestral(variance: Callable = small, num_steps: int | None = None) -> Callable:
  """DDPM's sampler.

  Args:
    variance: `(schedule, t, s) -> variance` of the noise added between times t and s < t; `small`, `large` or your own.
    num_steps: how many, evenly spaced; all of the schedule's if None.
  """

  def sampler(predict_noise, schedule, key, num, shape):
    times = evenly(schedule.num_steps, num_steps or schedule.num_steps)
    return follow(predict_noise, ancestral_steps(schedule, times, variance), key, num, shape)

  return sampler


def ddim(num_steps: int = 50, eta: float = 0.0, times: Callable = evenly) -> Callable:
  """DDIM's sampler: with eta = 0 a map from noise to picture and with eta = 1 DDPM's `small`.

  Args:
    num_steps: of the sampler; far fewer than the schedule's will do.
    eta: 0 to 1.
    times: `(schedule's steps, num_steps) -> int32 [num_steps + 1]`, falling to 0: which times to visit.
  """
  if not 0 <= eta <= 1:
    raise UserError(f"DDIM's eta is between 0 and 1, not {eta}")

  def sampler(predict_noise, schedule, key, num, shape):
    return follow(predict_noise, ddim_steps(schedule, times(schedule.num_steps, num_steps), eta), key, num, shape)

  return sampler


def clipped(sampler: Callable, low: float = -1.0, high: float = 1.0) -> Callable:
  """The same sampler, told that pictures have a range: each guess of x_0 is kept in it.

  The noise is derived again from the clipped x_0, so that the two still add up to x_t; without that the walk leaves its track.
  """

  def clipped_sampler(predict_noise, schedule, key, num, shape):
    signals, noises = jnp.asarray(schedule.signal, jnp.float32), jnp.asarray(schedule.noise, jnp.float32)

    def predict(x_t, time):
      x_0 = (x_t - noises[time] * predict_noise(x_t, time)) / signals[time]
      return (x_t - signals[time] * jnp.clip(x_0, low, high)) / noises[time]

    return sampler(predict, schedule, key, num, shape)

  return clipped_sampler


# --- The model --------------------------------------------------------------------------------------------------------------


def ddpm(
  network: nn.Module,
  optimizer: optax.GradientTransformation,
  *,
  image_shape: tuple[int, ...],
  schedule: Schedule | None = None,
  sampler: Callable | None = None,
  to_images: Callable = images.from_symmetric,
  decay: float = 0.999,
) -> GenerativeModel:
  """Denoising diffusion; `evaluate` reports "denoising", the squared error per dimension of the noise guessed at a random time.

  Args:
    network: called as `network(x_t [B, H, W, C], time [B] float in 1 ... T, label, train)`, returns the noise [B, H, W, C].
    optimizer: any optax transformation.
    image_shape: (H, W, C).
    schedule: `linear()` if None.
    sampler: `ancestral()` if None: Algorithm 2 as printed, all steps, no clipping.
    to_images: from the network's range [-1, 1] to what `sample` returns.
    decay: of the average that `sample` and `evaluate` read.
  """
  schedule = schedule or linear()
  sampler = sampler or ancestral()

  def objective(network, key, batch, train):
    """Algorithm 1 with the simple loss, equation 14."""
    time_key, noise_key = jax.random.split(key)
    x_0 = images.to_symmetric(batch["image"])  # [B, H, W, C]
    time = random.randint(time_key, len(x_0), (), 1, schedule.num_steps + 1)  # [B]
    noise = random.normal(noise_key, len(x_0), x_0.shape[1:])
    guess = network(diffuse(schedule, x_0, time, noise), time.astype(jnp.float32), None, train)
    return jnp.square(noise - guess).mean(range(1, x_0.ndim)), {}

  def sample(network, key, num, condition):
    del condition  # one model of all the data

    def predict_noise(x_t, time):
      return network(x_t, jnp.full(num, time, jnp.float32), None, False)

    return to_images(sampler(predict_noise, schedule, key, num, image_shape))

  return from_objective(network, objective, sample, optimizer, reports="denoising", decay=decay)
