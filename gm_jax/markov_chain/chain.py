"""What a Markov chain is, how many of them are run at once, and what their draws are worth."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gm_jax import random
from gm_jax.markov_chain import diagnostics


class Kernel(NamedTuple):
  """One way to step, as two pure functions.  Chain i of every draw depends on the key and on i alone.

  Attributes:
    init: `(positions [C, ...]) -> state`, a NamedTuple whose `position` are the positions; what else it holds saves work.
    step: `(key, state) -> (state, Info)`.
  """

  init: Callable
  step: Callable


class Info(NamedTuple):
  """What one step did: a report, not memory."""

  acceptance: jax.Array  # [C], the probability with which the proposal was to be accepted
  accepted: jax.Array  # bool [C]; of kernels that refuse nothing, all True


class Position(NamedTuple):
  """The state of a kernel that remembers nothing else."""

  position: Any


class Summary(NamedTuple):
  """What the draws say, for each number in a position: [...] each, in the position's own structure."""

  mean: Any
  deviation: Any
  stderr: Any  # of the mean: deviation / sqrt(effective samples)
  effective_samples: Any  # how many independent draws would know the mean as well
  r_hat: Any  # about 1 where the chains agree; see `diagnostics.split_r_hat`
  acceptance: jax.Array  # [], mean over chains and steps


class Run(NamedTuple):
  """The draws of many chains."""

  positions: Any  # [S, C, ...], after every `thin`-th step
  state: Any  # after the last step
  acceptance: jax.Array  # [C], mean over steps

  def summary(self) -> Summary:
    """Moments of the draws, over all chains, with their effective sample size and R-hat.  For 4 draws a chain or more."""
    draws = jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(leaf, jnp.float32)), self.positions)
    each = lambda function: jax.tree.map(function, draws)
    effective = each(diagnostics.effective_sample_size)
    deviation = each(lambda leaf: leaf.std((0, 1)))
    stderr = jax.tree.map(lambda spread, count: spread / jnp.sqrt(count), deviation, effective)
    mean, r_hat = each(lambda leaf: leaf.mean((0, 1))), each(diagnostics.split_r_hat)
    return Summary(mean, deviation, stderr, effective, r_hat, self.acceptance.mean())


def run(kernel: Kernel, key, positions, num_steps: int, thin: int = 1) -> Run:
  """`num_steps` steps of each chain.

  Args:
    kernel: how to step.
    key: of the whole run; step i uses `fold_in(key, i)`.
    positions: where the chains start, [C, ...], an array or whatever tree of arrays the kernel steps.
    num_steps: of each chain, those that are not kept included.
    thin: keep one position in so many, for memory's sake; it must divide `num_steps`.
  """
  if thin < 1 or num_steps % thin:
    raise ValueError(f"thin must divide num_steps = {num_steps}, and {thin} does not")

  def step(carry, index):
    state, total = carry
    state, info = kernel.step(jax.random.fold_in(key, index), state)
    return (state, total + info.acceptance.astype(total.dtype)), None

  def keep(carry, first):
    carry, _ = jax.lax.scan(step, carry, first + jnp.arange(thin))
    return carry, carry[0].position

  num_chains = len(jax.tree.leaves(positions)[0])
  start = kernel.init(positions), jnp.zeros(num_chains)
  (state, total), kept = jax.lax.scan(keep, start, thin * jnp.arange(num_steps // thin))
  return Run(kept, state, total / max(num_steps, 1))


def each_chain(algorithm, acceptance: Callable = lambda info: info.acceptance_rate) -> Kernel:
  """Many chains of an algorithm written for one, such as those of blackjax: `each_chain(blackjax.nuts(log_prob, 0.1, mass))`.

  Args:
    algorithm: has `init(position [...]) -> state`, with a field `position`, and `step(key, state) -> (state, info)`.
    acceptance: `(info) -> []`, the acceptance probability to report.
  """

  def step(key, state):
    num_chains = len(jax.tree.leaves(state)[0])
    state, info = jax.vmap(algorithm.step)(random.keys(key, num_chains), state)
    return state, always(num_chains)._replace(acceptance=jax.vmap(acceptance)(info))

  return Kernel(jax.vmap(algorithm.init), step)


def accept(uniform, log_ratio, proposed, current):
  """Metropolis's rule, chain by chain: take `proposed` with probability min(1, exp(log_ratio)), else stay; (state, Info).

  Args:
    uniform: draws in [0, 1), [C].
    log_ratio: of the densities there and here, and of the ways back and there, [C].  NaN refuses, so that a trajectory that
      has left all reason is one more refusal.
    proposed: the state there, leaves [C, ...].
    current: the state here.
  """
  acceptance = jnp.where(jnp.isnan(log_ratio), 0.0, jnp.exp(jnp.minimum(log_ratio, 0.0)))
  accepted = uniform < acceptance
  choose = lambda there, here: jnp.where(accepted.reshape(-1, *[1] * (there.ndim - 1)), there, here)
  return jax.tree.map(choose, proposed, current), Info(acceptance, accepted)


def always(num_chains: int) -> Info:
  """The report of a step that refuses nothing."""
  return Info(jnp.ones(num_chains), jnp.ones(num_chains, bool))
