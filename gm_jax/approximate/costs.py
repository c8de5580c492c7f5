"""What the rate costs while a VAE is trained.  Evaluation knows none of this: there the rate costs what it is, once.

A cost is a function `(rates [B, G], steps) -> [B]` of the rate's parts (`priors.Prior.rates`).  `steps()` says how many steps
of training came before this one, for costs that change with time.  An objective is shown key, batch and parameters and no step;
so the count is memory like they are, in a flax collection of its own, and is saved and resumed with them.  Models whose cost
never asks have no such collection.
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.core import global_mean


def weighted(beta: float | Callable = 1.0) -> Callable:
  """beta * rate: below 1 for codes that say more, above 1 for codes that are simple (Higgins et al. 2017).

  Args:
    beta: a number, or a schedule, steps -> number: `optax.linear_schedule(0.0, 1.0, 10_000)` warms up (Bowman et al. 2016).
  """

  def cost(rates, steps):
    return (beta(steps()) if callable(beta) else beta) * rates.sum(1)

  return cost


def capacity(weight: float, target: Callable) -> Callable:
  """weight * |rate - target|: as many nats as the schedule `target`, steps -> nats, allows (Burgess et al. 2018)."""

  def cost(rates, steps):
    return weight * jnp.abs(rates.sum(1) - target(steps()))

  return cost


def free_bits(nats: float) -> Callable:
  """sum_g max(nats, mean over the batch of rate_g): the first `nats` of each part are free (Kingma et al. 2016).

  With the standard normal a part is a latent; priors without a closed form have one part in all.
  """

  def cost(rates, steps):
    del steps
    paid = global_mean(rates.mean(0)) > nats  # [G]; which of the two is larger, so the mean of the losses is that sum
    return jnp.where(paid[None], rates, nats).sum(1)

  return cost


def count_step(module: nn.Module):
  """How many steps of training came before this one, int32 []; calling it counts one, so call it once in a step."""
  before = module.get_variable("counters", "steps", jnp.zeros((), jnp.int32))
  # The objective also runs once to create the parameters, which is not a step.
  module.put_variable("counters", "steps", before if module.is_initializing() else before + 1)
  return before
