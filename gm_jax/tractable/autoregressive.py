"""Autoregressive models: each pixel is predicted from those before it, by a network that cannot see the others.

    log p(x) = sum_d log p(x_d | x_1, ..., x_{d-1})

in raster order, the channels of a pixel one after another.  Training reads all conditionals off one pass of the network, so the
likelihood is exact; drawing takes a step for each pixel, at the cost that its `Scan` (networks/causal.py) has.

A model is a causal network, an `Output` that says what its numbers mean, and a scan.  What is known of an image up to some
pixel is completed by drawing the rest (`complete`), and the rest's own likelihood given it is read off the same conditionals
(`log_probs`).
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax import images, random
from gm_jax.core import GenerativeModel, from_objective
from gm_jax.distributions import bernoulli_log_prob, categorical_log_prob
from gm_jax.networks.causal import Scan, whole_passes


class Output(NamedTuple):
  """p(pixel | pixels before it), read off a network's outputs.

  Attributes:
    width: `channels -> outputs per pixel`.
    looks: `channels -> how often a pixel is looked at while it is drawn`: once for each channel where the network is told the
      pixel's earlier channels, or once for all.
    read: `images uint8 [B, H, W, C] -> x`, what the network sees.
    log_prob: `(outputs [B, H, W, width], images) -> [B, H, W]`, in nats per pixel, all its channels together.
    draw: `(key, outputs [B, width], pixel uint8 [B, C], channel, temperature) -> uint8 [B]`, the channel given earlier ones.
    levels: how many a channel can have, as images.to_levels counts them.
    conditional: `(outputs [B, width], pixel uint8 [B, C], channel) -> log-probabilities of the channel's levels given earlier
      ones, [B, levels]`.
  """

  width: Callable
  looks: Callable
  read: Callable
  log_prob: Callable
  draw: Callable
  levels: int
  conditional: Callable


def bernoulli() -> Output:
  """Black or white."""

  def log_prob(outputs, pictures):
    return _each(bernoulli_log_prob, outputs, images.to_binary(pictures)).sum(-1)

  def draw(key, outputs, pixel, channel, temperature):
    del pixel
    return images.from_unit(random.bernoulli(key, nn.sigmoid(outputs[:, channel] / temperature)).astype(jnp.float32))

  def conditional(outputs, pixel, channel):
    del pixel
    return nn.log_sigmoid(jnp.stack([-outputs[:, channel], outputs[:, channel]], 1))

  return Output(lambda channels: channels, lambda channels: channels, images.to_binary, log_prob, draw, 2, conditional)


def categorical(levels: int = 256) -> Output:
  """Any of so many levels, each with a probability of its own."""

  def read(pictures):
    return images.to_levels(pictures, levels) * (2 / (levels - 1)) - 1

  def log_prob(outputs, pictures):
    x = images.to_levels(pictures, levels)
    logits = outputs.reshape(*x.shape, levels)
    return categorical_log_prob(logits.reshape(-1, x.shape[-1], levels), x.reshape(-1, x.shape[-1])).reshape(x.shape[:3])

  def draw(key, outputs, pixel, channel, temperature):
    del pixel
    logits = outputs.reshape(len(outputs), -1, levels)[:, channel]
    return images.from_levels(random.categorical(key, logits / temperature), levels)

  def conditional(outputs, pixel, channel):
    del pixel
    return nn.log_softmax(outputs.reshape(len(outputs), -1, levels)[:, channel], axis=1)

  return Output(lambda channels: channels * levels, lambda channels: channels, read, log_prob, draw, levels, conditional)


def autoregressive(
  network: nn.Module,
  output: Output,
  optimizer: optax.GradientTransformation,
  image_shape: tuple,
  *,
  scan: Scan | None = None,
  decay: float = 0.999,
  temperature: float = 1.0,
) -> GenerativeModel:
  """A causal network trained by exact maximum likelihood.

  Args:
    network: `(x [B, H, W, C], train, label) -> outputs [B, H, W, output.width(C)]`; a label is passed where data have one.
    output: `bernoulli()`, `categorical()` or your own.
    optimizer: any optax transformation.
    image_shape: (H, W, C).
    scan: how the network runs pixel by pixel; by default whole passes, which any network can.
    decay: of the average that `sample` and `evaluate` read.
    temperature: of the draws; 1 for the model's own law.
  """
  scan = scan or whole_passes()

  def objective(network, key, batch, train):
    del key
    outputs = network(output.read(batch["image"]), train, batch.get("label"))
    return -output.log_prob(outputs, batch["image"]).sum((1, 2)), {}

  def sample(network, key, num, condition):
    blank = jnp.zeros((num, *image_shape), jnp.uint8)
    label = jnp.zeros(num, jnp.int32) if condition is None else jnp.asarray(condition)
    return complete(*network.unbind(), output, scan, key, blank, 0, label, temperature)

  return from_objective(network, objective, sample, optimizer, reports="nll", decay=decay)


def complete(network, variables, output: Output, scan: Scan, key, pictures, num_known, label=None, temperature: float = 1.0):
  """Images with the first `num_known` pixels, in raster order, of `pictures`, and the others drawn given them.

  Args:
    network, variables: as flax has them.
    pictures: uint8 [B, H, W, C]; what lies behind the known pixels is not looked at.
    num_known: int, traced or not; 0 draws whole images.
    label: int32 [B] for a class-conditional network.
    temperature: above 0; the logits are divided by it.

  Returns:
    uint8 [B, H, W, C]; image i depends on the key, on row i of the arguments and on i alone.
  """
  _, height, width, channels = pictures.shape
  looks = output.looks(channels)
  known = (jnp.arange(height * width) < num_known).reshape(1, height, width, 1)
  start = jnp.where(known, pictures, 0).astype(jnp.uint8)

  def pixel(carry, column):
    image, memory, row = carry
    pixel_key = jax.random.fold_in(key, row * width + column)
    for look in range(looks):
      outputs, memory = scan.pixel(network, variables, memory, output.read(image), label, row, column)
      for channel in [look] if looks > 1 else range(channels):
        old = image[:, row, column]
        new = output.draw(jax.random.fold_in(pixel_key, channel), outputs, old, channel, temperature)
        new = jnp.where(row * width + column < num_known, old[:, channel], new)
        image = image.at[:, row, column, channel].set(new)
    return (image, memory, row), None

  def line(carry, row):
    image, memory = carry
    memory = scan.row(network, variables, memory, output.read(image), label, row)
    image, memory, _ = jax.lax.scan(pixel, (image, memory, row), jnp.arange(width))[0]
    return (image, memory), None

  memory = scan.begin(network, variables, output.read(start), label)
  return jax.lax.scan(line, (start, memory), jnp.arange(height))[0][0]


def log_probs(network, variables, output: Output, pictures, label=None):
  """log p(pixel | pixels before it) of uint8 [B, H, W, C], in nats [B, H, W]: summed over what lies behind a prefix, the
  likelihood of the hole given the rest."""
  return output.log_prob(network.apply(variables, output.read(pictures), train=False, label=label), pictures)


def _each(log_prob, params, x):
  """A log probability of every entry: [...] -> [...]."""
  return log_prob(params.reshape(-1, 1), x.reshape(-1, 1)).reshape(x.shape)
