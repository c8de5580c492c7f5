"""The networks of InfoGAN (Chen et al. 2016, appendix C.1): the two players, and the recogniser that shares the critic's trunk.

The generator's latents hold codes beside noise: categories, one-hot, and numbers in [-1, 1].  The recogniser reads the codes
off an image; that it can is what keeps the generator from ignoring them.

The two players are also those of "Are GANs Created Equal?" (Lucic et al. 2018).
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.errors import UserError
from gm_jax.networks.conv import Conv, ConvTranspose
from gm_jax.networks.norm import BatchNorm
from gm_jax.networks.players import Critic, judged


class Codes(NamedTuple):
  """What the recogniser believes of the codes behind an image."""

  logits: tuple[jax.Array, ...]  # [B, K] of each categorical code
  mean: jax.Array  # [B, numbers], of a normal law
  log_std: jax.Array  # [B, numbers]


class Generator(nn.Module):
  """z [B, Z] -> images [B, *shape] in [-1, 1]; 4 divides the height and the width."""

  shape: tuple[int, int, int]
  base: int = 64  # channels before the output; twice as many one level below, and 16 times as many units in the first layer
  norm: Callable[[], nn.Module] | None = BatchNorm

  @nn.compact
  def __call__(self, z, train: bool):
    *size, channels = self.shape
    if any(side % 4 for side in size):
      raise UserError(f"InfoGAN's images have a height and a width that 4 divides; got {size[0]} x {size[1]}")
    height, width = (side // 4 for side in size)
    active = lambda x: nn.relu(_normed(self.norm, x, train))
    x = active(nn.Dense(16 * self.base, use_bias=self.norm is None)(z))
    x = active(nn.Dense(height * width * 2 * self.base, use_bias=self.norm is None)(x))
    x = x.reshape(-1, height, width, 2 * self.base)
    x = active(ConvTranspose(self.base, 4, 2, use_bias=self.norm is None)(x))
    return jnp.tanh(ConvTranspose(channels, 4, 2)(x))


class Discriminator(Critic):
  """Images [B, H, W, C] -> logits [B].  With `norm=None` the logit of an image depends on no other."""

  base: int = 64
  norm: Callable[[], nn.Module] | None = BatchNorm

  @nn.compact
  def judge(self, x, train: bool):
    active = lambda x: nn.leaky_relu(_normed(self.norm, x, train), 0.1)
    x = nn.leaky_relu(Conv(self.base, 4, 2)(x), 0.1)
    x = active(Conv(2 * self.base, 4, 2, use_bias=self.norm is None)(x))
    x = active(nn.Dense(16 * self.base, use_bias=self.norm is None)(x.reshape(len(x), -1)))
    return nn.Dense(1)(x)[:, 0], x


class InfoCritic(Critic):
  """Any critic, and a recogniser of codes that reads the same features.

  Attributes:
    critic: whose `judge(x, train)` gives logits and features.
    categories: how many values each categorical code has.
    numbers: how many continuous codes there are.
    hidden: units of the recogniser's own layer.  The paper normalises it over the batch; here the critic decides what mixes.
  """

  critic: nn.Module
  categories: Sequence[int] = (10,)
  numbers: int = 2
  hidden: int = 128

  def setup(self):
    self.between = nn.Dense(self.hidden)
    self.last = nn.Dense(sum(self.categories) + 2 * self.numbers)

  def judge(self, x, train: bool, **more):
    logits, features = judged(self.critic, x, train, **more)
    if self.is_initializing():
      self._read(features)  # the recogniser exists, whichever player asks first
    return logits, features

  def recognise(self, x, train: bool, **more) -> Codes:
    return self.judge_and_recognise(x, train, **more)[1]

  def judge_and_recognise(self, x, train: bool, **more):
    """Logits [B] and `Codes`, in one pass through the trunk."""
    logits, features = judged(self.critic, x, train, **more)
    return logits, self._read(features)

  def _read(self, features) -> Codes:
    read = self.last(nn.leaky_relu(self.between(features), 0.1))
    *logits, mean, log_std = jnp.split(read, list(accumulate((*self.categories, self.numbers))), -1)
    return Codes(tuple(logits), mean, log_std)


def _normed(norm, x, train):
  return x if norm is None else norm()(x, train)
