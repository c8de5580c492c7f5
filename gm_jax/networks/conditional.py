"""Players that are told a label, made of players that are not.

The label comes in as a one-hot code beside the input (Mirza and Osindero 2014), or in the critic as the inner product of its
features with a vector that each class learns: the form that log p(label | x) has in a classifier (Miyato and Koyama 2018).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.networks.players import Critic, judged


class ConditionalGenerator(nn.Module):
  """Latents z [B, Z] and labels int32 [B] -> the images of `generator` at [z, one-hot], [B, Z + num_classes]."""

  generator: nn.Module
  num_classes: int

  def __call__(self, z, train: bool, label, **more):
    return self.generator(jnp.concatenate([z, jax.nn.one_hot(label, self.num_classes)], -1), train, **more)


class ConditionalCritic(Critic):
  """The logits of `critic` for images with `num_classes` more channels: constant, one of them 1 and the others 0.

  A pack of images has a label for each, int32 [B, num], and the channels of all of them.
  """

  critic: nn.Module
  num_classes: int

  def judge(self, x, train: bool, label, **more):
    code = jax.nn.one_hot(label, self.num_classes).reshape(len(x), 1, 1, -1)
    code = jnp.broadcast_to(code, (*x.shape[:-1], code.shape[-1]))
    return judged(self.critic, jnp.concatenate([x, code], -1), train, **more)


class ProjectionCritic(Critic):
  """The logits of `critic`, plus the inner product of its features with the label's vector (Miyato and Koyama 2018, figure 1d).

  A pack of images has a label for each, int32 [B, num], and the sum of their vectors.
  """

  critic: nn.Module
  num_classes: int

  @nn.compact
  def judge(self, x, train: bool, label, **more):
    logits, features = judged(self.critic, x, train, **more)
    vectors = nn.Embed(self.num_classes, features.shape[-1])(label).reshape(len(x), -1, features.shape[-1])
    return logits + (vectors.sum(1) * features).sum(-1), features
