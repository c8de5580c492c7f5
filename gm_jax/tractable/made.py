"""MADE: an autoencoder whose masks let every pixel be told only from the pixels before it.

A masked network (networks/masked.py) gives all conditionals of one order in a single pass, at the cost of any other network
(Germain et al. 2015, https://arxiv.org/abs/1502.03509).  Which pixels come before which is an argument and no part of the
weights, so one network can be trained for many orders at once, `Orders`.  That buys two things:

- Ensembles.  The orders are different models of the same images, and K of them make a mixture,

      p(x) = 1 / K sum_k p_k(x),     log p(x) = logsumexp_k log p_k(x) - log K

  which is a likelihood; an average of their logits would not be one.  `evaluate` reports it and `sample` draws from it, by
  choosing for each image one of the orders.
- Completion.  Whatever pixels are known, there is an order in which they come first, and the others are drawn given them.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax import images, random
from gm_jax.core import GenerativeModel, from_objective
from gm_jax.distributions import bernoulli_log_prob
from gm_jax.networks import masked
from gm_jax.networks.masked import Degrees, MaskedMLP
from gm_jax.tractable.flat import Steps, pixel_by_pixel, pixel_log_probs, read


class Orders(NamedTuple):
  """In which orders to train and in which to be judged.

  Attributes:
    draw: `key -> Degrees`, of one batch of training.
    ensemble: Degrees with a leading axis K, of evaluation and of the samples.
  """

  draw: Callable
  ensemble: Degrees


def raster(network: MaskedMLP) -> Orders:
  """One order, the images' own."""
  degrees = masked.raster(network.num_inputs, network.hidden)
  return Orders(lambda key: degrees, jax.tree.map(lambda leaf: leaf[None], degrees))


def several(ensemble: Degrees) -> Orders:
  """A few orders, one of them at random for each batch."""
  pick = lambda key: jax.random.randint(key, (), 0, len(ensemble.inputs))
  return Orders(lambda key: jax.tree.map(lambda leaf: leaf[pick(key)], ensemble), ensemble)


def any_order(network: MaskedMLP, ensemble: Degrees) -> Orders:
  """Another order for each batch; judged in those of `ensemble`."""
  return Orders(lambda key: masked.shuffled(key, network.num_inputs, network.hidden), ensemble)


def ensemble(key, network: MaskedMLP, num: int) -> Degrees:
  """`num` orders at random, and as many choices of what the hidden units see."""
  return jax.vmap(lambda key: masked.shuffled(key, network.num_inputs, network.hidden))(jax.random.split(key, num))


def made(
  network: MaskedMLP, orders: Orders, optimizer: optax.GradientTransformation, image_shape: tuple, *, decay: float = 0.999
) -> GenerativeModel:
  """MADE of black and white images.

  Args:
    network: of H * W * C inputs.
    orders: `raster(network)`, `several(ensemble)`, `any_order(network, ensemble)` or your own.
    optimizer: any optax transformation.
    image_shape: (H, W, C).
    decay: of the average that `sample` and `evaluate` read.
  """

  def objective(network, key, batch, train):
    x = read(batch["image"])
    log_prob = lambda degrees: bernoulli_log_prob(network(x, degrees, train), x)
    return -(log_prob(orders.draw(key)) if train else of_ensemble(log_prob, orders.ensemble)), {}

  def sample(network, key, num, condition):
    del condition
    order_key, pixel_key = jax.random.split(key)
    members = random.randint(order_key, num, (), 0, len(orders.ensemble.inputs))
    degrees = jax.tree.map(lambda leaf: leaf[members], orders.ensemble)
    x = jnp.zeros((num, network.num_inputs))
    x, _ = _draw(network, pixel_key, degrees, x, jnp.zeros(x.shape, bool))
    return images.from_unit(x).reshape(num, *image_shape)

  return from_objective(network, objective, sample, optimizer, reports="nll", decay=decay)


def of_ensemble(log_prob: Callable, ensemble: Degrees):
  """log of the mean over K of p_k(x): `log_prob`, Degrees -> [B], of Degrees with a leading axis K."""
  log_probs = jax.lax.map(log_prob, ensemble)  # [K, B]
  return jax.nn.logsumexp(log_probs, axis=0) - jnp.log(len(log_probs))


def complete(network: MaskedMLP, variables, key, pictures, known):
  """Images with the pixels `known` of `pictures`, the others drawn given them, in an order of each image's own.

  Args:
    network, variables: as flax has them, trained in any order (`any_order`): others have never been asked such a question.
    key: also draws the orders: known pixels first, the others at random behind them.
    pictures: uint8 [B, H, W, C]; what is not known is not looked at.
    known: bool, the shape of `pictures`.

  Returns:
    uint8 [B, H, W, C]; image i depends on the key, on row i of the arguments and on i alone.
  """
  order_key, pixel_key = jax.random.split(key)
  known = known.reshape(len(known), -1)
  degrees = known_first(order_key, known, network.hidden)
  x, _ = nn.apply(_draw, network)(variables, pixel_key, degrees, read(pictures), known)
  return images.from_unit(x).reshape(pictures.shape)


def hole_log_prob(network: MaskedMLP, variables, key, pictures, known):
  """log p(the other pixels | those `known`) of `pictures` uint8 [B, H, W, C], in nats, [B].

  It is the law that `complete` draws from in the orders that the key gives; the mean over keys of its exponential is the law
  that `complete` draws from altogether.
  """
  x, known = read(pictures), known.reshape(len(known), -1)
  degrees = known_first(jax.random.split(key)[0], known, network.hidden)
  _, logits = nn.apply(_draw, network)(variables, key, degrees, x, jnp.ones_like(known))
  return jnp.where(known, 0, pixel_log_probs(logits, x)).sum(1)


def known_first(key, known, hidden) -> Degrees:
  """An order for each row of `known` bool [B, D]: what is known, then the rest, both at random; Degrees with an axis B."""

  def one(key, known):
    order_key, hidden_key = jax.random.split(key)
    order = jnp.argsort(jax.random.uniform(order_key, known.shape) + ~known)
    return masked.in_order(hidden_key, order, hidden)

  return jax.vmap(one)(random.keys(key, len(known)), known)


def _draw(network, key, degrees, x, known):
  """`pixel_by_pixel` in an order of each image's own: Degrees with an axis B."""
  see = lambda memory, pixel, value: network.see(memory, degrees, pixel, value)
  order = jax.vmap(masked.order_of)(degrees)
  return pixel_by_pixel(key, Steps(network.begin(len(x)), network.output, see), order.T, x, known)
