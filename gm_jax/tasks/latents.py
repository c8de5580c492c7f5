"""The latent space of a generator: which z makes an image, what lies on the way to another, and where a property grows.

    z, errors = latents.project(decode, x, key, law)         # by descent; `learn_encoder` learns to answer at once
    turned = decode(z + 2.0 * latents.direction(drawn, has)[None])

A decoder is a function of z [B, Z] to images [B, ...], each made of its own z alone: a GAN's generator, or a VAE's mean.  Paths
and sums of latents are in approximate/latents.py.

Every image has a program of its own here, run again for each: what becomes of it depends, to the last bit, on itself, the key
and its index, and not on how many others there are.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax import images, random
from gm_jax.approximate import latents as paths
from gm_jax.core import begin, begin_average, descend, update_average
from gm_jax.errors import UserError
from gm_jax.implicit import latents as laws
from gm_jax.metrics import probe
from gm_jax.networks.convnet import ConvEncoder


class Latents(NamedTuple):
  """What an experiment says of its generator, by `latents(config)`, so that `gm-jax latent` can use it.

  Attributes:
    decoder: `state -> decoder`.
    law: of z, `key -> z [Z]` of one example.
    path: `(start [Z], end [Z], num) -> z [num, Z]`, both ends included; along the arc for a normal law, straight for a cube.
    encoder: `(x, train) -> features [B, F]`, on which an encoder is built if one is asked for.
    read, write: from uint8 images to the decoder's range and back.
  """

  decoder: Callable
  law: Callable
  path: Callable = paths.around
  encoder: nn.Module = ConvEncoder()
  read: Callable = images.to_symmetric
  write: Callable = images.from_symmetric


def of_gan(generator: nn.Module, law: Callable, **fields) -> Latents:
  """Of a GAN's generator, by the average that samples are drawn from; `fields` are others of `Latents`."""

  def decoder(state):
    return lambda z: generator.apply(state.average.variables, z, train=False)

  return Latents(decoder, law, **fields)


def of_conditional_gan(generator: nn.Module, law: Callable, num_classes: int, **fields) -> Latents:
  """Of a generator that is told a label: z [Z + num_classes], whose last numbers say by the largest of them which.

  So a projection finds the class too, where a restart has begun with it, and a way changes it half way along.
  """
  cut = lambda z: (z[:, :-num_classes], z[:, -num_classes:])

  def decoder(state):
    def decode(z):
      z, chances = cut(z)
      return generator.apply(state.average.variables, z, False, chances.argmax(1))

    return decode

  def path(start, end, num):
    (one, label), (other, last) = cut(start[None]), cut(end[None])
    return jnp.concatenate([paths.around(one[0], other[0], num), paths.straight(label[0], last[0], num)], 1)

  return Latents(decoder, laws.beside(law, laws.categorical(num_classes)), **{"path": path, **fields})


# Ways from one to another.


def between(start, end, num: int, path: Callable = paths.around):
  """z on the way from each of `start` [B, Z] to its `end` [B, Z], both included: [B, num, Z]."""
  return jax.vmap(lambda one, other: path(one, other, num))(start, end)


def moved(z, direction, amounts):
  """Each z [B, Z] and so many times a direction [Z], for each of `amounts` [K]: [B, K, Z]."""
  return jax.vmap(lambda z: paths.added(z, direction, amounts))(z)


def decoded(decode: Callable, z):
  """Images of lines of latents z [B, K, Z], one line at a time: [B, K, ...]."""
  return jax.lax.map(decode, z)


# Which z makes this image: by descent.


def squared_error(made, x):
  """The mean squared difference of each image made [R, ...] and x [...], [R]."""
  return jnp.square(made - x[None]).reshape(len(made), -1).mean(1)


def with_features(features: Callable, weight: float = 1.0) -> Callable:
  """`squared_error` of pixels and `weight` times that of features, `images [B, ...] -> [B, F]`: a distance for `project`."""
  return lambda made, x: squared_error(made, x) + weight * squared_error(features(made), features(x[None])[0])


def project(
  decode: Callable,
  x,
  key,
  law: Callable,
  *,
  guess=None,
  restarts: int = 4,
  steps: int = 500,
  learning_rate: float = 0.1,
  distance: Callable = squared_error,
  penalty: float = 0.0,
):
  """The latents whose images are nearest to given ones (Lipton & Tripathi 2017, https://arxiv.org/abs/1702.04782).

  Adam descends from several starts for each image, and the best of all starts and ends is kept: the distance has valleys in
  which a descent ends far from the image.

  Args:
    decode: the decoder.
    x: images as it makes them, [B, ...].
    key: of the starts.
    law: of latents; the starts are draws from it.
    guess: [B, Z], a start of each image besides those drawn, an encoder's answer for one; None for none.
    restarts: starts drawn for each image.
    steps: of Adam; 0 keeps the best start.
    learning_rate: of Adam at first; falls to nothing along a cosine.
    distance: `(images made [R, ...], x [...]) -> [R]`.
    penalty: on the mean square of z, added to the distance: keeps z where latents are drawn.

  Returns:
    (z [B, Z], distances [B], without the penalty).
  """
  if restarts < 0 or restarts == 0 and guess is None:
    raise UserError(f"{restarts} restarts; take at least 1, or 0 with a guess to start from")
  optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, max(steps, 1)))

  def one(key, x, guess):
    starts = [] if guess is None else [guess[None]]
    starts += [laws.draw(law, key, restarts)] if restarts else []
    starts = jnp.concatenate(starts)  # [R, Z]
    far = lambda z: distance(decode(z), x)
    cost = lambda z: far(z) + penalty * jnp.square(z).mean(1)

    def step(carry, _):
      z, memory = carry
      updates, memory = optimizer.update(jax.grad(lambda z: cost(z).sum())(z), memory)
      return (z + updates, memory), None

    (ends, _), _ = jax.lax.scan(step, (starts, optimizer.init(starts)), length=steps)
    found = jnp.concatenate([ends, starts])
    costs = cost(found)
    best = jnp.where(jnp.isnan(costs), jnp.inf, costs).argmin()
    return found[best], far(found)[best]

  return jax.lax.map(lambda row: one(*row), (random.keys(key, len(x)), x, guess))


# The same by a network, which answers at once.


class Encoder(nn.Module):
  """Images x [B, H, W, C] -> the latents z [B, Z] that they may have been made of."""

  body: nn.Module  # (x, train) -> features [B, F]
  num_latents: int

  @nn.compact
  def __call__(self, x, train: bool):
    return nn.Dense(self.num_latents)(self.body(x, train))


def encoder_for(body: nn.Module, law: Callable) -> Encoder:
  """An encoder that ends in as many numbers as the law draws."""
  return Encoder(body, jax.eval_shape(law, jax.random.key(0)).shape[0])


def encode(encoder: nn.Module, variables, x):
  """The latents [B, Z] that an encoder sees in images x [B, ...]."""
  return jax.lax.map(lambda x: encoder.apply(variables, x[None], train=False)[0], x)


def learn_encoder(
  encoder: nn.Module,
  decode: Callable,
  law: Callable,
  key,
  *,
  real=None,
  steps: int = 1000,
  batch_size: int = 64,
  learning_rate: float = 1e-3,
  through: float = 10.0,
  decay: float = 0.99,
):
  """Variables of an encoder: it names the latents of what the decoder makes, and the decoder makes its images again.

  On a made image the first is a squared error of z and has no other answer.  A real image has no z, and the nearest the decoder
  comes to it is asked for, through the decoder (Zhu et al. 2016, https://arxiv.org/abs/1609.03552).

  Args:
    encoder: `(x, train) -> z [B, Z]`.
    decode: the decoder; it is not changed.
    law: of latents.
    key: of parameters and all draws.
    real: images in the decoder's range, [N, ...]; None: those that it has made are made again.
    steps, batch_size, learning_rate: of Adam, whose steps fall to nothing along a cosine.
    through: the weight of the squared error of images made again, against that of latents.
    decay: of the average that is returned.
  """
  optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
  init_key, steps_key = jax.random.split(key)

  def batch_of(key):
    latent_key, choice_key = jax.random.split(key)
    z = laws.draw(law, latent_key, batch_size)
    made = decode(z)
    return z, made, made if real is None else real[random.randint(choice_key, batch_size, (), 0, len(real))]

  def objective(encoder, key, z, made, x, train):
    del key
    error = lambda found, wanted: jnp.square(found - wanted).reshape(len(wanted), -1).mean(1)
    named = error(encoder(made, train), z)
    again = error(decode(encoder(x, train)), x)
    return named + through * again, {"named": named, "again": again}

  def step(carry, key):
    player, average = carry
    player, _ = descend(encoder, objective, optimizer, player, key, *batch_of(key))
    return (player, update_average(average, player, decay)), None

  player = begin(encoder, objective, optimizer, init_key, *batch_of(init_key))
  carry, _ = jax.lax.scan(step, (player, begin_average(player)), jax.random.split(steps_key, steps))
  return carry[1].variables


# Where a property grows.


def direction(z, has, *, penalty: float = 1e-3):
  """The unit vector [Z] at right angles to the plane that best parts latents with a property from those without.

  A step of 1 along it is one deviation of a standard normal law (InterFaceGAN, Shen et al. 2020,
  https://arxiv.org/abs/1907.10786).  `paths.attribute` is another: the difference of the two means.

  Args:
    z: drawn latents, [N, Z].
    has: bool [N], whether the image of each has the property.
    penalty: on squared weights of the classifier (metrics/probe.py).
  """
  check_both(has)
  fitted = probe.fit(z, jnp.asarray(has).astype(jnp.int32), 2, penalty=penalty)
  normal = (fitted.weights[:, 1] - fitted.weights[:, 0]) / fitted.scale
  return normal / jnp.linalg.norm(normal)


def check_both(has) -> None:
  """UserError unless some have a property and some have not."""
  count = int(has.sum())
  if count in (0, len(has)):
    raise UserError(f"{count} of {len(has)} samples have the property; a direction takes some with it and some without")
