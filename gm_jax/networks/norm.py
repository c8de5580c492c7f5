"""Normalisation: over the global batch, and over groups of channels of one example."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import rows


class BatchNorm(nn.Module):
  """`flax.linen.BatchNorm`, whose statistics are those of all examples, however many devices share them.

  Same parameters and same "batch_stats" (Ioffe and Szegedy 2015).  With `train` it normalises x [B, ..., C] by the batch's
  own mean and variance and moves the running ones a step of 1 - momentum towards them; without, by the running ones.
  Statistics are float32 at any precision of x.
  """

  momentum: float = 0.9
  epsilon: float = 1e-5
  use_scale: bool = True
  use_bias: bool = True
  scale_init: Callable = nn.initializers.ones_init()
  bias_init: Callable = nn.initializers.zeros_init()
  dtype: Any = None  # of the result; that of x unless given

  @nn.compact
  def __call__(self, x, train: bool):
    channels = x.shape[-1:]
    running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
    running_var = self.variable("batch_stats", "var", jnp.ones, channels)
    dtype = self.dtype or x.dtype
    x = x.astype(jnp.float32)

    mean, var = running_mean.value, running_var.value
    if train:
      # Two passes: E[x^2] - E[x]^2 loses its digits, and may turn negative, where the mean is large against the deviation.
      axes = tuple(range(x.ndim - 1))
      mean = rows.mean(x.mean(axes))
      var = rows.mean(jnp.square(x - _as_channel(mean, x)).mean(axes))
      if not self.is_initializing():
        running_mean.value += (1 - self.momentum) * (mean - running_mean.value)
        running_var.value += (1 - self.momentum) * (var - running_var.value)

    gain = jax.lax.rsqrt(var + self.epsilon)
    if self.use_scale:
      gain *= self.param("scale", self.scale_init, channels)
    y = (x - _as_channel(mean, x)) * _as_channel(gain, x)
    if self.use_bias:
      y += _as_channel(self.param("bias", self.bias_init, channels), x)
    return y.astype(dtype)


class GroupNorm(nn.Module):
  """`flax.linen.GroupNorm` of images [B, H, W, C], with the same parameters (Wu and He 2018).

  Means are taken over the pixels of each channel first, and then by a product of matrices over the channels of a group, so that
  what follows has a number for each channel: were it to look up the channel's group at every pixel, a CPU would take twice as
  long for the layer and its gradient.  Statistics are float32 at any precision of x.
  """

  groups: int
  epsilon: float = 1e-6
  dtype: Any = None  # of the result; the wider one of x and the parameters unless given

  @nn.compact
  def __call__(self, x):
    channels = x.shape[-1:]
    scale = self.param("scale", nn.initializers.ones_init(), channels)
    bias = self.param("bias", nn.initializers.zeros_init(), channels)
    dtype = self.dtype or jnp.promote_types(x.dtype, scale.dtype)
    x = x.astype(jnp.float32)

    channel = np.arange(channels[0]) * self.groups // channels[0]  # its group
    share = np.float32(channel[:, None] == channel) * np.float32(self.groups / channels[0])

    def mean_in_group(values):
      """[B, H, W, C] -> [B, 1, 1, C], the same number for all channels of a group."""
      return jnp.matmul(values.mean((1, 2)), share, precision="highest")[:, None, None]

    centred = x - mean_in_group(x)
    gain = jax.lax.rsqrt(mean_in_group(jnp.square(centred)) + self.epsilon) * _as_channel(scale, x)
    return (centred * gain + _as_channel(bias, x)).astype(dtype)


def group_norm(x, groups: int = 8, dtype: Any = None):
  """x [B, H, W, C] normalised within each example and group of channels, with a scale and bias per channel.

  `groups` groups, or as many of them as share the channels evenly.  Makes a layer of the module that calls it.
  """
  return GroupNorm(math.gcd(groups, x.shape[-1]), dtype=dtype)(x)


def _as_channel(values, x):
  return values.reshape((1,) * (x.ndim - 1) + (-1,))
