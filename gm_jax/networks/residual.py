"""A residual network from images to images of the same size."""

from collections.abc import Sequence

import flax.linen as nn

from gm_jax.networks.conv import Conv


class ResidualNet(nn.Module):
  """x [B, H, W, C] -> x + what is missing, [B, H, W, C]; at the start the identity.

  Blocks of two 3 x 3 convolutions, the first of each dilated, so that a few of them see far.
  """

  features: int = 32
  dilations: Sequence[int] = (1, 2, 4, 1)

  @nn.compact
  def __call__(self, x, train: bool):
    del train
    h = Conv(self.features, 3)(x)
    for dilation in self.dilations:
      inner = Conv(self.features, 3, kernel_dilation=dilation)(nn.relu(h))
      h += Conv(self.features, 3)(nn.relu(inner))
    return x + Conv(x.shape[-1], 3, kernel_init=nn.initializers.zeros_init())(nn.relu(h))
