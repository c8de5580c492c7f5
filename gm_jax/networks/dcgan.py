"""The two players of DCGAN (Radford, Metz and Chintala 2016).

Strides instead of pooling, no fully connected hidden layer, batch normalisation everywhere but at the generator's output
and the critic's input, weights drawn from N(0, 0.02).

An image is halved twice, then for as long as it stays at least 4 wide: 8 -> 4 -> 2, 28 -> 14 -> 7, 32 -> 16 -> 8 -> 4.  At
base 64 a 28 x 28 generator has 128 and 64 channels before its output, the critic 64 and 128.
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.errors import UserError
from gm_jax.networks.conv import Conv, ConvTranspose
from gm_jax.networks.norm import BatchNorm
from gm_jax.networks.players import Critic

_weights = nn.initializers.normal(0.02)


def _gain(key, shape, dtype=jnp.float32):
  return 1 + _weights(key, shape, dtype)


def batch_norm():
  """BatchNorm with DCGAN's start."""
  return BatchNorm(scale_init=_gain)


class Generator(nn.Module):
  """Latents z [B, Z] -> images [B, *shape] in [-1, 1]."""

  shape: tuple[int, int, int]  # height, width, channels
  base: int = 64  # channels before the output; twice as many one level below
  norm: Callable[[], nn.Module] | None = batch_norm

  @nn.compact
  def __call__(self, z, train: bool):
    *size, channels = self.shape
    halvings = _halvings(size)
    height, width = (side >> halvings for side in size)
    features = self.base << (halvings - 1)
    # DCGAN's first layer is a transposed convolution of a 1 x 1 image, which is a matrix product.
    x = nn.Dense(height * width * features, use_bias=self.norm is None, kernel_init=_weights)(z)
    x = nn.relu(_normed(self.norm, x.reshape(-1, height, width, features), train))
    for level in reversed(range(halvings - 1)):
      x = ConvTranspose(self.base << level, 4, 2, use_bias=self.norm is None, kernel_init=_weights)(x)
      x = nn.relu(_normed(self.norm, x, train))
    return jnp.tanh(ConvTranspose(channels, 4, 2, kernel_init=_weights)(x))


class Discriminator(Critic):
  """Images x [B, H, W, C] -> logits [B].  With `norm=None` the logit of an image depends on no other (WGAN-GP needs that)."""

  base: int = 64  # channels after the first layer; twice as many after each further one
  norm: Callable[[], nn.Module] | None = batch_norm

  @nn.compact
  def judge(self, x, train: bool):
    halvings = _halvings(x.shape[1:3])
    x = nn.leaky_relu(Conv(self.base, 4, 2, kernel_init=_weights)(x), 0.2)
    for level in range(1, halvings):
      x = Conv(self.base << level, 4, 2, use_bias=self.norm is None, kernel_init=_weights)(x)
      x = nn.leaky_relu(_normed(self.norm, x, train), 0.2)
    features = x.reshape(len(x), -1)
    # Likewise a convolution over the whole image.
    return nn.Dense(1, kernel_init=_weights)(features)[:, 0], features


def _normed(norm, x, train):
  return x if norm is None else norm()(x, train)


def _halvings(size) -> int:
  """How often an image of this size is halved: at least twice, then for as long as it stays at least 4 wide."""
  count, (height, width) = 0, size
  while height % 2 == width % 2 == 0 and (count < 2 or min(height, width) >= 8):
    height, width, count = height // 2, width // 2, count + 1
  if count < 2:
    raise UserError(f"DCGAN's images have a height and a width that 4 divides; got {size[0]} x {size[1]}")
  return count
