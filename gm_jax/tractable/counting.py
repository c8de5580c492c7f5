"""Bayesian networks over pixels, learnt by counting: how often was this pixel on, when its neighbours were so?

    p(x) = prod_d p(x_d | x_parents(d))

Given the graph, maximum likelihood is closed form: each conditional probability is a ratio of counts.  What remains is the
context that training showed once or never.  There the counts are backed off to what is known with fewer parents (Jelinek &
Mercer 1980; the form with a constant weight is a Dirichlet prior centred on the lower order):

    p_k(v | context of k parents) = (count(v, context) + weight * p_j(v | its first j parents)) / (count(context) + weight)

down to the pixel's own frequencies, to whose counts one of each level is added (Laplace).  So nothing has probability zero, and
a pixel never seen on costs a finite number of nats.

The graph is a list of parents per variable, the most telling first.  Variables are the pixels and channels in raster order,
channels last, and a parent comes before its child: a list that satisfies this has no cycle.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import images, random
from gm_jax.core import GenerativeModel, global_sum

Parents = Sequence[Sequence[int]]


class State(NamedTuple):
  """How often each variable had each level in each context, levels of its parents that is.

  Each step adds its batch; counts[d].sum() is the number of examples so far.
  """

  counts: jax.Array  # int32 [H, W, C, contexts, levels]


class Tables(NamedTuple):
  """A network ready for use: D variables of up to L levels with up to P parents each.

  A context is a number: sum_j x[parents[d, j]] * strides[d, j]; the stride of a parent that is not there is 0.
  """

  order: jax.Array  # int32 [D], parents before children
  parents: jax.Array  # int32 [D, P]
  strides: jax.Array  # int32 [D, P]
  log_probs: jax.Array  # [D, L^P, L]


def factorised(shape: tuple) -> list[tuple]:
  """No parents: every pixel on its own."""
  return [()] * math.prod(shape)


def markov_chain(shape: tuple) -> list[tuple]:
  """Each variable knows the one before it, in raster order."""
  return [(), *((index - 1,) for index in range(1, math.prod(shape)))]


# Rows and columns from a pixel to those above and to the left of it, nearest first.
NEIGHBOURS = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, -2), (-1, 2), (-2, -1), (-2, 1))


def neighbourhood(shape: tuple, num_parents: int) -> list[tuple]:
  """The nearest `num_parents` causal neighbours in the same channel, after the pixel's channels that come before.

  Pixels at the border have those of them that lie inside.
  """
  height, width, channels = shape
  if not 0 <= num_parents <= len(NEIGHBOURS):
    raise ValueError(f"{num_parents} parents; take a number from 0 to {len(NEIGHBOURS)}")
  inside = lambda row, column: 0 <= row < height and 0 <= column < width
  parents = []
  for row, column, channel in np.ndindex(*shape):
    at = lambda i, j, k: int(np.ravel_multi_index((i, j, k), shape))
    same_pixel = [at(row, column, earlier) for earlier in range(channel)]
    around = [(row + down, column + right) for down, right in NEIGHBOURS[:num_parents]]
    parents.append((*same_pixel, *(at(i, j, channel) for i, j in around if inside(i, j))))
  return parents


def complete(shape: tuple) -> list[tuple]:
  """Every variable knows all before it: the table of the whole joint, for images as small as 3 x 3."""
  return [tuple(range(index)) for index in range(math.prod(shape))]


def num_parameters(parents: Parents, levels: int | Sequence[int]) -> int:
  """Free numbers in the tables: sum_d (L_d - 1) * product of the parents' levels."""
  levels = _levels_of(parents, levels)
  return sum((levels[index] - 1) * math.prod(levels[parent] for parent in known) for index, known in enumerate(parents))


def counted(
  parents: Parents, levels: int | Sequence[int] = 2, *, weight: float = 1.0, back_off: Sequence[int] = ()
) -> GenerativeModel:
  """The network with these parents, learnt by counting; once over the data set is all there is to learn.

  The nll is of the image at so many levels: of the uint8 image itself at 256, of the binary one at 2.  A step's "nll" is of
  its batch once it has been counted.

  Args:
    parents: for each variable in raster order its parents, most telling first: `factorised(shape)`, `markov_chain(shape)`,
      `neighbourhood(shape, num)`, `complete(shape)` or your own.
    levels: of every variable, or one number for each; images are read to the nearest level of the largest (images.to_levels).
    weight: of the lower order, in examples; above 0.
    back_off: numbers of parents at which to stop between none and all, increasing; () backs off to none at once.
  """
  parents = [tuple(known) for known in parents]
  levels = _levels_of(parents, levels)
  base, most = max(levels), max(map(len, parents))
  tables = lambda state: fit(parents, state, levels=levels, weight=weight, back_off=back_off)
  for index, known in enumerate(parents):
    if not all(0 <= parent < index for parent in known):
      raise ValueError(f"variable {index} has parents {known}; they must come before it")
  if base**most * len(parents) > 2**28:
    raise ValueError(f"{len(parents)} tables of {base}^{most} contexts; take fewer parents or levels")
  if not weight > 0:
    raise ValueError(f"weight must be above 0, not {weight}: without it a context never seen has no probabilities")
  if list(back_off) != sorted(set(back_off)) or not all(0 < order < most for order in back_off):
    raise ValueError(f"back_off {tuple(back_off)}; take increasing numbers between 0 and {most}, the most parents")

  indices, strides = _layout(parents, base)

  def read(batch):
    return images.to_levels(batch["image"], base).reshape(len(batch["image"]), -1)

  def init(key, batch):
    del key
    shape = batch["image"].shape[1:]
    if math.prod(shape) != len(parents):
      raise ValueError(f"{len(parents)} lists of parents for images {shape}, which have {math.prod(shape)} variables")
    return State(jnp.zeros((*shape, base**most, base), jnp.int32))

  def step(key, state, batch):
    del key
    x = read(batch)
    cells = ((jnp.arange(len(parents))[None] * base**most) + contexts(x, indices, strides)) * base + x
    new = global_sum(jnp.zeros(state.counts.size, jnp.int32).at[cells].add(1, mode="promise_in_bounds"))
    state = State(state.counts + new.reshape(state.counts.shape))
    # An average over the whole batch without a second pass: what was counted says how often each probability is used.
    uses = new.reshape(-1, base**most, base)
    log_probs = jnp.where(uses > 0, tables(state).log_probs, 0)
    return state, {"nll": -(uses * log_probs).sum() / uses[0].sum()}

  def sample(key, state, num, condition=None):
    del condition
    x = ancestral(key, tables(state), num)
    return images.from_levels(x.reshape(num, *state.counts.shape[:3]), base)

  def evaluate(key, state, batch):
    del key
    return {"nll": -log_prob(tables(state), read(batch))}

  return GenerativeModel(init, step, sample, evaluate)


def fit(
  parents: Parents, state: State, *, levels: int | Sequence[int] = 2, weight: float = 1.0, back_off: Sequence[int] = ()
) -> Tables:
  """The tables of a network with these parents, from the counts; arguments as for `counted`."""
  levels, base = _levels_of(parents, levels), state.counts.shape[-1]
  counts = state.counts.reshape(len(parents), -1, base)
  indices, strides = _layout(parents, base)
  sizes = jnp.array([len(known) for known in parents])

  there = jnp.arange(base)[None] < jnp.array(levels)[:, None]  # [D, L]
  single = counts.sum(1) + there
  probs = (single / single.sum(1, keepdims=True))[:, None]  # [D, 1, L]
  for order in (*back_off, indices.shape[1]):
    seen = counts.reshape(len(parents), base**order, -1, base).sum(2)
    lower = probs.repeat(base**order // probs.shape[1], 1)
    # Who has no more parents than an order before the last, or none at all, is done there with the last.
    applies = sizes > (order if order < indices.shape[1] else 0)
    probs = jnp.where(applies[:, None, None], (seen + weight * lower) / (seen.sum(2, keepdims=True) + weight), lower)
  return Tables(jnp.arange(len(parents)), jnp.array(indices), jnp.array(strides), jnp.log(probs))


def contexts(x, parents, strides):
  """Which context each variable is in: x int32 [B, D] -> int32 [B, D]."""
  code = jnp.zeros_like(x)
  for place in range(parents.shape[1]):
    code += x[:, parents[:, place]] * strides[None, :, place]
  return code


def log_prob(tables: Tables, x):
  """log p(x), x int32 [B, D] -> [B]."""
  variables = jnp.arange(x.shape[1])[None]
  return tables.log_probs.at[variables, contexts(x, tables.parents, tables.strides), x].get(mode="promise_in_bounds").sum(1)


def conditional(tables: Tables, x, variable):
  """log p(x_variable = v | its parents) for each level v: x int32 [B, D] -> [B, L]."""
  context = (x[:, tables.parents[variable]] * tables.strides[variable][None]).sum(1)
  return tables.log_probs[variable, context]


def ancestral(key, tables: Tables, num: int):
  """Draws, one variable after another and parents first: int32 [num, D]."""

  def draw(x, variable):
    logits = conditional(tables, x, variable)
    return x.at[:, variable].set(random.categorical(jax.random.fold_in(key, variable), logits)), None

  return jax.lax.scan(draw, jnp.zeros((num, len(tables.order)), jnp.int32), tables.order)[0]


def full_conditional(tables: Tables, parents: Parents):
  """What a Gibbs sampler draws from: `(x int32 [B, D], variable) -> log p(x_variable = v | all others) + a constant, [B, L]`.

  Only the variable's own table and those of its children are read (its Markov blanket).
  """
  children = [[child for child, known in enumerate(parents) if index in known] for index in range(len(parents))]
  most = max(map(len, children))
  family = jnp.array([[index, *theirs, *[-1] * (most - len(theirs))] for index, theirs in enumerate(children)])  # [D, 1 + most]

  def conditional(x, variable):
    members = family[variable]

    def with_level(level):
      changed = x.at[:, variable].set(level)
      context = (changed[:, tables.parents[members]] * tables.strides[members][None]).sum(2)  # [B, 1 + most]
      terms = tables.log_probs[members[None], context, changed[:, members]]
      return jnp.where(members[None] >= 0, terms, 0).sum(1)

    return jax.vmap(with_level, out_axes=1)(jnp.arange(tables.log_probs.shape[2]))

  return conditional


def _layout(parents: Parents, base: int):
  """Parents and strides [D, P] as numbers; the first parent is the most significant digit of a context, so that contexts with
  equal first parents lie side by side."""
  most = max(map(len, parents))
  fill = lambda rows: np.array([[*row, *[0] * (most - len(row))] for row in rows], np.int32).reshape(len(parents), most)
  digits = [base**place for place in range(most - 1, -1, -1)]
  return fill(parents), fill([digits[: len(known)] for known in parents])


def _levels_of(parents, levels) -> list[int]:
  levels = [levels] * len(parents) if isinstance(levels, int) else list(levels)
  if len(levels) != len(parents) or min(levels) < 1:
    raise ValueError(f"levels {levels}; take a positive number, or one for each of {len(parents)} variables")
  return levels
