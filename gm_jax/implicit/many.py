"""Many seeds at once: N models trained in one compiled program.

    model = many(gan.gan(...), 10)
    state = model.init(key, batch)                 # every leaf has a leading axis of 10
    one = pick(state, 3)                           # the state of seed 3, for the single model
    model = as_one(gan.gan(...), 10)               # the same, as one model that the training loop and the commands can run

Model i of `many` is the single model given `fold_in(key, i)` wherever `many` is given `key`: what ten runs would compute, and
the same whatever N is.  Results of a game differ by seed more than by most choices; so report the mean and the deviation.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax.core import GenerativeModel, Metrics
from gm_jax.errors import UserError
from gm_jax.implicit.gan import State


def mean_and_std(metrics: Metrics) -> Metrics:
  """{name: [N]} -> {name: mean over seeds, name_std: their standard deviation}, scalars that a training loop can print."""
  stacked = jnp.stack([*metrics.values()], 1)  # [N, M]: where seeds are cut over devices, these meet once for all metrics
  mean, std = dict(zip(metrics, stacked.mean(0))), dict(zip(metrics, stacked.std(0)))
  return mean | {f"{name}_std": value for name, value in std.items()}


def many(
  model: GenerativeModel, num: int, *, batch_axis: int | None = None, report: Callable = lambda metrics: metrics
) -> GenerativeModel:
  """`num` models in one: states, metrics, samples [num, n, H, W, C] and scores {name: [num, B]} have an axis of seeds in front.

  Args:
    model: any.
    num: how many.
    batch_axis: None if all see the same batch; 0 if every entry of a batch is [num, B, ...], one for each.
    report: what a step tells of its metrics {name: [num]}: all of them, or say `mean_and_std`.  Where the metrics of
      models on several devices meet, the devices wait for one another in every step.
  """

  def over(function, *axes):
    return jax.vmap(function, (0, *axes), axis_size=num)

  def seeds(key):
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(num))

  def init(key, batch):
    return over(model.init, batch_axis)(seeds(key), batch)

  def step(key, state, batch):
    def one(key, state, turn, batch):
      return model.step(key, _at(state, turn), batch)

    state, metrics = over(one, 0, None, batch_axis)(seeds(key), state, _turn(state), batch)
    return state, report(metrics)

  def sample(key, state, num_images, condition=None):
    return over(lambda key, state: model.sample(key, state, num_images, condition), 0)(seeds(key), state)

  def evaluate(key, state, batch):
    return over(model.evaluate, 0, batch_axis)(seeds(key), state, batch)

  return GenerativeModel(init, step, sample, evaluate)


def as_one(model: GenerativeModel, num: int) -> GenerativeModel:
  """`num` models behind the interface of one: what a training loop feeds, and what commands draw from and score.

  Each model learns from data of its own: of a batch [num * B, ...], model i has the rows i, i + num, ..., so that a batch that
  is cut over devices is dealt out as a whole one is.  `sample` draws from the first model alone: samples of all, mixed, would
  have the modes that each of them has lost.  `evaluate` averages what the models say of the same examples, {name: [B]}.
  """
  apart, together = many(model, num, batch_axis=0, report=mean_and_std), many(model, num)

  def deal(batch):
    return {name: _dealt(rows, num) for name, rows in batch.items()}

  def init(key, batch):
    return apart.init(key, deal(batch))

  def step(key, state, batch):
    return apart.step(key, state, deal(batch))

  def sample(key, state, num_images, condition=None):
    return model.sample(jax.random.fold_in(key, 0), pick(state, 0), num_images, condition)

  def evaluate(key, state, batch):
    return {name: values.mean(0) for name, values in together.evaluate(key, state, batch).items()}

  return GenerativeModel(init, step, sample, evaluate)


def _dealt(rows, num: int):
  """[num * B, ...] -> [num, B, ...]."""
  if len(rows) % num:
    raise UserError(f"a batch of {len(rows)} cannot be dealt out to {num} models; take a multiple of {num}")
  return jnp.swapaxes(jnp.asarray(rows).reshape(len(rows) // num, num, *rows.shape[1:]), 0, 1)


def pick(state, index: int):
  """The state of one seed."""
  return jax.tree.map(lambda leaf: leaf[index], state)


def _turn(state):
  # All seeds are at the same turn: with one number for it, who plays is a branch; with one each, both would be computed.
  return state.turn[0] if isinstance(state, State) else None


def _at(state, turn):
  return state if turn is None else state._replace(turn=turn)
