"""Images to vectors and back: strided convolutions, and their mirror image."""

from collections.abc import Callable, Sequence

import flax.linen as nn

from gm_jax.errors import UserError
from gm_jax.networks.conv import Conv, ConvTranspose


class ConvEncoder(nn.Module):
  """x [B, H, W, C] -> features [B, hidden], a non-linearity after every layer.  Each entry of `channels` halves the image."""

  channels: Sequence[int] = (32, 64)
  hidden: int = 256
  activation: Callable = nn.relu

  @nn.compact
  def __call__(self, x, train: bool):
    del train
    for features in self.channels:
      x = self.activation(Conv(features, 4, 2)(x))
    return self.activation(nn.Dense(self.hidden)(x.reshape(len(x), -1)))


class ConvDecoder(nn.Module):
  """z [B, Z] -> [B, *shape], linear at the end.  Each entry of `channels` doubles the image; `shape` is (H, W, C)."""

  shape: tuple[int, int, int]
  channels: Sequence[int] = (64, 32)
  hidden: int = 256
  activation: Callable = nn.relu

  @nn.compact
  def __call__(self, z, train: bool):
    del train
    *size, channels = self.shape
    step = 1 << len(self.channels)
    if any(side % step for side in size):
      raise UserError(f"{len(self.channels)} doublings make an image whose sides {step} divides; got {size[0]} x {size[1]}")
    height, width = (side // step for side in size)
    x = self.activation(nn.Dense(self.hidden)(z))
    x = self.activation(nn.Dense(height * width * self.channels[0])(x)).reshape(-1, height, width, self.channels[0])
    for features in self.channels[1:]:
      x = self.activation(ConvTranspose(features, 4, 2)(x))
    return ConvTranspose(channels, 4, 2)(x)
