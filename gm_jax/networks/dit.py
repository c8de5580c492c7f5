"""A diffusion transformer (DiT): Peebles and Xie 2023, https://arxiv.org/abs/2212.09748.

The image is cut into patches, each a token that knows its place, and every token attends to all.  Time and label speak through
the normalisations alone (adaLN-Zero): they give each layer norm its scale and shift, and each half of a block a gate on what it
adds to the tokens.  The gates start at zero, and so does the last layer: a new block is the identity, a new network returns
zero.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.errors import UserError
from gm_jax.networks.attention import self_attention
from gm_jax.networks.embedding import conditioning, sinusoidal
from gm_jax.networks.unet import depth_to_space, space_to_depth

_zeros = nn.initializers.zeros_init()
_xavier = nn.initializers.xavier_uniform()


class DiT(nn.Module):
  """x [B, H, W, C], time [B], label int32 [B] -> [B, H, W, out_channels or C], float32.

  The paper's sizes are `dit_s`, `dit_b`, `dit_l` and `dit_xl`; it has the variance learned too, `out_channels` twice C.

  Attributes:
    features: of a token; a multiple of four, for the places, and of `heads`.
    patch: side of the squares that become tokens.
    num_classes: of the labels; 0 for none.  Label `num_classes` means "no label", as does leaving it out.
    time_scale: times are multiplied by this before the embedding, which likes hundreds: 1 for 0 ... 1000, 1000 for [0, 1].
    dtype: of the computation.  Parameters, statistics, softmax, time and the last layer are float32 at any.
    remat: blocks remember their inputs alone, and compute the rest again for the gradient.
  """

  features: int = 384
  depth: int = 12
  heads: int = 6
  patch: int = 2
  num_classes: int = 0
  out_channels: int | None = None
  time_scale: float = 1.0
  dtype: Any = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(self, x, time, label=None, train: bool = False):
    del train  # nothing here differs
    out_channels = self.out_channels or x.shape[-1]
    _, height, width, _ = x.shape
    if height % self.patch or width % self.patch:
      raise UserError(f"patches of {self.patch} take images whose sides {self.patch} divides; got {height} x {width}")
    told = dict(num_classes=self.num_classes, time_scale=self.time_scale)
    context = conditioning(time, label, dim=256, features=self.features, **told)
    again = nn.remat if self.remat else lambda function: function
    block = again(lambda layer, h, context: layer(h, context))

    patches = space_to_depth(x, self.patch)
    rows, columns = patches.shape[1:3]
    h = nn.Dense(self.features, dtype=self.dtype, kernel_init=_xavier)(patches.reshape(len(x), rows * columns, -1))
    h += places(rows, columns, self.features)[None].astype(h.dtype)
    for _ in range(self.depth):
      h = block(Block(self.heads, self.dtype), h, context)

    shift, scale = _modulation(context, 2, self.features, jnp.float32)
    h = modulated(h, shift, scale, jnp.float32)
    h = nn.Dense(out_channels * self.patch**2, kernel_init=_zeros)(h)
    return depth_to_space(h.reshape(len(x), rows, columns, -1), self.patch)


def dit_s(patch: int = 2, **fields) -> DiT:
  """DiT-S/`patch`: 33 M parameters.  `fields` are the others of `DiT`, as in the next three."""
  return DiT(**{"features": 384, "depth": 12, "heads": 6, "patch": patch, **fields})


def dit_b(patch: int = 2, **fields) -> DiT:
  """DiT-B/`patch`: 130 M parameters."""
  return DiT(**{"features": 768, "depth": 12, "heads": 12, "patch": patch, **fields})


def dit_l(patch: int = 2, **fields) -> DiT:
  """DiT-L/`patch`: 458 M parameters."""
  return DiT(**{"features": 1024, "depth": 24, "heads": 16, "patch": patch, **fields})


def dit_xl(patch: int = 2, **fields) -> DiT:
  """DiT-XL/`patch`: 675 M parameters."""
  return DiT(**{"features": 1152, "depth": 28, "heads": 16, "patch": patch, **fields})


class Block(nn.Module):
  """Tokens h [B, T, F], context [B, E] -> [B, T, F]: attention between tokens, then two layers in each (section 3.2)."""

  heads: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, h, context):
    features = h.shape[-1]
    dense = partial(nn.Dense, dtype=self.dtype, kernel_init=_xavier)
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = _modulation(context, 6, features, self.dtype)
    attended = modulated(h, shift_1, scale_1, self.dtype)
    h += gate_1 * self_attention(attended, self.heads, in_init=_xavier, out_init=_xavier, dtype=self.dtype)
    inner = nn.gelu(dense(4 * features)(modulated(h, shift_2, scale_2, self.dtype)))
    return h + gate_2 * dense(features)(inner)


def _modulation(context, parts: int, features: int, dtype):
  """What the context says to one layer, at first nothing: `parts` arrays [B, 1, F]."""
  return jnp.split(nn.Dense(parts * features, dtype=dtype, kernel_init=_zeros)(context)[:, None], parts, -1)


def modulated(h, shift, scale, dtype):
  """Each token of h [B, T, F] normalised (Ba et al. 2016), statistics in float32, with the scale and shift of its example."""
  norm = nn.LayerNorm(epsilon=1e-6, use_scale=False, use_bias=False, use_fast_variance=False, dtype=dtype)
  return norm(h) * (1 + scale) + shift


def places(rows: int, columns: int, features: int):
  """Each place of a grid, by rows: [rows * columns, features], half of them the sinusoids of its row, half of its column."""
  row = sinusoidal(jnp.arange(rows), features // 2)
  column = sinusoidal(jnp.arange(columns), features // 2)
  return jnp.concatenate([jnp.repeat(row, columns, 0), jnp.tile(column, (rows, 1))], -1)
