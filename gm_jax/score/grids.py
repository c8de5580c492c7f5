"""Which noise levels a sampler visits: log SNR, float64 [N + 1], rising from noise to image.

The last may be +inf, the image itself: a solver then ends on the last guess.  Grids are data; no solver works one out again.
"""

import numpy as np

from gm_jax.errors import UserError
from gm_jax.score.noise import Schedule, from_ratio


def checked(grid) -> np.ndarray:
  """The grid as float64; UserError unless it rises from anything below +inf."""
  grid = np.asarray(grid, np.float64)
  rising = grid.ndim == 1 and len(grid) >= 2 and not np.isnan(grid).any() and np.all(grid[1:] > grid[:-1])
  if not rising:
    raise UserError(f"a sampler's grid is log SNR, rising from noise to image, of two or more; got {grid}")
  return grid


def in_time(schedule: Schedule, num_steps: int, last=np.inf) -> np.ndarray:
  """t falls evenly from 1; the last level is `last` instead of the schedule's own at 0."""
  _check(num_steps)
  t = np.arange(num_steps, 0, -1) / num_steps
  return checked(np.append(schedule.log_snr(t), last))


def in_log_snr(highest: float, lowest: float, num_steps: int, last=np.inf) -> np.ndarray:
  """Log SNR rises evenly from `lowest` to `highest`, and jumps to `last` in one step more unless that is None."""
  _check(num_steps)
  count = num_steps + 1 if last is None else num_steps
  grid = np.linspace(lowest, highest, count) if count > 1 else np.array([lowest])
  return checked(grid if last is None else np.append(grid, last))


def karras(num_steps: int, least: float = 0.002, largest: float = 80.0, rho: float = 7.0, last=np.inf) -> np.ndarray:
  """(sigma / alpha)^(1 / rho) falls evenly from `largest` to `least`, then `last` (Karras et al. 2022, equation 5)."""
  _check(num_steps)
  count = num_steps + 1 if last is None else num_steps
  steps = np.linspace(0, 1, count) if count > 1 else np.zeros(1)
  levels = (largest ** (1 / rho) + steps * (least ** (1 / rho) - largest ** (1 / rho))) ** rho
  grid = from_ratio(levels)
  return checked(grid if last is None else np.append(grid, last))


# Tables: integer times of a discrete schedule.  The last step goes to the image.


def trailing(schedule: Schedule, num_steps: int) -> np.ndarray:
  """T, and down from it by T / N (Lin et al. 2024, section 3.3)."""
  return _from_times(schedule, np.round(np.arange(num_steps, 0, -1) * _steps(schedule, num_steps) / num_steps))


def leading(schedule: Schedule, num_steps: int) -> np.ndarray:
  """1, and up from it by T // N; T itself is not visited (Song et al. 2021, DDIM)."""
  return _from_times(schedule, 1 + np.arange(num_steps)[::-1] * (_steps(schedule, num_steps) // num_steps))


def linspace(schedule: Schedule, num_steps: int) -> np.ndarray:
  """From T to 1, both visited, as even as whole numbers are."""
  return _from_times(schedule, np.round(np.linspace(_steps(schedule, num_steps), 1, num_steps)))


def quadratic(schedule: Schedule, num_steps: int) -> np.ndarray:
  """Squares of even numbers, from 0.8 T down (DDIM, appendix D.2)."""
  top = np.sqrt(0.8 * _steps(schedule, num_steps))
  times = np.floor(np.linspace(0, top, num_steps) ** 2).astype(int) + 1
  for index in range(1, num_steps):  # whole numbers near 0 must not meet
    times[index] = max(times[index], times[index - 1] + 1)
  return _from_times(schedule, times[::-1])


def _steps(schedule: Schedule, num_steps: int) -> int:
  if not schedule.num_steps:
    raise UserError("this grid is for schedules that are tables (noise.discrete); take grids.in_time")
  if not 1 <= num_steps <= schedule.num_steps:
    raise UserError(f"cannot sample in {num_steps} steps; the schedule has {schedule.num_steps}: take 1 to that many")
  return schedule.num_steps


def _from_times(schedule: Schedule, times) -> np.ndarray:
  return checked(np.append(schedule.log_snr(np.asarray(times, np.float64) / schedule.num_steps), np.inf))


def _check(num_steps: int):
  if num_steps < 1:
    raise UserError(f"cannot sample in {num_steps} steps; take at least 1")
