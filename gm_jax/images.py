"""From pixels to numbers and back: images travel as uint8 and models convert here.

Two ranges are in use: [0, 1] for Bernoulli means and autoencoders, [-1, 1] for GANs and diffusion.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from gm_jax import random


def to_unit(images):
  """uint8 [..., H, W, C] -> float32 in [0, 1]; floats (2-D points) pass through."""
  return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images


def from_unit(x):
  """Float in [0, 1] -> uint8, rounded, values outside clipped."""
  return jnp.clip(jnp.round(x * 255), 0, 255).astype(jnp.uint8)


def to_symmetric(images):
  """uint8 [..., H, W, C] -> float32 in [-1, 1]; floats (2-D points) pass through."""
  return images.astype(jnp.float32) / 127.5 - 1 if images.dtype == jnp.uint8 else images


def from_symmetric(x):
  """Float in [-1, 1] -> uint8, rounded, values outside clipped."""
  return from_unit((x + 1) / 2)


def to_binary(images):
  """uint8 0 / 255 (or float 0 / 1) [..., H, W, C] -> float32 0 / 1.

  Images that are not yet black and white are cut at one half; draw them with `data.binarized` for any other choice.
  """
  return (to_unit(images) >= 0.5).astype(jnp.float32)


def to_levels(images, levels: int):
  """uint8 [..., H, W, C] -> int32 in range(levels), the nearest; 256 levels are the bytes themselves, 2 are `to_binary`."""
  return jnp.round(images.astype(jnp.float32) * ((levels - 1) / 255)).astype(jnp.int32)


def from_levels(x, levels: int):
  """The inverse of `to_levels`: int in range(levels) -> uint8, spread evenly from 0 to 255."""
  return jnp.round(x * (255 / (levels - 1))).astype(jnp.uint8)


def dequantize(key, images):
  """uint8 [B, ...] -> float32 in (0, 1): (x + u) / 256 with u uniform, so that a density on the unit cube is scored in
  bits per dimension by `bits_per_dim(nats, num_dims, bin_width=1 / 256)` and the uniform cube scores exactly 8."""
  # Off the edges by what float32 can tell apart at 255: else u may round up into the next bin, and 0 has no logit.
  u = random.uniform(key, len(images), images.shape[1:], minval=2**-16, maxval=1 - 2**-16)
  return (images.astype(jnp.float32) + u) / 256


def quantize(x):
  """The inverse of `dequantize`: float -> the uint8 whose bin it lies in, values outside [0, 1] clipped."""
  return jnp.clip(jnp.floor(x * 256), 0, 255).astype(jnp.uint8)


class Pixels(NamedTuple):
  """How a density over floats sees images, and what its nats are worth.

  Attributes:
    read: `(key, images [B, H, W, C]) -> x`, float, the same shape.
    write: `x -> images`.
    log_levels: nats per dimension from the density of x to the mass of the image: `nll = H * W * C * log_levels - log p(x)`.
      That nll is of the uint8 image however it was read: it compares across models, `bits_per_dim(nll, H * W * C)` is right.
  """

  read: Callable
  write: Callable
  log_levels: float


POINTS = Pixels(lambda key, x: jnp.asarray(x), lambda x: x, 0.0)  # floats, as they are
BINARY = Pixels(lambda key, images: to_binary(images), from_unit, 0.0)  # a mass already
DEQUANTIZED = Pixels(dequantize, quantize, math.log(256))  # a density on the unit cube
SYMMETRIC = Pixels(lambda key, images: to_symmetric(images), from_symmetric, math.log(127.5))  # [-1, 1], 255 steps of 1 / 127.5


def bits_per_dim(nats, num_dims: int, bin_width: float = 1.0):
  """Bits per dimension of a negative log-likelihood in nats per example.

  Args:
    nats: any shape.
    num_dims: H * W * C.
    bin_width: width of one pixel level in the units of the density; 1 for a probability mass, 1 / 256 for a density on
      [0, 1] after `dequantize`, 1 / 127.5 on [-1, 1].
  """
  return nats / (num_dims * math.log(2)) - math.log2(bin_width)


def grid(images, columns: int | None = None, padding: int = 1) -> np.ndarray:
  """uint8 [N, H, W, C] -> one picture uint8 [rows * (H + padding) + padding, ..., 3 or 1], row by row; gaps are mid-grey."""
  images = np.asarray(images)
  num, height, width, channels = images.shape
  columns = columns or max(1, math.ceil(math.sqrt(num)))
  lines = math.ceil(num / columns)
  canvas = np.full((lines * (height + padding) + padding, columns * (width + padding) + padding, channels), 128, np.uint8)
  for index, image in enumerate(images):
    top, left = padding + index // columns * (height + padding), padding + index % columns * (width + padding)
    canvas[top : top + height, left : left + width] = image
  return canvas
