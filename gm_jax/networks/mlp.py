"""A multilayer perceptron."""

from collections.abc import Callable, Sequence

import flax.linen as nn


class MLP(nn.Module):
  """[..., D] -> [..., features[-1]]; the activation stands between layers, not after the last."""

  features: Sequence[int]
  activation: Callable = nn.relu

  @nn.compact
  def __call__(self, x):
    *hidden, out = self.features
    for size in hidden:
      x = self.activation(nn.Dense(size)(x))
    return nn.Dense(out)(x)
