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
import numpy as np
import optax

from gm_jax import images, random
from gm_jax.core import GenerativeModel, from_objective
from gm_jax.distributions import bernoulli_log_prob, categorical_log_prob, discretized_logistic_log_prob
from gm_jax.networks.causal import Scan, whole_passes


class Output(NamedTuple):
  """p(pixel | pixels before it), read off a network's outputs.

  Attributes:
    levels: how many a channel can have, as images.to_levels counts them.
    width: `channels -> outputs per pixel`.
    looks: `channels -> how often a pixel is looked at while it is drawn`: once for each channel where the network is told the
      pixel's earlier channels, or once for all.
    read: `images uint8 [B, H, W, C] -> x`, what the network sees.
    log_prob: `(outputs [B, H, W, width], images) -> [B, H, W]`, in nats per pixel, all its channels together.
    conditional: `(outputs [B, width], pixel uint8 [B, C], channel) -> log-probabilities of the channel's levels given earlier
      ones, [B, levels]`.
  """

  levels: int
  width: Callable
  looks: Callable
  read: Callable
  log_prob: Callable
  conditional: Callable


def bernoulli() -> Output:
  """Black or white."""

  def log_prob(outputs, pictures):
    return _each(bernoulli_log_prob, outputs, images.to_binary(pictures)).sum(-1)

  def conditional(outputs, pixel, channel):
    del pixel
    return nn.log_sigmoid(jnp.stack([-outputs[:, channel], outputs[:, channel]], 1))

  return Output(2, lambda channels: channels, lambda channels: channels, images.to_binary, log_prob, conditional)


def categorical(levels: int = 256) -> Output:
  """Any of so many levels, each with a probability of its own."""

  def log_prob(outputs, pictures):
    x = images.to_levels(pictures, levels)
    logits = outputs.reshape(*x.shape, levels)
    return categorical_log_prob(logits.reshape(-1, x.shape[-1], levels), x.reshape(-1, x.shape[-1])).reshape(x.shape[:3])

  def conditional(outputs, pixel, channel):
    del pixel
    return nn.log_softmax(outputs.reshape(len(outputs), -1, levels)[:, channel], axis=1)

  width = lambda channels: channels * levels
  return Output(levels, width, lambda channels: channels, _symmetric(levels), log_prob, conditional)


def logistic_mixture(num_components: int = 5, levels: int = 256) -> Output:
  """A mixture of logistics on the line of levels, the outermost taking the tails (PixelCNN++, Salimans et al. 2017).

  A pixel's channels share the choice of a component; within it, a channel's mean moves with the true values of those before it,
  so the network looks at a pixel once and need not be told of its channels (give it one group).
  """
  read, step = _symmetric(levels), 2 / (levels - 1)

  def parts(outputs, channels):
    """Logits [..., K], means and log-scales [..., C, K], and how the mean of one channel moves with another [..., C, C, K]."""
    sizes = [1, channels, channels, channels * channels]
    pieces = jnp.split(outputs.reshape(*outputs.shape[:-1], -1, num_components), np.cumsum(sizes)[:-1], axis=-2)
    logits, means, log_scales, moves = pieces
    moves = jnp.tanh(moves.reshape(*moves.shape[:-2], channels, channels, num_components))
    before = np.tril(np.ones((channels, channels), np.float32), -1).reshape(*[1] * (moves.ndim - 3), channels, channels, 1)
    return logits[..., 0, :], means, jnp.maximum(log_scales, -7.0), moves * before

  def component_log_probs(outputs, x):
    """Of each channel given those before it: x [..., C] -> log weights [..., K], log p [..., C, K]."""
    logits, means, log_scales, moves = parts(outputs, x.shape[-1])
    means = means + (moves * x[..., None, :, None]).sum(-2)
    score = lambda x, mean, log_scale: discretized_logistic_log_prob(x, mean, log_scale, bin_width=step)
    return nn.log_softmax(logits), _each(score, jnp.broadcast_to(x[..., None], means.shape), means, log_scales)

  def log_prob(outputs, pictures):
    log_weights, log_probs = component_log_probs(outputs, read(pictures))
    return jax.nn.logsumexp(log_weights + log_probs.sum(-2), axis=-1)

  def conditional(outputs, pixel, channel):
    x = read(pixel)
    log_weights, log_probs = component_log_probs(outputs, x)
    # Earlier channels have told which component it is, by Bayes' rule.
    earlier = jnp.arange(x.shape[1])[None, :, None] < channel
    posterior = nn.log_softmax(log_weights + jnp.where(earlier, log_probs, 0).sum(1))  # [B, K]
    at_level = lambda level: component_log_probs(outputs, x.at[:, channel].set(level * step - 1))[1][:, channel]
    log_probs = jax.vmap(at_level, out_axes=1)(jnp.arange(levels))  # [B, levels, K]
    return jax.nn.logsumexp(posterior[:, None] + log_probs, axis=2)

  width = lambda channels: num_components * (1 + 2 * channels + channels**2)
  return Output(levels, width, lambda channels: 1, read, log_prob, conditional)


def _symmetric(levels: int) -> Callable:
  """Images -> the nearest of so many levels, evenly from -1 to 1."""
  return lambda pictures: images.to_levels(pictures, levels) * (2 / (levels - 1)) - 1


def autoregressive(
  network: nn.Module,
  output: Output,
  optimizer: optax.GradientTransformation,
  image_shape: tuple,
  *,
  scan: Scan | None = None,
  num_classes: int = 1,
  decay: float = 0.999,
  temperature: float = 1.0,
) -> GenerativeModel:
  """A causal network trained by exact maximum likelihood.

  Args:
    network: `(x [B, H, W, C], train, label) -> outputs [B, H, W, output.width(C)]`; a label is passed where data have one.
    output: `bernoulli()`, `categorical()`, `logistic_mixture()` or your own.
    optimizer: any optax transformation.
    image_shape: (H, W, C).
    scan: how the network runs pixel by pixel; by default whole passes, which any network can.
    num_classes: of a class-conditional network; samples without labels are of all classes, equally likely.
    decay: of the average that `sample` and `evaluate` read.
    temperature: of the draws; 1 for the model's own law.
  """
  scan = scan or whole_passes()

  def objective(network, key, batch, train):
    del key
    outputs = network(output.read(batch["image"]), train, batch.get("label"))
    return -output.log_prob(outputs, batch["image"]).sum((1, 2)), {}

  def sample(network, key, num, condition):
    label_key, pixel_key = jax.random.split(key)
    blank = jnp.zeros((num, *image_shape), jnp.uint8)
    label = random.randint(label_key, num, (), 0, num_classes) if condition is None else jnp.asarray(condition)
    return complete(*network.unbind(), output, scan, pixel_key, blank, 0, label, temperature)

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
        log_probs = output.conditional(outputs, old, channel)
        new = random.categorical(jax.random.fold_in(pixel_key, channel), log_probs / temperature)
        new = images.from_levels(new, output.levels)
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


def _each(log_prob, *arrays):
  """A log probability of every entry, given as an example of its own: arrays [...] -> [...]."""
  return log_prob(*(array.reshape(-1, 1) for array in arrays)).reshape(arrays[0].shape)
