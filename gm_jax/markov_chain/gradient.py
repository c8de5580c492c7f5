"""Steps along the slope of the log density: Hamiltonian Monte Carlo, and Langevin dynamics, which is one step of it.

A position x is given a random momentum p and rolls on the landscape -log p(x).  Energy, -log p(x) + |p|^2 / 2, is conserved by
the true motion and nearly so by the leapfrog steps that stand for it; refusing by what it gained makes the law exact (Duane et
al. 1987, Neal 2011).  Step sizes may differ by coordinate, which is to have a diagonal mass matrix, 1 / step_size^2.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax import random
from gm_jax.markov_chain.chain import Kernel, Position, accept, always


class State(NamedTuple):
  position: jax.Array  # [C, ...]
  log_prob: jax.Array  # [C]
  slope: jax.Array  # [C, ...], of the log density


def hmc(log_prob: Callable, step_size, num_steps: int) -> Kernel:
  """Hamiltonian Monte Carlo.  Each trajectory is of 1 to `num_steps` leapfrog steps, as many in all chains.

  Of one length, some coordinate would swing just once round and end where it was, whatever the step size (Mackenzie 1989).

  Args:
    log_prob: `(positions [C, ...]) -> nats [C]`, up to a constant, differentiable; each chain's its own.
    step_size: of a leapfrog step, a number or one for each coordinate [...].
    num_steps: leapfrog steps in the longest trajectory.
  """

  def init(positions):
    return start(log_prob, positions)

  def step(key, state):
    momentum_key, length_key, accept_key = jax.random.split(key, 3)
    momentum = _noise(momentum_key, state.position)
    length = jax.random.randint(length_key, (), 1, num_steps + 1)
    there, momentum_there = leapfrog(log_prob, state, momentum, step_size, length)
    gain = _kinetic(momentum) - _kinetic(momentum_there) + there.log_prob - state.log_prob
    return accept(random.uniform(accept_key, len(gain)), gain, there, state)

  return Kernel(init, step)


def mala(log_prob: Callable, step_size) -> Kernel:
  """Metropolis-adjusted Langevin: a trajectory of one leapfrog step (Roberts & Tweedie 1996).  57% accepted is best.

  Its proposal is x + step_size^2 / 2 * slope + step_size * noise.  Arguments as for `hmc`.
  """
  return hmc(log_prob, step_size, num_steps=1)


def unadjusted_langevin(score: Callable, step_size) -> Kernel:
  """Langevin steps that are never refused: x + step_size^2 / 2 * score(x) + step_size * noise.

  It needs the score alone and no density, and its law is not quite the target: the variance of a standard normal comes out as
  1 / (1 - step_size^2 / 4).

  Args:
    score: `(positions [C, ...]) -> [C, ...]`, the slope of the log density.
    step_size: a number, or one for each coordinate [...].
  """

  def step(key, state):
    x = state.position
    scale = _scale(step_size, x)
    return Position(x + scale**2 / 2 * score(x) + scale * _noise(key, x)), always(len(x))

  return Kernel(Position, step)


def start(log_prob: Callable, positions) -> State:
  """The state of chains at these positions."""
  values, pull = jax.vjp(log_prob, positions)
  return State(positions, values, pull(jnp.ones_like(values))[0])


def leapfrog(log_prob: Callable, state: State, momentum, step_size, num_steps):
  """Half a kick, then drift and kick in turn, and half a kick: (state, momentum [C, ...]) `num_steps` further on.

  It preserves volume, and with the momentum turned round it runs back to where it came from.
  """
  scale = _scale(step_size, state.position)

  def one(_, carry):
    state, momentum = carry
    momentum = momentum + scale / 2 * state.slope
    state = start(log_prob, state.position + scale * momentum)
    return state, momentum + scale / 2 * state.slope

  return jax.lax.fori_loop(0, num_steps, one, (state, momentum))


def _scale(step_size, positions):
  return jnp.broadcast_to(step_size, positions.shape[1:]).astype(positions.dtype)[None]


def _noise(key, positions):
  return random.normal(key, len(positions), positions.shape[1:], positions.dtype)


def _kinetic(momentum):
  return 0.5 * (momentum.reshape(len(momentum), -1) ** 2).sum(1)
