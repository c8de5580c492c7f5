"""Gibbs sampling: draw one part of x given all the rest, then another (Geman & Geman 1984).  Nothing is ever refused."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax import random
from gm_jax.markov_chain.chain import Kernel, Position, always


def gibbs(conditional: Callable, order: Callable) -> Kernel:
  """Discrete variables, one at a time; a step is a sweep over as many as `order` names.

  Args:
    conditional: `(x [C, ...], index []) -> logits [C, K]` of p(x_index | all others), up to a constant; `index` counts the
      entries of one example in row-major order.  What the logits say must not depend on x_index.
    order: `(key) -> indices [n]`, which variables a sweep draws, the same in all chains: `in_order(D)`, `in_random_order(D)`.
      Those that it never names stay as they are: what is drawn is the rest given them, an image completed.
  """

  def step(key, state):
    order_key, draw_key = jax.random.split(key)
    indices = order(order_key)

    def draw(x, turn):
      number, index = turn
      levels = random.categorical(jax.random.fold_in(draw_key, number), conditional(x, index))
      return put(x, index, levels), None

    x, _ = jax.lax.scan(draw, state.position, (jnp.arange(len(indices)), indices))
    return Position(x), always(len(x))

  return Kernel(Position, step)


def in_order(num_variables: int) -> Callable:
  """Every variable once, in row-major order."""
  return lambda key: jnp.arange(num_variables)


def in_random_order(num_variables: int) -> Callable:
  """As many draws as there are variables, each of a variable chosen at random: the sweep that is reversible."""
  return lambda key: jax.random.randint(key, (num_variables,), 0, num_variables)


def conditional_of(log_prob: Callable, num_levels: int) -> Callable:
  """The conditional of any density of variables in {0, ..., K - 1}, by trying every level: K evaluations of the whole x.

  Args:
    log_prob: `(x integers [C, ...]) -> nats [C]`, up to a constant.
    num_levels: K.
  """

  def conditional(x, index):
    tried = lambda level: log_prob(put(x, index, jnp.full(len(x), level)))
    return jax.lax.map(tried, jnp.arange(num_levels)).T

  return conditional


def block_gibbs(*blocks: Callable) -> Kernel:
  """Parts of any kind, in turn: each block is `(key, position) -> position` and draws its part given all others.

  A position is any tree of arrays with leading axes C.
  """

  def step(key, state):
    position = state.position
    for number, block in enumerate(blocks):
      position = block(jax.random.fold_in(key, number), position)
    return Position(position), always(len(jax.tree.leaves(position)[0]))

  return Kernel(Position, step)


def mixture_gibbs(log_joint: Callable, sample: Callable) -> Kernel:
  """A mixture: which component made x, then another x of that component.  Positions are pairs (which int32 [C], x [C, ...]).

  A lesson in mixing rather than a use: components that do not overlap are never left.

  Args:
    log_joint: `(x) -> log p(x, k)` [C, K], up to a constant.
    sample: `(key, which [C]) -> x [C, ...]` from p(x | which).
  """

  def draw_which(key, position):
    _, x = position
    return random.categorical(key, log_joint(x)).astype(position[0].dtype), x

  def draw_x(key, position):
    which, _ = position
    return which, sample(key, which)

  return block_gibbs(draw_which, draw_x)


def put(x, index, levels):
  """x [C, ...] with entry `index` of each example, in row-major order, set to `levels` [C]."""
  return jnp.asarray(x).reshape(len(x), -1).at[:, index].set(levels.astype(x.dtype)).reshape(x.shape)
