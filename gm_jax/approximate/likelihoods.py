"""p(x | z): what the numbers that come out of a decoder mean.

Every likelihood is of the uint8 image, in nats, so bounds on the same data compare whichever was used: Bernoullis and
discretised logistics give each level its mass, and a Gaussian density over dequantised pixels carries the width of a level.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax import images, random
from gm_jax.distributions import (
  bernoulli_log_prob,
  discretized_logistic_log_prob,
  mixture_log_prob,
  normal_log_prob,
  sum_over_example,
)


class Likelihood(NamedTuple):
  """p(x | z), read off the decoder's output.

  Attributes:
    channels: decoder outputs per pixel and image channel.
    observe: `(key, images uint8) -> x`, the numbers that the density is over.
    log_prob: `(outputs, x) -> [B]`, in nats.
    mean: `outputs -> E[x | z]`, as images.
    sample: `(key, outputs) -> images`.
  """

  channels: int
  observe: Callable
  log_prob: Callable
  mean: Callable
  sample: Callable


def bernoulli(pixels: images.Pixels = images.BINARY) -> Likelihood:
  """Black and white pixels, a logit each."""
  return Likelihood(
    channels=1,
    observe=pixels.read,
    log_prob=bernoulli_log_prob,
    mean=lambda logits: pixels.write(jax.nn.sigmoid(logits)),
    sample=lambda key, logits: pixels.write(random.bernoulli(key, jax.nn.sigmoid(logits)).astype(jnp.float32)),
  )


def gaussian(min_log_var: float = -8.0, pixels: images.Pixels = images.DEQUANTIZED) -> Likelihood:
  """Grey or colour pixels, or points: a mean and a log-variance each.

  Args:
    min_log_var: the log-variance is softly kept above this, since pixels that never vary could drive a density to infinity.
    pixels: how images are read; dequantised by default, so that nats are those of the uint8 image.  `images.POINTS` for points.
  """

  def split(outputs):
    mean, log_var = jnp.split(outputs, 2, axis=-1)
    return mean, min_log_var + jax.nn.softplus(log_var - min_log_var)

  def log_prob(outputs, x):
    return normal_log_prob(x, *split(outputs)) - math.prod(x.shape[1:]) * pixels.log_levels

  def sample(key, outputs):
    mean, log_var = split(outputs)
    return pixels.write(mean + jnp.exp(log_var / 2) * random.normal(key, len(mean), mean.shape[1:]))

  return Likelihood(
    channels=2,
    observe=pixels.read,
    log_prob=log_prob,
    mean=lambda outputs: pixels.write(split(outputs)[0]),
    sample=sample,
  )


def discretized_logistic(levels: int = 256, min_log_scale: float = -7.0) -> Likelihood:
  """Grey or colour pixels: each level has the mass that a logistic puts on its bin, the outermost take the tails.

  The decoder gives a mean on the line from -1 to 1 and a log-scale (Kingma et al. 2016, appendix A).  This is
  `logistic_mixture` with one component.
  """
  return logistic_mixture(1, levels, min_log_scale)


def logistic_mixture(num_components: int = 5, levels: int = 256, min_log_scale: float = -7.0) -> Likelihood:
  """Grey or colour pixels: for each channel of each pixel a mixture of discretised logistics (Salimans et al. 2017).

  Given z, channels are independent; what ties them together is z.

  Args:
    num_components: K; the decoder gives each channel K logits, K means and K log-scales.
    levels: how many a channel has, evenly from -1 to 1, as images.to_levels counts them.
    min_log_scale: logistics narrower than this are not told from it: in one bin either way, with gradients that vanish.
  """
  step = 2 / (levels - 1)

  def split(outputs):
    """Log weights, means and log-scales, each [B, H, W, C, K]."""
    logits, mean, log_scale = jnp.split(outputs.reshape(*outputs.shape[:-1], -1, 3 * num_components), 3, axis=-1)
    return jax.nn.log_softmax(logits), mean, jnp.maximum(log_scale, min_log_scale)

  def log_prob(outputs, x):
    log_weights, mean, log_scale = split(outputs)
    x = jnp.broadcast_to(x[..., None], mean.shape)
    each = lambda array: array.reshape(-1, 1)  # an example of its own
    log_probs = discretized_logistic_log_prob(each(x), each(mean), each(log_scale), bin_width=step).reshape(x.shape)
    return sum_over_example(mixture_log_prob(log_weights, log_probs))

  def write(x):
    return images.from_levels(jnp.clip(jnp.round((x + 1) / step), 0, levels - 1), levels)

  def mean(outputs):
    log_weights, mean, _ = split(outputs)
    return write((jnp.exp(log_weights) * jnp.clip(mean, -1, 1)).sum(-1))

  def sample(key, outputs):
    component_key, noise_key = jax.random.split(key)
    log_weights, mean, log_scale = split(outputs)
    component = random.categorical(component_key, log_weights)[..., None]
    mean, log_scale = (jnp.take_along_axis(array, component, -1)[..., 0] for array in (mean, log_scale))
    uniform = random.uniform(noise_key, len(mean), mean.shape[1:], minval=2**-24, maxval=1 - 2**-24)
    return write(mean + jnp.exp(log_scale) * (jnp.log(uniform) - jnp.log1p(-uniform)))

  read = lambda key, pictures: images.to_levels(pictures, levels) * step - 1
  return Likelihood(3 * num_components, read, log_prob, mean, sample)
