"""Self-attention between the pixels of one image."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.networks.norm import group_norm


class Attention(nn.Module):
  """x [B, H, W, C] -> x + attention over all H * W pixels; at the start the identity.

  Group norm, one matrix product for queries, keys and values, `heads` heads of C / heads channels, output weights zero.
  """

  heads: int = 4

  @nn.compact
  def __call__(self, x):
    batch, height, width, channels = x.shape
    if channels % self.heads:
      raise ValueError(f"{channels} channels cannot be shared by {self.heads} heads")
    h = group_norm(x)
    h = nn.Dense(3 * channels, use_bias=False)(h.reshape(batch, height * width, channels))
    q, k, v = (part.reshape(batch, height * width, self.heads, -1) for part in jnp.split(h, 3, -1))  # [B, pixels, heads, c]
    scores = jnp.einsum("bqhc,bkhc->bhqk", q, k) / math.sqrt(channels // self.heads)
    h = jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(scores), v).reshape(batch, height, width, channels)
    return x + nn.Dense(channels, kernel_init=nn.initializers.zeros_init())(h)
