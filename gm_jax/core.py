"""The interface of gm_jax: a generative model is four pure functions over a state.  Read this file first.

    model = vae(network, optimizer)                          # any family: a GenerativeModel
    state = model.init(key, batch)                           # any pytree of arrays
    state, metrics = model.step(key, state, batch)           # one step of learning
    images = model.sample(key, state, num)                   # [num, H, W, C]
    scores = model.evaluate(key, state, batch)               # {name: [B]}, per example, never averaged

The *step* is the unit, not the loss: a VAE (one loss), a GAN (two players and a turn counter), EM (no gradient at all) and a
diffusion model differ inside their `step` and nowhere else, so one loop, one way to save and one set of tests serve them all.
The state is memory and nothing but memory: no functions, no random keys, no metrics.  It can be donated, sharded, saved and
compared.

A new loss is one function and one line:

    def objective(network, key, batch, train):               # network is bound: call its methods
      x = network(batch["image"], train)
      return losses, {"part": part}                          # each [B]; the mean is taken here, once

    model = from_objective(module, objective, sample, optimizer, reports="nll")

A new algorithm is a State, and a `step` written with `begin` and `descend`.

Batches are dicts: `{"image": uint8 [B, H, W, C], "label": int32 [B], ...}`; 2-D points are `{"image": float32 [B, 1, 1, 2]}`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.core import DenyList

from gm_jax import rows

Params = Any
Collections = dict[str, Any]
OptState = Any
Metrics = dict[str, jax.Array]


class GenerativeModel(NamedTuple):
  """Four pure functions.  `key` comes first and is required; the state is whatever pytree `init` returns.

  Attributes:
    init: `(key, batch) -> state`.  Uses the batch's shapes; EM and data-dependent starts use its values.
    step: `(key, state, batch) -> (state, metrics)`.  Metrics are scalars.
    sample: `(key, state, num, condition=None) -> images [num, H, W, C]`, uint8 for images, float32 for points; row i depends on
      the key and on i alone.  `condition` holds one entry per image, labels int32 [num] as a rule.
    evaluate: `(key, state, batch) -> {name: [B]}`.  Each family folder fixes the name it reports under ("nll", "nll_bound",
      "critic", "denoising", "reconstruction"); likelihoods are in nats per example.
  """

  init: Callable
  step: Callable
  sample: Callable
  evaluate: Callable


class Trainable(NamedTuple):
  """One player: what one optimiser owns."""

  params: Params
  stats: Collections  # every other flax collection: batch statistics, codebooks
  opt_state: OptState

  @property
  def variables(self) -> Collections:
    return {"params": self.params, **self.stats}


def run(module: nn.Module, function: Callable, variables: Collections, key, *args, train: bool):
  """`function(bound module, key, *args, train)`, and the collections it changed: `(result, stats)`.

  `key` is split once, here, into the function's own and the one that dropout layers draw from.
  """
  function_key, dropout_key = jax.random.split(key)
  # What layers sow is not memory, and `begin` has no place for it.
  bound = nn.apply(function, module, mutable=DenyList(("params", "intermediates")))
  return bound(variables, function_key, *args, train=train, rngs={"dropout": dropout_key})


def begin(module: nn.Module, objective: Callable, optimizer: optax.GradientTransformation, key, *args) -> Trainable:
  """A new player.  One run of its objective creates every parameter, so no dummy inputs are written anywhere."""
  params_key, dropout_key, objective_key = jax.random.split(key, 3)
  stats = dict(nn.init(objective, module)({"params": params_key, "dropout": dropout_key}, objective_key, *args, train=True))
  params = stats.pop("params", {})
  return Trainable(params, stats, optimizer.init(params))


def descend(
  module: nn.Module, objective: Callable, optimizer: optax.GradientTransformation, player: Trainable, key, *args
) -> tuple[Trainable, Metrics]:
  """One step of one player down its objective.

  `objective(bound module, key, *args, train) -> (losses [B], {name: [B]})`.  The mean over the batch is taken here and nowhere
  else.  Whatever else is in `args`, other players included, is held fixed.
  """

  def mean_loss(params):
    (losses, reports), stats = run(module, objective, {**player.stats, "params": params}, key, *args, train=True)
    return losses.mean(), (reports, stats)

  (loss, (reports, stats)), grads = jax.value_and_grad(mean_loss, has_aux=True)(player.params)
  grads, stats, loss = rows.mean((grads, dict(stats), loss))
  updates, opt_state = optimizer.update(grads, player.opt_state, player.params)
  player = Trainable(optax.apply_updates(player.params, updates), {**player.stats, **stats}, opt_state)
  return player, {"loss": loss, **rows.batch_mean(reports)}


def global_mean(tree):
  """Leaf by leaf: means over the rows in view -> means over the whole global batch.

  A `step` of your own passes whatever it averaged over its batch through here, so that it also runs where the batch is cut
  (`jax.pmap`); `descend` has done so already.
  """
  return rows.mean(tree)


def global_sum(tree):
  """Leaf by leaf: sums over the rows in view -> sums over the whole global batch: `global_mean` for what a `step` counts."""
  return rows.total(tree)


class Average(NamedTuple):
  """A moving average of a player's variables, which `sample` and `evaluate` read.

  Weights start recent and lengthen: after t updates the decay is min(decay, (1 + t) / (10 + t)), so that the start of training
  is forgotten at once and an average taken after a hundred steps is already a good one.
  """

  variables: Collections
  updates: jax.Array  # int32 []


def begin_average(player: Trainable) -> Average:
  # A copy, since the loop donates the state and no buffer may be in it twice.
  return Average(jax.tree.map(jnp.copy, player.variables), jnp.zeros((), jnp.int32))


def update_average(average: Average, player: Trainable, decay: float) -> Average:
  """Batch statistics are averaged with the parameters they belong to; integers (counters) are taken over as they are."""
  updates = average.updates
  step_size = 1 - jnp.minimum(decay, (1 + updates) / (10 + updates))
  blend = lambda new, old: old + (step_size * (new - old)).astype(old.dtype) if jnp.issubdtype(old.dtype, jnp.inexact) else new
  return Average(jax.tree.map(blend, player.variables, average.variables), updates + 1)


class State(NamedTuple):
  """The state of a model with one loss."""

  net: Trainable
  average: Average


def from_objective(
  module: nn.Module,
  objective: Callable,
  sample: Callable,
  optimizer: optax.GradientTransformation,
  *,
  reports: str,
  decay: float = 0.999,
) -> GenerativeModel:
  """The model that descends one objective.

  Args:
    module: a linen module; its methods are what `objective` and `sample` call.
    objective: `(bound module, key, batch, train) -> (losses [B], {name: [B]})`.
    sample: `(bound module, key, num, condition) -> images [num, H, W, C]`.
    optimizer: any optax transformation.
    reports: the name under which `evaluate` returns the objective.
    decay: of the average that `sample` and `evaluate` read.
  """

  def init(key, batch):
    net = begin(module, objective, optimizer, key, batch)
    return State(net, begin_average(net))

  def step(key, state, batch):
    net, metrics = descend(module, objective, optimizer, state.net, key, batch)
    return State(net, update_average(state.average, net, decay)), metrics

  def draw(key, state, num, condition=None):
    return nn.apply(sample, module)(state.average.variables, key, num, condition)

  def evaluate(key, state, batch):
    (losses, parts), _ = run(module, objective, state.average.variables, key, batch, train=False)
    return {reports: losses, **parts}

  return GenerativeModel(init, step, draw, evaluate)
