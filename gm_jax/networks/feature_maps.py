"""Images to feature maps and back, [B, H, W, C] <-> [B, h, w, F]: strided convolutions and residual blocks, no vectors."""

from collections.abc import Sequence

import flax.linen as nn

from gm_jax.networks.conv import Conv, ConvTranspose


class Down(nn.Module):
  """x [B, H, W, C] -> [B, H / s, W / s, features], s = 2 ^ len(channels); linear at the end."""

  features: int
  channels: Sequence[int] = (32, 64)  # of the layers, each of which halves the image
  blocks: int = 1

  @nn.compact
  def __call__(self, x, train: bool):
    del train
    for index, channels in enumerate(self.channels):
      x = Conv(channels, 4, 2)(nn.relu(x) if index else x)
    for _ in range(self.blocks):
      x += _residual(x)
    return Conv(self.features, 1)(nn.relu(x))


class Up(nn.Module):
  """x [B, h, w, F] -> [B, h * s, w * s, features], s = 2 ^ len(channels); linear at the end."""

  features: int
  channels: Sequence[int] = (64, 32)  # that go into the layers, each of which doubles the image
  blocks: int = 1

  @nn.compact
  def __call__(self, x, train: bool):
    del train
    x = Conv(self.channels[0], 3)(x)
    for _ in range(self.blocks):
      x += _residual(x)
    for channels in [*self.channels[1:], self.features]:
      x = ConvTranspose(channels, 4, 2)(nn.relu(x))
    return x


def _residual(x):
  """What a block adds to x; makes layers of the module that calls it."""
  features = x.shape[-1]
  inner = Conv(max(features // 2, 1), 3)(nn.relu(x))
  return Conv(features, 1)(nn.relu(inner))
