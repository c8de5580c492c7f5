"""Images as vectors: encoders and decoders made of matrix products alone."""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn

from gm_jax.networks.mlp import MLP


class Flatten(nn.Module):
  """x [B, H, W, C] -> its pixels [B, H * W * C]: the encoder that leaves all to the layer behind it."""

  @nn.compact
  def __call__(self, x, train: bool):
    del train
    return x.reshape(len(x), -1)


class FlatEncoder(nn.Module):
  """x [B, H, W, C] -> features [B, features[-1]], a non-linearity after every layer."""

  features: Sequence[int]
  activation: Callable = nn.relu

  @nn.compact
  def __call__(self, x, train: bool):
    del train
    return self.activation(MLP(self.features, self.activation)(x.reshape(len(x), -1)))


class FlatDecoder(nn.Module):
  """z [B, Z] -> [B, *shape], linear at the end."""

  features: Sequence[int]
  shape: Sequence[int]
  activation: Callable = nn.relu

  @nn.compact
  def __call__(self, z, train: bool):
    del train
    return MLP((*self.features, math.prod(self.shape)), self.activation)(z).reshape(len(z), *self.shape)
