"""A time-conditioned U-Net: the network of Ho, Jain and Abbeel 2020, with the scale-shift of Nichol and Dhariwal 2021.

The image goes down through levels of half the size, each a few residual blocks, and comes up again through their mirror image,
where every block also sees what its counterpart on the way down has made.  Time (and a label) enter each block as a scale and a
shift of its channels.  The last convolution of every block, and of the network, starts at zero: a new block is the identity, a
new network returns zero.

A full-resolution image is what a CPU is worst at.  `patch=2` folds 2 x 2 pixels into channels first and unfolds them last, four
times less work for the same receptive field.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.errors import UserError
from gm_jax.networks.attention import Attention
from gm_jax.networks.conv import Conv
from gm_jax.networks.dropout import Dropout
from gm_jax.networks.embedding import sinusoidal
from gm_jax.networks.norm import group_norm

_zeros = nn.initializers.zeros_init()


class UNet(nn.Module):
  """x [B, H, W, C], time [B], label int32 [B] -> [B, H, W, out_channels or C].

  Attributes:
    channels: of each level, from the finest; each level but the last halves the image.
    blocks: residual blocks per level on the way down; one more on the way up.
    attention: the levels that attend over pixels, counted from the finest, 0.  The bottom between the two ways always does.
    patch: side of the squares that become channels.
    num_classes: of the labels; 0 for none.  Label `num_classes` means "no label", as does leaving it out.
    time_scale: times are multiplied by this before the embedding, which likes hundreds: 1 for 0 ... 1000, 1000 for [0, 1].
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

  @nn.compact
  def __call__(self, x, time, label=None, train: bool = False):
    out_channels = self.out_channels or x.shape[-1]
    self._check(x.shape, label)
    context = self._context(time, label)
    block = lambda features, h: ResidualBlock(features, self.dropout)(h, context, train)
    attend = lambda level, h: Attention(self.heads)(h) if level in self.attention else h

    h = Conv(self.channels[0], 3)(space_to_depth(x, self.patch))
    skips = [h]
    for level, features in enumerate(self.channels):
      if level > 0:
        h = Conv(features, 3, 2)(h)
        skips.append(h)
      for _ in range(self.blocks):
        h = attend(level, block(features, h))
        skips.append(h)

    deepest = self.channels[-1]
    h = block(deepest, Attention(self.heads)(block(deepest, h)))

    for level, features in reversed(list(enumerate(self.channels))):
      for _ in range(self.blocks + 1):
        h = attend(level, block(features, jnp.concatenate([h, skips.pop()], -1)))
      if level > 0:
        h = Conv(features, 3)(double(h))

    h = nn.silu(group_norm(h))
    h = Conv(out_channels * self.patch**2, 3, kernel_init=_zeros)(h)
    return depth_to_space(h, self.patch)

  def _context(self, time, label):
    """What every block is told: [B, 4 * channels[0]], time and label together."""
    width = 4 * self.channels[0]
    context = sinusoidal(time * self.time_scale, self.channels[0])
    context = nn.Dense(width)(nn.silu(nn.Dense(width)(context)))
    if self.num_classes:
      label = jnp.full(time.shape, self.num_classes) if label is None else label
      context += nn.Embed(self.num_classes + 1, width)(label)
    return nn.silu(context)

  def _check(self, shape, label):
    step = self.patch << (len(self.channels) - 1)
    if shape[1] % step or shape[2] % step:
      depth = f"{len(self.channels)} levels on patches of {self.patch}"
      raise UserError(f"{depth} take images whose sides {step} divides; got {shape[1]} x {shape[2]}")
    if label is not None and not self.num_classes:
      raise UserError("this U-Net was built without labels; give it num_classes")


class ResidualBlock(nn.Module):
  """x [B, H, W, C], context [B, E] -> [B, H, W, features]."""

  features: int
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x, context, train: bool):
    h = Conv(self.features, 3)(nn.silu(group_norm(x)))
    scale, shift = jnp.split(nn.Dense(2 * self.features)(context)[:, None, None], 2, -1)
    h = nn.silu(group_norm(h) * (1 + scale) + shift)
    h = Conv(self.features, 3, kernel_init=_zeros)(Dropout(self.dropout)(h, train))
    return h + (x if x.shape[-1] == self.features else Conv(self.features, 1)(x))


def double(x):
  """Nearest neighbours: [B, H, W, C] -> [B, 2 H, 2 W, C]."""
  return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)


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
