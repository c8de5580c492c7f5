"""A time-conditioned U-Net: the network of Ho, Jain and Abbeel 2020, with the scale-shift of Nichol and Dhariwal 2021.

The image goes down through levels of half the size, each a few residual blocks, and comes up again through their mirror image,
where every block also sees what its counterpart on the way down has made.  Time (and a label) enter each block as a scale and a
shift of its channels.  The last convolution of every block, and of the network, starts at zero: a new block is the identity, a
new network returns zero.

A full-resolution image is what a CPU is worst at.  `patch=2` folds 2 x 2 pixels into channels first and unfolds them last, four
times less work for the same receptive field.  On a GPU, what is short is speed and memory: `dtype=jnp.bfloat16`, `remat=True`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.errors import UserError
from gm_jax.networks.attention import Attention
from gm_jax.networks.conv import Conv, convolve_doubled
from gm_jax.networks.dropout import Dropout
from gm_jax.networks.embedding import conditioning
from gm_jax.networks.norm import group_norm

_zeros = nn.initializers.zeros_init()


class UNet(nn.Module):
  """x [B, H, W, C], time [B], label int32 [B] -> [B, H, W, out_channels or C], float32.

  Attributes:
    channels: of each level, from the finest; each level but the last halves the image.
    blocks: residual blocks per level on the way down; one more on the way up.
    attention: the levels that attend over pixels, counted from the finest, 0.  The bottom between the two ways always does.
    patch: side of the squares that become channels.
    num_classes: of the labels; 0 for none.  Label `num_classes` means "no label", as does leaving it out.
    time_scale: times are multiplied by this before the embedding, which likes hundreds: 1 for 0 ... 1000, 1000 for [0, 1].
    groups: of each group norm, or as many of them as share the channels evenly.
    scale_shift: time scales and shifts the channels of a block; if not, it is added to them as in DDPM.
    attention_bias: queries, keys and values have one.
    widen_first: the convolution that halves the image makes the next level's channels; if not, the block behind it does.
    dtype: of the computation.  Parameters, statistics, softmax, time and the last convolution are float32 at any.
    remat: blocks remember their inputs alone, and compute the rest again for the gradient.
  """

  channels: Sequence[int] = (48, 96)
  blocks: int = 2
  attention: Sequence[int] = (1,)
  patch: int = 1
  dropout: float = 0.0
  num_classes: int = 0
  out_channels: int | None = None
  heads: int = 4
  time_scale: float = 1.0
  groups: int = 8
  scale_shift: bool = True
  attention_bias: bool = False
  widen_first: bool = True
  dtype: Any = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(self, x, time, label=None, train: bool = False):
    out_channels = self.out_channels or x.shape[-1]
    self._check(x.shape)
    told = dict(num_classes=self.num_classes, time_scale=self.time_scale)
    context = conditioning(time, label, dim=self.channels[0], features=4 * self.channels[0], **told)
    conv = partial(Conv, kernel_size=3, dtype=self.dtype)
    again = nn.remat if self.remat else lambda function: function

    def block(features, h):
      layer = ResidualBlock(features, self.dropout, self.groups, self.scale_shift, self.dtype)
      return again(lambda layer, h, context: layer(h, context, train))(layer, h, context)

    def attend(h):
      return again(lambda layer, h: layer(h))(Attention(self.heads, self.groups, self.attention_bias, self.dtype), h)

    h = conv(self.channels[0])(space_to_depth(x, self.patch))
    skips = [h]
    for level, features in enumerate(self.channels):
      if level > 0:
        h = conv(features if self.widen_first else h.shape[-1], strides=2)(h)
        skips.append(h)
      for _ in range(self.blocks):
        h = block(features, h)
        h = attend(h) if level in self.attention else h
        skips.append(h)

    h = block(self.channels[-1], h)
    h = block(self.channels[-1], attend(h))

    for level, features in reversed(list(enumerate(self.channels))):
      for _ in range(self.blocks + 1):
        h = block(features, jnp.concatenate([h, skips.pop()], -1))
        h = attend(h) if level in self.attention else h
      if level > 0:
        h = conv(features, conv_general_dilated=convolve_doubled)(h)

    h = nn.silu(group_norm(h, self.groups, jnp.float32))
    h = Conv(out_channels * self.patch**2, 3, kernel_init=_zeros)(h)
    return depth_to_space(h, self.patch)

  def _check(self, shape):
    step = self.patch << (len(self.channels) - 1)
    if shape[1] % step or shape[2] % step:
      depth = f"{len(self.channels)} levels on patches of {self.patch}"
      raise UserError(f"{depth} take images whose sides {step} divides; got {shape[1]} x {shape[2]}")


_ddpm = partial(UNet, blocks=2, heads=1, groups=32, scale_shift=False, attention_bias=True, widen_first=False)


def ddpm_cifar10(**fields) -> UNet:
  """DDPM's network for 32 x 32 (appendix B): 35.7 M parameters, attention at 16 x 16.  `fields` are those of `UNet`."""
  return _ddpm(**{"channels": (128, 256, 256, 256), "attention": (1,), "dropout": 0.1, **fields})


def ddpm_256(**fields) -> UNet:
  """DDPM's network for 256 x 256 (appendix B): 114 M parameters, attention at 16 x 16.  `fields` are those of `UNet`."""
  return _ddpm(**{"channels": (128, 128, 256, 256, 512, 512), "attention": (4,), **fields})


class ResidualBlock(nn.Module):
  """x [B, H, W, C], context [B, E] -> [B, H, W, features]."""

  features: int
  dropout: float = 0.0
  groups: int = 8
  scale_shift: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, context, train: bool):
    conv, norm = partial(Conv, dtype=self.dtype), partial(group_norm, groups=self.groups, dtype=self.dtype)
    told = lambda features: nn.Dense(features, dtype=self.dtype)(context)[:, None, None]
    h = conv(self.features, 3)(nn.silu(norm(x)))
    if self.scale_shift:
      scale, shift = jnp.split(told(2 * self.features), 2, -1)
      h = norm(h) * (1 + scale) + shift
    else:
      h = norm(h + told(self.features))
    h = conv(self.features, 3, kernel_init=_zeros)(Dropout(self.dropout)(nn.silu(h), train))
    return h + (x if x.shape[-1] == self.features else conv(self.features, 1)(x))


def space_to_depth(x, patch: int):
  """[B, H, W, C] -> [B, H / patch, W / patch, patch * patch * C]."""
  b, h, w, c = x.shape
  x = x.reshape(b, h // patch, patch, w // patch, patch, c).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, h // patch, w // patch, -1)


def depth_to_space(x, patch: int):
  """The inverse of `space_to_depth`."""
  b, h, w, _ = x.shape
  x = x.reshape(b, h, w, patch, patch, -1).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, h * patch, w * patch, -1)
