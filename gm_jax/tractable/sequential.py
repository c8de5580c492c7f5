"""One variable after another: what a model says of the next one, once those before it are known.

    log p(x) = sum_t log p(x_order[t] | x_order[0], ..., x_order[t-1])

`evaluate` gives the sum for a whole image at once.  Whoever has the beginning of an image only, as the decoder of a compressed
file has, needs the terms one at a time and for every level that the variable could take:

    order, given = model.prepare(state)                               # once
    memory = model.begin(given, x)                                    # once for each batch, x of zeros
    log_probs, memory = model.look(given, memory, x, t)               # for t = 0, 1, ...; then x[:, order[t]] is filled in

Variables are the pixels and channels in raster order, channels last, and their levels are those of images.to_levels.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid

from gm_jax import images
from gm_jax.core import State
from gm_jax.networks.causal import Scan, whole_passes
from gm_jax.networks.masked import Degrees, MaskedMLP, order_of
from gm_jax.tractable import counting
from gm_jax.tractable.autoregressive import Output
from gm_jax.tractable.flat import Steps


class Sequential(NamedTuple):
  """A model's conditionals, for D variables of L levels each.

  Attributes:
    levels: L.
    prepare: `state -> (order int32 [D], given)`; `given` is whatever of the state the others need, as arrays.
    begin: `(given, x int32 [B, D]) -> memory`.
    look: `(given, memory, x, t) -> (log-probabilities of x[:, order[t]] [B, L], memory)`, for t = 0, 1, ..., none left out.  Of
      x only x[:, order[:t]] is looked at.
  """

  levels: int
  prepare: Callable
  begin: Callable
  look: Callable


def tables(fit: Callable, levels: int = 2) -> Sequential:
  """Of a Bayesian network: its tables are looked up.

  Args:
    fit: `state -> counting.Tables`, `counting.fit` or `chow_liu.fit` with all arguments but the state.
    levels: of the variable that has most.
  """

  def prepare(state):
    fitted = fit(state)
    return fitted.order, fitted

  def look(tables, memory, x, t):
    return counting.conditional(tables, x, tables.order[t]), memory

  return Sequential(levels, prepare, lambda tables, x: (), look)


def bernoulli_mixture(fit: Callable) -> Sequential:
  """Of a mixture of Bernoullis: what each component says, weighted by how well it has done so far, which is Bayes' rule.

  `fit`: `state -> (log weights [K], logits [K, D])`, `mixture.fit` with all arguments but the state.
  """

  def prepare(state):
    log_weights, logits = fit(state)
    return jnp.arange(logits.shape[1]), (log_weights, logits)

  def begin(given, x):
    return given[0][None].repeat(len(x), 0)

  def look(given, log_posterior, x, t):
    logits, last = given[1], jnp.maximum(t - 1, 0)
    seen = jnp.where(x[:, last, None] == 1, log_sigmoid(logits[None, :, last]), log_sigmoid(-logits[None, :, last]))  # [B, K]
    log_posterior += jnp.where(t > 0, seen, 0)
    log_posterior -= log_posterior.max(1, keepdims=True)
    levels = jax.nn.sigmoid(jnp.stack([-logits[:, t], logits[:, t]], 1))  # [K, 2]
    mass = jnp.exp(log_posterior) @ levels
    return jnp.log(mass / mass.sum(1, keepdims=True)), log_posterior

  return Sequential(2, prepare, begin, look)


def network(network, output: Output, image_shape: tuple, scan: Scan | None = None) -> Sequential:
  """Of a causal network without labels: a step of its scan for each variable; arguments as for `autoregressive`."""
  scan = scan or whole_passes()
  height, width, channels = image_shape

  def prepare(state: State):
    return jnp.arange(height * width * channels), state.average.variables

  def pictures(x):
    return images.from_levels(x.reshape(-1, *image_shape), output.levels)

  def begin(variables, x):
    return scan.begin(network, variables, output.read(pictures(x)), None)

  def look(variables, memory, x, t):
    row, column, channel = t // (width * channels), t // channels % width, t % channels
    known = pictures(x)
    seen = output.read(known)
    new_row = lambda memory: scan.row(network, variables, memory, seen, None, row)
    memory = jax.lax.cond(t % (width * channels) == 0, new_row, lambda memory: memory, memory)
    outputs, memory = scan.pixel(network, variables, memory, seen, None, row, column)
    return output.conditional(outputs, known[:, row, column], channel), memory

  return Sequential(output.levels, prepare, begin, look)


def flat(network, image_shape: tuple) -> Sequential:
  """Of a network that is shown one pixel of black and white images after another: `network.steps(num)` is a flat.Steps."""
  return _shown(network, jnp.arange(math.prod(image_shape)), lambda network, num: network.steps(num))


def masked(network: MaskedMLP, degrees: Degrees) -> Sequential:
  """Of a MADE in one order, `degrees`.  The mean over several orders has none: each would need pixels that another has yet to
  tell."""

  def steps(network, num):
    each = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[None], (num, *leaf.shape)), degrees)
    return Steps(network.begin(num), network.output, lambda memory, *pixel: network.see(memory, each, *pixel))

  return _shown(network, order_of(degrees), steps)


def _shown(network, order, steps: Callable) -> Sequential:
  """`steps`: `(bound network, num) -> flat.Steps`."""

  def prepare(state: State):
    return order, (order, state.average.variables)

  def begin(given, x):
    return nn.apply(lambda network: steps(network, len(x)).memory, network)(given[1])

  def one(network, order, memory, x, t):
    now, pixel = steps(network, len(x)), lambda t: jnp.broadcast_to(order[t], len(x))
    last = jnp.maximum(t - 1, 0)
    seen = now.see(memory, pixel(last), x[:, order[last]].astype(jnp.float32))
    memory = jax.tree.map(lambda new, old: jnp.where(t > 0, new, old), seen, memory)
    logit = now.logit(memory, pixel(t))
    return log_sigmoid(jnp.stack([-logit, logit], 1)), memory

  def look(given, memory, x, t):
    return nn.apply(one, network)(given[1], given[0], memory, x, t)

  return Sequential(2, prepare, begin, look)
