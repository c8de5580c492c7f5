"""Part of an image is known: the rest is drawn given it, and the true rest is scored given it.

    log p(hole | known) = sum over the hole of log p(x_d | known, the hole's variables before d)

exactly, where the known pixels come first in the order in which a model tells them (`in_order`: any model with conditionals,
tractable/sequential.py); and in orders at random with the known pixels first, where a model was trained in all of them
(`in_any_order`: MADE).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import images, random
from gm_jax.errors import UserError
from gm_jax.tractable import made
from gm_jax.tractable.sequential import Sequential

REGIONS = ("top", "bottom", "left", "right", "around", "scattered")


class Completion(NamedTuple):
  """How a model fills the holes of images; `known` is bool [H, W], the same for all of them.

  Attributes:
    complete: `(state, key, pictures uint8 [B, H, W, C], known) -> uint8 [B, H, W, C]`; image i depends on the key, on row i and
      on i alone, and what is not known of it is not looked at.
    log_prob: `(state, key, pictures, known) -> [B]`, nats of what is not known given what is.
  """

  complete: Callable
  log_prob: Callable


def in_order(sequential: Sequential) -> Completion:
  """By a model's own conditionals, one variable after another; UserError unless what is known comes first in its order."""

  def walk(state, key, pictures, known, draw):
    x = images.to_levels(jnp.asarray(pictures), sequential.levels).reshape(len(pictures), -1)
    return _walk(sequential, state, key, x, _num_known(sequential, state, known, pictures.shape), draw)

  def complete(state, key, pictures, known):
    x, _ = walk(state, key, pictures, known, True)
    drawn = images.from_levels(x, sequential.levels).reshape(pictures.shape)
    return jnp.where(_for_each(known, pictures), pictures, drawn)

  def log_prob(state, key, pictures, known):
    return walk(state, key, pictures, known, False)[1]

  return Completion(complete, log_prob)


def in_any_order(network, num_orders: int = 16) -> Completion:
  """By a MADE that was trained in any order; the likelihood is that of the mixture of so many orders at random."""

  @jax.jit
  def complete(state, key, pictures, known):
    return made.complete(network, state.average.variables, key, pictures, _for_each(known, pictures))

  @jax.jit
  def log_prob(state, key, pictures, known):
    score = lambda key: made.hole_log_prob(network, state.average.variables, key, pictures, _for_each(known, pictures))
    log_probs = jax.lax.map(score, jax.random.split(key, num_orders))  # [orders, B]
    return jax.nn.logsumexp(log_probs, axis=0) - jnp.log(num_orders)

  return Completion(complete, log_prob)


def region(name: str, shape: tuple) -> np.ndarray:
  """What is known of an image of `shape` (H, W), bool [H, W]: a half, all but the middle, or a quarter of the pixels."""
  row, column = (np.arange(size) for size in shape)
  row, column = np.broadcast_arrays(row[:, None], column[None])
  height, width = shape
  if name not in REGIONS:
    raise UserError(f"unknown region {name!r}; there are: {', '.join(REGIONS)}")
  return {
    "top": lambda: row < height // 2,
    "bottom": lambda: row >= height // 2,
    "left": lambda: column < width // 2,
    "right": lambda: column >= width // 2,
    "around": lambda: (abs(row - (height - 1) / 2) >= height / 4) | (abs(column - (width - 1) / 2) >= width / 4),
    "scattered": lambda: np.random.default_rng(0).random(shape) < 0.25,
  }[name]()


def several(completion: Completion, state, seed: int, pictures, known, num: int) -> np.ndarray:
  """`num` completions of each image: uint8 [num, B, H, W, C]."""
  keys = [jax.random.fold_in(jax.random.key(seed), index) for index in range(num)]
  return np.stack([np.asarray(completion.complete(state, key, pictures, known)) for key in keys])


def sheet(pictures, known, completions) -> np.ndarray:
  """A picture: the images, below each what is known of it on grey, and below that its completions [K, B, H, W, C]."""
  pictures = np.asarray(pictures)
  lines = [pictures, np.where(known[None, :, :, None], pictures, 128).astype(np.uint8), *completions]
  return images.grid(np.concatenate(lines), columns=len(pictures))


def _num_known(sequential: Sequential, state, known, shape) -> int:
  """How many variables are known, if they are the first in the model's order."""
  order = np.asarray(sequential.prepare(state)[0])
  told = np.broadcast_to(known[:, :, None], shape[1:]).reshape(-1)[order]
  num_known = int(told.sum())
  if not told[:num_known].all():
    raise UserError(
      "what is known must be what the model tells first (top, for models in raster order); "
      "other holes take a model that was trained in any order, such as made_digits"
    )
  return num_known


@partial(jax.jit, static_argnums=(0, 5))
def _walk(sequential: Sequential, state, key, x, num_known, draw: bool):
  """Through all variables in order: x [B, D], drawn from the `num_known`-th on if `draw`, and log p [B] of those."""
  order, given = sequential.prepare(state)

  def step(carry, t):
    x, memory, total = carry
    log_probs, memory = sequential.look(given, memory, x, t)
    value = x[:, order[t]]
    if draw:
      drawn = random.categorical(jax.random.fold_in(key, t), log_probs).astype(x.dtype)
      value = jnp.where(t < num_known, value, drawn)
    log_prob = jnp.take_along_axis(log_probs, value[:, None], axis=1)[:, 0]
    return (x.at[:, order[t]].set(value), memory, total + jnp.where(t < num_known, 0, log_prob)), None

  start = x, sequential.begin(given, jnp.zeros_like(x)), jnp.zeros(len(x))
  (x, _, total), _ = jax.lax.scan(step, start, jnp.arange(x.shape[1]))
  return x, total


def _for_each(known, pictures):
  """The same holes in every image and channel, bool [B, H, W, C]."""
  return jnp.broadcast_to(known[None, :, :, None], pictures.shape)
