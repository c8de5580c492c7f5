"""What hierarchical models are built from: maps of features at several sizes, from the image up to something small.

A map is [B, H, W, F]; without width it is 1 x 1, and a convolution of it a matrix product.  So one code serves ladders of
fully connected layers and of convolutions.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.networks.conv import Conv


class DenseBlock(nn.Module):
  """A map to a map of `features`, each place by itself: a hidden layer of `hidden` units between."""

  features: int
  hidden: int

  @nn.compact
  def __call__(self, x, train: bool):
    del train
    return nn.Dense(self.features)(nn.silu(nn.Dense(self.hidden)(x)))


class ConvBlock(nn.Module):
  """A map to a map of `features`: 1 x 1, two of size x size (1 x 1 on maps smaller than that), 1 x 1, as in VDVAE.

  Child 2021 (https://arxiv.org/abs/2011.10650), figure 3.
  """

  features: int
  hidden: int
  size: int = 3

  @nn.compact
  def __call__(self, x, train: bool):
    del train
    size = self.size if min(x.shape[1:3]) >= self.size else 1
    x = Conv(self.hidden, 1)(nn.gelu(x))
    x = Conv(self.hidden, size)(nn.gelu(x))
    x = Conv(self.hidden, size)(nn.gelu(x))
    return Conv(self.features, 1)(nn.gelu(x))


class DenseLadder(nn.Module):
  """x [B, H, W, C] -> a 1 x 1 map for each level, [B, 1, 1, features[k]], the one nearest the image first."""

  features: Sequence[int]

  @nn.compact
  def __call__(self, x, train: bool) -> list:
    h, maps = x.reshape(len(x), 1, 1, -1), []
    for size in self.features:
      h = nn.silu(nn.Dense(size)(nn.silu(nn.Dense(size)(h))))
      maps.append(h)
    return maps


class ConvLadder(nn.Module):
  """x [B, H, W, C] -> a map for each level, [B, H / factors[k], W / factors[k], features], the one nearest the image first.

  `factors` never fall; each divides the sides of the image and the factor behind it.
  """

  factors: Sequence[int]
  features: int
  hidden: int

  @nn.compact
  def __call__(self, x, train: bool) -> list:
    h, maps, done = Conv(self.features, 3)(x), [], 1
    for factor in self.factors:
      if any(side % factor for side in x.shape[1:3]) or factor % done:
        raise ValueError(f"factors {tuple(self.factors)} do not divide {x.shape[1]} x {x.shape[2]} pixels one after another")
      h = nn.avg_pool(h, (factor // done,) * 2, (factor // done,) * 2)
      done = factor
      h += ConvBlock(self.features, self.hidden)(h, train)
      maps.append(h)
    return maps


def enlarged(x, like):
  """A map at the size of another map, each place repeated."""
  (height, width), (small_height, small_width) = like.shape[1:3], x.shape[1:3]
  if height % small_height or width % small_width:
    raise ValueError(f"a map of {small_height} x {small_width} has no whole number of places in each of {height} x {width}")
  return jnp.repeat(jnp.repeat(x, height // small_height, axis=1), width // small_width, axis=2)


class DenseReadout(nn.Module):
  """A 1 x 1 map -> [B, *shape], by a hidden layer."""

  hidden: int
  shape: Sequence[int]

  @nn.compact
  def __call__(self, x, train: bool):
    del train
    height, width, channels = self.shape
    x = nn.silu(nn.Dense(self.hidden)(nn.silu(x.reshape(len(x), -1))))
    return nn.Dense(height * width * channels)(x).reshape(-1, *self.shape)


class ConvReadout(nn.Module):
  """A map -> [B, *shape], which its size divides."""

  shape: Sequence[int]
  hidden: int

  @nn.compact
  def __call__(self, x, train: bool):
    size = jax.ShapeDtypeStruct((len(x), *self.shape), x.dtype)
    x = enlarged(x, size)
    x += ConvBlock(x.shape[-1], self.hidden)(x, train)
    return Conv(self.shape[-1], 3)(nn.gelu(x))
