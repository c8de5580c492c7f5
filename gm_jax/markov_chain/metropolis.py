"""Metropolis-Hastings: propose a move, and refuse it just often enough (Metropolis et al. 1953, Hastings 1970)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax import random
from gm_jax.markov_chain.chain import Kernel, accept


class State(NamedTuple):
  position: jax.Array  # [C, ...]
  log_prob: jax.Array  # [C]


def metropolis_hastings(log_prob: Callable, propose: Callable) -> Kernel:
  """Any proposal.

  Args:
    log_prob: `(positions [C, ...]) -> nats [C]`, up to a constant.
    propose: `(key, positions) -> (proposals [C, ...], log q(x | x') - log q(x' | x) [C])`, draws from q(x' | x) and how much
      likelier the way back is; zero for a proposal that is symmetric.
  """

  def init(positions):
    return State(positions, log_prob(positions))

  def step(key, state):
    propose_key, accept_key = jax.random.split(key)
    there, log_way_back = propose(propose_key, state.position)
    proposed = State(there, log_prob(there))
    uniform = random.uniform(accept_key, len(state.log_prob))
    return accept(uniform, proposed.log_prob - state.log_prob + log_way_back, proposed, state)

  return Kernel(init, step)


def random_walk(log_prob: Callable, step_size) -> Kernel:
  """Gaussian steps in any direction.  About 44% accepted is best in one dimension, 23% in many (Roberts et al. 1997).

  Args:
    log_prob: as above.
    step_size: deviation of a step, a number or one for each coordinate [...].
  """

  def propose(key, positions):
    noise = random.normal(key, len(positions), positions.shape[1:], positions.dtype)
    scale = jnp.broadcast_to(step_size, positions.shape[1:]).astype(positions.dtype)
    return positions + scale[None] * noise, jnp.zeros(len(positions))

  return metropolis_hastings(log_prob, propose)
