"""The best tree: each pixel knows one other, and the pairs are chosen by how much they tell of each other.

Of all Bayesian networks in which nobody has more than one parent, the likeliest is a maximum spanning tree of the pairwise
mutual informations (Chow & Liu 1968, https://doi.org/10.1109/TIT.1968.1054142): the log-likelihood per example of a tree is

    sum over its edges of I(x_a; x_b)  -  sum_d H(x_d)

and only the first sum depends on the tree.  So learning is to count pairs; tree and tables are read off the counts.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax import images
from gm_jax.core import GenerativeModel, global_sum
from gm_jax.tractable.counting import Tables, ancestral, log_prob


class State(NamedTuple):
  """How often each pair of levels was seen in each pair of variables."""

  pairs: jax.Array  # int32 [H, W, C, L, D, L]


def chow_liu(levels: int = 2, *, weight: float = 1.0) -> GenerativeModel:
  """The Chow-Liu tree of images at so many levels, rooted at the first pixel.

  Tables are smoothed as in counting.py: one of each level is added to a pixel's own counts, and `weight` examples of those
  frequencies to each context.
  """
  if levels < 2 or not weight > 0:
    raise ValueError(f"levels {levels}, weight {weight}; at least 2 levels and a weight above 0 are needed")

  def read(batch):
    return images.to_levels(batch["image"], levels).reshape(len(batch["image"]), -1)

  def init(key, batch):
    del key
    shape = batch["image"].shape[1:]
    return State(jnp.zeros((*shape, levels, math.prod(shape), levels), jnp.int32))

  def step(key, state, batch):
    del key
    x = read(batch)
    seen = jax.nn.one_hot(x, levels).reshape(len(x), -1)  # [B, D * L]
    pairs = global_sum((seen.T @ seen).astype(jnp.int32))  # exact: float32 counts to 2^24
    state = State(state.pairs + pairs.reshape(state.pairs.shape))
    return state, {"nll": global_sum(-log_prob(fit(state, weight), x).sum()) / global_sum(len(x))}

  def sample(key, state, num, condition=None):
    del condition
    return images.from_levels(ancestral(key, fit(state, weight), num).reshape(num, *state.pairs.shape[:3]), levels)

  def evaluate(key, state, batch):
    del key
    return {"nll": -log_prob(fit(state, weight), read(batch))}

  return GenerativeModel(init, step, sample, evaluate)


def fit(state: State, weight: float = 1.0) -> Tables:
  """The tree and its tables; `weight` as for `chow_liu`."""
  *_, num, levels = state.pairs.shape
  pairs = state.pairs.reshape(num, levels, num, levels)
  order, parents = spanning_tree(mutual_information(pairs))
  variables = jnp.arange(num)
  single = pairs[variables, :, variables, :].diagonal(axis1=1, axis2=2) + 1  # [D, L]
  marginal = single / single.sum(1, keepdims=True)
  seen = jnp.moveaxis(pairs, 2, 1)[parents, variables]  # [D, L of the parent, L]
  probs = (seen + weight * marginal[:, None]) / (seen.sum(2, keepdims=True) + weight)
  is_root = (variables == order[0])[:, None]
  probs = jnp.where(is_root[..., None], marginal[:, None], probs)
  return Tables(order, parents[:, None], jnp.where(is_root, 0, 1).astype(jnp.int32), jnp.log(probs))


def mutual_information(pairs):
  """I(x_a; x_b) in nats of every two variables: counts [D, L, D, L] -> [D, D]."""
  num, levels = pairs.shape[:2]
  total = jnp.maximum(pairs[0, :, 0].sum(), 1)
  joint = pairs / total
  variables = jnp.arange(num)
  single = joint[variables, :, variables, :].diagonal(axis1=1, axis2=2)  # [D, L]
  log = lambda p: jnp.log(jnp.where(p > 0, p, 1))
  ratio = log(joint) - log(single)[:, :, None, None] - log(single)[None, None]
  return (joint * ratio).sum((1, 3))


def spanning_tree(weights):
  """Prim's maximum spanning tree from variable 0: weights [D, D] -> (order [D], parents [D]); the root is its own parent."""
  weights, num = jnp.asarray(weights), len(weights)

  def add(carry, _):
    inside, best, parents = carry
    chosen = jnp.where(inside, -jnp.inf, best).argmax()
    inside = inside.at[chosen].set(True)
    closer = (weights[chosen] > best) & ~inside
    return (inside, jnp.where(closer, weights[chosen], best), jnp.where(closer, chosen, parents)), chosen

  root = jnp.zeros(num, bool).at[0].set(True)
  start = root, weights[0], jnp.zeros(num, jnp.int32)
  (_, _, parents), chosen = jax.lax.scan(add, start, None, num - 1)
  return jnp.concatenate([jnp.zeros(1, jnp.int32), chosen.astype(jnp.int32)]), parents.astype(jnp.int32)
