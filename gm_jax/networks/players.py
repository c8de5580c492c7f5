"""What a game asks of its two players, and the plainest ones: matrix products alone.

A generator is a module `generator(z, train)` -> images [B, H, W, C] in [-1, 1], from latents z [B, Z].  A critic is a module
`critic(x, train)` -> logits [B], above zero for what it takes to be data.  Players that are told a label take it third.  What
else one of them knows (the level of a growing one, the key of a style's noise) is a keyword, which wrappers hand through.
"""

from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.networks.flat import FlatDecoder, FlatEncoder


class Critic(nn.Module):
  """A judge of images.  A subclass writes `judge`, which is what wrappers call; the two calls of a game are its halves."""

  def judge(self, x, train: bool, *label, **more):
    """x [B, H, W, C] -> logits [B], and the features [B, F] that they were read off."""
    raise NotImplementedError

  def __call__(self, x, train: bool, *label, **more):
    return self.judge(x, train, *label, **more)[0]

  def features(self, x, train: bool, *label, **more):
    return self.judge(x, train, *label, **more)[1]


def judged(critic: nn.Module, x, train: bool, *label, **more):
  """Logits and features of any critic that has both: in one pass if it is a `Critic`, in two otherwise."""
  if hasattr(critic, "judge"):
    return critic.judge(x, train, *label, **more)
  return critic(x, train, *label, **more), critic.features(x, train, *label, **more)


class FlatGenerator(nn.Module):
  """z [B, Z] -> [B, *shape].  `output` comes last: tanh for images, the identity for 2-D points, which have no range."""

  features: Sequence[int]
  shape: Sequence[int]
  activation: Callable = nn.relu
  output: Callable = jnp.tanh

  @nn.compact
  def __call__(self, z, train: bool):
    return self.output(FlatDecoder(self.features, self.shape, self.activation)(z, train))


class FlatCritic(Critic):
  """x [B, H, W, C] -> logits [B]; its features are the last of the hidden layers."""

  hidden: Sequence[int]
  activation: Callable = partial(nn.leaky_relu, negative_slope=0.2)

  @nn.compact
  def judge(self, x, train: bool):
    features = FlatEncoder(self.hidden, self.activation)(x, train)
    return nn.Dense(1)(features)[:, 0], features
