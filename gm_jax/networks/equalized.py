"""Layers whose weights all learn at one pace: equalised learning rate (Karras et al. 2018, section 4.1).

Weights start as N(0, 1), and every call multiplies them by He's constant, gain / sqrt(fan-in), instead of the start doing so
once.  A new layer computes the same either way.  But a step of Adam has the same size for every weight whatever its gradient's
scale, so that a weight that is stored small moves by more of itself than one that is stored large; here all are stored alike.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.networks.conv import convolve

HE = math.sqrt(2)  # the gain before a rectifier, which loses half of its input's power


class EqualDense(nn.Module):
  """x [B, D] -> [B, features].

  Attributes:
    gain: deviation of a new layer's output where the input's mean square is 1.
    pace: weights and biases learn that much slower than the optimiser's step: they are stored larger, and scaled by it.
    bias: where biases start.
  """

  features: int
  gain: float = HE
  pace: float = 1.0
  bias: float = 0.0

  @nn.compact
  def __call__(self, x):
    kernel = self.param("kernel", nn.initializers.normal(1 / self.pace), (x.shape[-1], self.features))
    bias = self.param("bias", nn.initializers.constant(self.bias / self.pace), (self.features,))
    return x @ he(kernel, self.gain * self.pace) + self.pace * bias[None]


class EqualConv(nn.Module):
  """x [B, H, W, C] -> [B, H', W', features], with a kernel of `size` x `size`."""

  features: int
  size: int
  gain: float = HE
  stride: int = 1
  padding: str = "SAME"
  use_bias: bool = True
  convolve: Callable = convolve

  @nn.compact
  def __call__(self, x):
    kernel = self.param("kernel", nn.initializers.normal(1), (self.size, self.size, x.shape[-1], self.features))
    y = self.convolve(x, he(kernel, self.gain), (self.stride, self.stride), self.padding)
    return y + self.param("bias", nn.initializers.zeros_init(), (self.features,))[None, None, None] if self.use_bias else y


def he(kernel, gain: float = HE):
  """A stored kernel [..., I, O] of unit weights -> the one to compute with."""
  return kernel * (gain / math.sqrt(math.prod(kernel.shape[:-1])))


def leaky(x):
  return nn.leaky_relu(x, 0.2)


def pixel_norm(x):
  """x [..., C] scaled to a mean square of 1 over C, at every pixel of every example (Karras et al. 2018, section 4.2)."""
  return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-8)
