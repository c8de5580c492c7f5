"""What can befall an image: `(key, x [B, H, W, C] in [0, 1]) -> x` of the same shape.  Example i's fate is its own.

The first three are those of denoising autoencoders (Vincent et al. 2010).  The others lose something that can be asked back:
resolution, colour, a square, what lies under a watermark.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax import random


def gaussian(deviation: float) -> Callable:
  """Noise added to every pixel; values may leave [0, 1]."""
  return lambda key, x: x + deviation * random.normal(key, len(x), x.shape[1:])


def masking(share: float) -> Callable:
  """A share of the pixels, in all their channels, becomes black."""
  return lambda key, x: jnp.where(random.uniform(key, len(x), (*x.shape[1:3], 1)) < share, 0.0, x)


def salt_and_pepper(share: float) -> Callable:
  """A share of the pixels, in all their channels, becomes white or black, as likely one as the other."""

  def corrupt(key, x):
    u = random.uniform(key, len(x), (*x.shape[1:3], 1))
    return jnp.where(u < share / 2, 0.0, jnp.where(u < share, 1.0, x))

  return corrupt


def coarse(factor: int) -> Callable:
  """Means over blocks of factor x factor pixels, brought back to size by bicubic interpolation: what upsampling starts from."""

  def corrupt(key, x):
    del key
    return enlarged(shrunk(x, factor), x.shape[1:3])

  return corrupt


def shrunk(x, factor: int):
  """Means over blocks: [B, H, W, C] -> [B, H / factor, W / factor, C]."""
  batch, height, width, channels = x.shape
  if height % factor or width % factor:
    raise ValueError(f"{height} x {width} pixels are not whole blocks of {factor} x {factor}")
  return x.reshape(batch, height // factor, factor, width // factor, factor, channels).mean((2, 4))


def enlarged(x, size):
  """Bicubic interpolation to `size` (H, W)."""
  return jax.image.resize(x, (len(x), *size, x.shape[-1]), "cubic")


def grey() -> Callable:
  """The mean of the channels, in all of them."""
  return lambda key, x: jnp.broadcast_to(x.mean(-1, keepdims=True), x.shape)


def negative(share: float) -> Callable:
  """A share of the images becomes their own negative, 1 - x."""

  def corrupt(key, x):
    chosen = random.uniform(key, len(x), (1,) * (x.ndim - 1)) < share
    return jnp.where(chosen, 1 - x, x)

  return corrupt


def slanted(most: float) -> Callable:
  """Rows move sideways, whole pixels: each image by its own slope, -most to most pixels for each row above the middle.

  What leaves on one side comes in on the other.
  """

  def corrupt(key, x):
    slope = random.uniform(key, len(x), (1, 1), minval=-most, maxval=most)
    height, width = x.shape[1:3]
    up = height // 2 - jnp.arange(height)[None, :, None]
    source = (jnp.arange(width)[None, None] - jnp.round(slope * up).astype(jnp.int32)) % width  # [B, H, W]
    return jnp.take_along_axis(x, source[..., None], axis=2)

  return corrupt


def both(first: Callable, second: Callable) -> Callable:
  """One corruption after the other."""

  def corrupt(key, x):
    first_key, second_key = jax.random.split(key)
    return second(second_key, first(first_key, x))

  return corrupt


def hole(size: int) -> Callable:
  """A square of size x size pixels somewhere becomes grey, 0.5."""

  def corrupt(key, x):
    row_key, column_key = jax.random.split(key)
    inside = lambda key, length: _interval(random.randint(key, len(x), (), 0, length - size + 1), size, length)
    square = inside(row_key, x.shape[1])[:, :, None, None] & inside(column_key, x.shape[2])[:, None, :, None]
    return jnp.where(square, 0.5, x)

  return corrupt


def watermark(mark, opacity: float) -> Callable:
  """White lies over the image where `mark` [H, W] is 1, a picture of the same size for every image."""

  def corrupt(key, x):
    del key
    weight = opacity * jnp.asarray(mark, x.dtype)[None, :, :, None]
    return (1 - weight) * x + weight

  return corrupt


def _interval(start, size: int, length: int):
  """Which of `length` places lie in [start, start + size), bool [B, length]."""
  place = jnp.arange(length)[None]
  return (place >= start[:, None]) & (place < start[:, None] + size)
