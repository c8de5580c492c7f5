"""Finding the step size while the chains warm up, by dual averaging (Hoffman & Gelman 2014, section 3.2)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gm_jax import rows

SHRINKAGE, DELAY, FORGETTING = 0.05, 10.0, 0.75  # gamma, t_0 and kappa of the paper


class Search(NamedTuple):
  log_step: jax.Array  # the step size to try next
  log_average: jax.Array  # the one to keep
  shortfall: jax.Array  # running mean of (target - acceptance)


class WarmedUp(NamedTuple):
  step_size: jax.Array  # []
  positions: Any  # [C, ...], where the chains have come to
  acceptance: jax.Array  # [num_steps], the mean over chains of each step


def warm_up(make_kernel: Callable, key, positions, step_size, num_steps: int, target: float = 0.8) -> WarmedUp:
  """One step size for all chains, at which the mean acceptance is `target`.  Its steps are thrown away: they belong to no law.

  Args:
    make_kernel: `(step size []) -> Kernel`; for coordinates of unequal width, `lambda step: hmc(log_prob, step * widths, 10)`.
    key: of these steps.
    positions: where the chains start.
    step_size: a first guess, within a factor of ten or so.
    num_steps: of each chain; a few hundred do.
    target: mean acceptance: 0.8 for `hmc`, 0.57 for `mala`, 0.23 to 0.44 for `random_walk`.
  """
  anchor = jnp.log(10.0 * step_size)

  def step(carry, index):
    state, search = carry
    state, info = make_kernel(jnp.exp(search.log_step)).step(jax.random.fold_in(key, index), state)
    acceptance = rows.batch_mean(info.acceptance)
    return (state, _improved(search, target - acceptance, index + 1.0, anchor)), acceptance

  guess = jnp.log(jnp.float32(step_size))
  start = make_kernel(jnp.exp(guess)).init(positions), Search(guess, jnp.float32(0.0), jnp.float32(0.0))
  (state, search), acceptance = jax.lax.scan(step, start, jnp.arange(num_steps))
  return WarmedUp(jnp.exp(search.log_average), state.position, acceptance)


def _improved(search: Search, shortfall, count, anchor) -> Search:
  """Equation 6 after `count` steps."""
  mean = search.shortfall + (shortfall - search.shortfall) / (count + DELAY)
  log_step = anchor - jnp.sqrt(count) / SHRINKAGE * mean
  weight = count**-FORGETTING
  return Search(log_step, weight * log_step + (1 - weight) * search.log_average, mean)
