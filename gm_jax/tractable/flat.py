"""Black and white images laid flat and told one pixel after another: what FVSBN, NADE and MADE share.

    log p(x) = sum_d log p(x_d | the pixels before d),     each a coin with a logit of its own

Of images that are known, a network gives all logits at once.  To draw one takes as many steps as it has pixels; what the model
has seen so far is then carried along as `Steps`, and a pixel costs what it adds to that, not a pass over the image.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax import images, random
from gm_jax.core import GenerativeModel, from_objective
from gm_jax.distributions import bernoulli_log_prob


class Steps(NamedTuple):
  """A model that is shown one pixel of each image at a time.

  Attributes:
    memory: what it has made of the pixels seen so far; a pytree with a row for each image.
    logit: `(memory, pixel int32 [B]) -> logits [B]`, of the pixel that comes next.
    see: `(memory, pixel int32 [B], value [B]) -> memory`.
  """

  memory: Any
  logit: Callable
  see: Callable


def read(pictures):
  """Images [B, H, W, C] -> 0 / 1 in raster order, float32 [B, H * W * C]."""
  return images.to_binary(pictures).reshape(len(pictures), -1)


def pixel_by_pixel(key, steps: Steps, order, x, known):
  """Draw what is not known of x, given what comes before it in the order.

  Args:
    key: of the draws; those of image i depend on it and on i alone.
    steps: a model that has seen nothing yet.
    order: int [D] for all images, or [D, B]: the pixel that is shown first, second, ...
    x: 0 / 1, [B, D].
    known: bool [B, D]; elsewhere x is not looked at.  If all is known nothing is drawn, and the logits are those of x.

  Returns:
    x completed, and the logits [B, D] of every pixel given those before it.
  """
  x, known, rows = jnp.asarray(x), jnp.asarray(known), jnp.arange(len(x))

  def step(carry, place):
    x, memory = carry
    time, pixel = place
    pixel = jnp.broadcast_to(pixel, rows.shape)
    logit = steps.logit(memory, pixel)
    drawn = random.bernoulli(jax.random.fold_in(key, time), nn.sigmoid(logit)).astype(x.dtype)
    value = jnp.where(known[rows, pixel], x[rows, pixel], drawn)
    return (x.at[rows, pixel].set(value), steps.see(memory, pixel, value)), (pixel, logit)

  (x, _), (pixels, logits) = jax.lax.scan(step, (x, steps.memory), (jnp.arange(len(order)), order))
  return x, jnp.zeros_like(x).at[rows[None], pixels].set(logits)


def raster_model(
  network: nn.Module, optimizer: optax.GradientTransformation, image_shape: tuple, *, decay: float = 0.999
) -> GenerativeModel:
  """Exact maximum likelihood, pixels in raster order.

  Args:
    network: `(x [B, D], train) -> logits [B, D]`, of each pixel given those before it; `network.steps(num)` is the same one
      pixel at a time.
    optimizer: any optax transformation.
    image_shape: (H, W, C).
    decay: of the average that `sample` and `evaluate` read.
  """

  def objective(network, key, batch, train):
    del key
    x = read(batch["image"])
    return -bernoulli_log_prob(network(x, train), x), {}

  def sample(network, key, num, condition):
    del condition
    return _complete(network, key, jnp.zeros((num, *image_shape), jnp.uint8), 0)

  return from_objective(network, objective, sample, optimizer, reports="nll", decay=decay)


def complete(network: nn.Module, variables, key, pictures, num_known):
  """Images whose first `num_known` pixels are those of `pictures` uint8 [B, H, W, C], the others drawn given them."""
  return nn.apply(_complete, network)(variables, key, pictures, num_known)


def log_probs(network: nn.Module, variables, pictures):
  """log p(pixel | pixels before it) in nats, the shape of `pictures`: summed over what lies behind a prefix, the likelihood of
  that hole given the rest."""
  x = read(pictures)
  return pixel_log_probs(network.apply(variables, x, train=False), x).reshape(pictures.shape)


def pixel_log_probs(logits, x):
  """log p of every coin by itself, [B, D] -> [B, D]."""
  return x * logits - nn.softplus(logits)


def _complete(network, key, pictures, num_known):
  x = read(pictures)
  order = jnp.arange(x.shape[1])
  known = jnp.broadcast_to((order < num_known)[None], x.shape)
  x, _ = pixel_by_pixel(key, network.steps(len(x)), order, x, known)
  return images.from_unit(x).reshape(pictures.shape)
