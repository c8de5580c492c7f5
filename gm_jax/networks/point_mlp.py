"""A time-conditioned network for points: the residual block of the U-Net without its pixels.

Points of D numbers are images of one pixel, [B, 1, 1, D], so that whatever works with images works with them.  Time (and a
label) enter each block as a scale and a shift of its units: how steep a denoiser is depends on the noise, and a scale says that
at once.  The last layer of every block, and of the network, starts at zero: a new block is the identity, a new network returns
zero.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.errors import UserError
from gm_jax.networks.dropout import Dropout
from gm_jax.networks.embedding import conditioning

_zeros = nn.initializers.zeros_init()


class PointMLP(nn.Module):
  """x [B, 1, 1, D], time [B], label int32 [B] -> [B, 1, 1, out_channels or D], float32.

  Attributes:
    features: units of each layer.
    blocks: residual blocks, each of two layers.
    num_classes: of the labels; 0 for none.  Label `num_classes` means "no label", as does leaving it out.
    time_scale: times are multiplied by this before the embedding, which likes hundreds: 1 for 0 ... 1000, 1000 for [0, 1].
    dtype: of the computation.  Parameters, time and the last layer are float32 at any.
    remat: blocks remember their inputs alone, and compute the rest again for the gradient.
  """

  features: int = 128
  blocks: int = 3
  dropout: float = 0.0
  num_classes: int = 0
  out_channels: int | None = None
  time_scale: float = 1.0
  dtype: Any = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(self, x, time, label=None, train: bool = False):
    batch, height, width, size = x.shape
    if (height, width) != (1, 1):
      raise UserError(f"points are images of one pixel, [B, 1, 1, D]; got {height} x {width}")
    told = dict(num_classes=self.num_classes, time_scale=self.time_scale)
    context = conditioning(time, label, dim=self.features, features=self.features, **told)
    again = nn.remat if self.remat else lambda function: function
    block = again(lambda layer, h, context: layer(h, context, train))

    h = nn.Dense(self.features, dtype=self.dtype)(x.reshape(batch, size))
    for _ in range(self.blocks):
      h = block(Block(self.dropout, self.dtype), h, context)
    h = nn.silu(h.astype(jnp.float32))
    y = nn.Dense(self.out_channels or size, kernel_init=_zeros)(h)
    return y[:, None, None]


class Block(nn.Module):
  """h [B, F], context [B, E] -> [B, F]."""

  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, h, context, train: bool):
    features = h.shape[-1]
    scale, shift = jnp.split(nn.Dense(2 * features, dtype=self.dtype)(context), 2, -1)
    inner = nn.Dense(features, dtype=self.dtype)(nn.silu(h)) * (1 + scale) + shift
    inner = Dropout(self.dropout)(nn.silu(inner), train)
    return h + nn.Dense(features, dtype=self.dtype, kernel_init=_zeros)(inner)
