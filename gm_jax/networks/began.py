"""The networks of BEGAN (Berthelot, Schumm and Metz 2017): a critic that is an autoencoder, and judges by how well it does.

What the critic has learnt to reconstruct, it takes to be data.  The generator is a decoder like the critic's.  No layer is
normalised, and none mixes examples.
"""

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.errors import UserError
from gm_jax.networks.conv import Conv, convolve, convolve_doubled
from gm_jax.networks.players import Critic


class Encoder(nn.Module):
  """x [B, H, W, C] -> codes [B, hidden], linear at the end."""

  hidden: int = 64
  base: int = 64  # channels at full size; as many more at each level below
  halvings: int = 2

  @nn.compact
  def __call__(self, x, train: bool):
    del train
    _check(x.shape[1:3], self.halvings)
    x = nn.elu(Conv(self.base, 3)(x))
    for level in range(1, self.halvings + 2):
      for _ in range(2):
        x = nn.elu(Conv(level * self.base, 3)(x))
      if level <= self.halvings:
        x = nn.elu(Conv((level + 1) * self.base, 3, 2)(x))
    return nn.Dense(self.hidden)(x.reshape(len(x), -1))


class Decoder(nn.Module):
  """Codes [B, hidden] -> images [B, *shape]; linear at the end as in the paper, so that white and black are reached."""

  shape: tuple[int, int, int]
  base: int = 64
  halvings: int = 2

  @nn.compact
  def __call__(self, z, train: bool):
    del train
    *size, channels = self.shape
    _check(size, self.halvings)
    height, width = (side >> self.halvings for side in size)
    x = nn.Dense(height * width * self.base)(z).reshape(-1, height, width, self.base)
    for level in range(self.halvings + 1):
      convolution = convolve_doubled if level else convolve
      x = nn.elu(Conv(self.base, 3, conv_general_dilated=convolution)(x))
      x = nn.elu(Conv(self.base, 3)(x))
    return Conv(channels, 3)(x)


class AutoencodingCritic(Critic):
  """Judges x [B, H, W, C] by L(x), the mean over pixels and channels of |x - decoder(encoder(x))|: logits [B] are -L(x).

  Its features are the codes.  Encoder and decoder are any modules `(x, train) -> codes` and `(codes, train) -> images`.
  """

  encoder: nn.Module
  decoder: nn.Module

  def judge(self, x, train: bool):
    codes = self.encoder(x, train)
    return -jnp.abs(x - self.decoder(codes, train)).reshape(len(x), -1).mean(-1), codes

  def reconstruct(self, x, train: bool):
    return self.decoder(self.encoder(x, train), train)


def _check(size, halvings: int):
  if any(side % (1 << halvings) for side in size):
    raise UserError(f"{halvings} halvings take images whose sides {1 << halvings} divides; got {size[0]} x {size[1]}")
