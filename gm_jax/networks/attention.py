"""Self-attention: between tokens, and between the pixels of one image."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.networks.norm import group_norm


class Attention(nn.Module):
  """x [B, H, W, C] -> x + attention over all H * W pixels; at the start the identity.

  Group norm, one matrix product for queries, keys and values, `heads` heads of C / heads channels, output weights zero.
  """

  heads: int = 4
  groups: int = 8
  use_bias: bool = False  # of queries, keys and values
  dtype: Any = jnp.float32  # of the computation; parameters, statistics and the softmax are float32

  @nn.compact
  def __call__(self, x):
    pixels = group_norm(x, self.groups, self.dtype).reshape(len(x), -1, x.shape[-1])
    h = self_attention(pixels, self.heads, self.use_bias, out_init=nn.initializers.zeros_init(), dtype=self.dtype)
    return x + h.reshape(x.shape)


def self_attention(x, heads: int, use_bias: bool = True, *, in_init: Callable | None = None, out_init: Callable, dtype: Any):
  """x [B, T, C] -> [B, T, C]: each token attends to all T, in `heads` heads of C / heads channels (Vaswani et al. 2017).

  Scores and softmax are float32 at any `dtype`.  Makes two layers of the module that calls it.
  """
  batch, tokens, channels = x.shape
  if channels % heads:
    raise ValueError(f"{channels} channels cannot be shared by {heads} heads")
  in_init = in_init or nn.initializers.lecun_normal()
  qkv = nn.Dense(3 * channels, use_bias, dtype=dtype, kernel_init=in_init)(x)
  q, k, v = (part.reshape(batch, tokens, heads, -1) for part in jnp.split(qkv, 3, -1))  # [B, T, heads, c]
  q = q / math.sqrt(channels // heads)  # and not the scores, of which there are more
  scores = jnp.einsum("bqhc,bkhc->bhqk", q, k, preferred_element_type=jnp.float32)
  # The softmax's denominators divide the result and not the weights, of which there are more; so do their gradients.
  weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
  # Heads first and swapped after: else the weights would be transposed for the product.
  h = jnp.einsum("bhqk,bkhc->bhqc", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
  # Broadcast by hand, so that its gradient is a product and, apart, a sum: ten times as fast as XLA's loop on a CPU for both.
  h = h * jnp.broadcast_to(1 / weights.sum(-1, keepdims=True), h.shape)
  h = h.astype(v.dtype).swapaxes(1, 2)
  return nn.Dense(channels, dtype=dtype, kernel_init=out_init)(h.reshape(x.shape))
