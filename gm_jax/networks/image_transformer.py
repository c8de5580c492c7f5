"""A causal image transformer: each pixel looks back at the pixels that it finds relevant, within some rows above it.

Parmar et al. 2018 (https://arxiv.org/abs/1802.05751), with the blocks of Chen et al. 2020 (Generative Pretraining from Pixels).
The token at a pixel is the value of the pixel before it in raster order, so a token may be attended to where it stands: what it
knows lies before.  The queries of a row share their keys, the rows that they may look at, so memory grows with
H * W * (reach + 1) * W and not with (H * W)^2.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.networks import pixelcnn
from gm_jax.networks.causal import CausalConv, Pixelwise, Place, Scan
from gm_jax.networks.dropout import Dropout


class ImageTransformer(nn.Module):
  """x [B, H, W, C], label int32 [B] or None -> [B, H, W, outputs].

  Tokens are whole pixels.  A pixel's earlier channels enter behind the last block: a layer of hidden units for each channel,
  which sees them and the block's output.  Places are learned, so the parameters belong to one size of image.
  """

  outputs: int
  features: int = 64
  heads: int = 4
  layers: int = 4
  reach: int | None = 4  # rows above its own that a pixel looks at, in each layer; None: all
  num_classes: int = 0  # 0: unconditional
  rate: float = 0.0  # of dropout
  groups: int = 0  # of outputs; 0: one for each channel of the image, 1: no channel sees another of its own pixel
  first_reach: int = 0  # pixels above and to the left that a token is made of besides the one before it

  @nn.compact
  def __call__(self, x, train: bool, label=None, at: Place | None = None):
    groups = self.groups or x.shape[-1]
    h = _Tokens(self.features, self.first_reach)(x, at)
    if self.num_classes:
      h += nn.Dense(self.features, use_bias=False)(jax.nn.one_hot(label, self.num_classes))[:, None, None]
    for _ in range(self.layers):
      h += Dropout(self.rate)(RowsAttention(self.heads, self.reach)(nn.LayerNorm()(h), at), train)
      inner = nn.gelu(nn.Dense(4 * self.features)(nn.LayerNorm()(h)))
      h += Dropout(self.rate)(nn.Dense(self.features)(inner), train)
    h = nn.Dense(groups * self.features)(nn.LayerNorm()(h))
    if groups > 1:
      h += Pixelwise(groups * self.features, groups, strict=True, use_bias=False)(x if at is None else at.of(x))
    return Pixelwise(self.outputs, groups)(nn.gelu(h))


class _Tokens(nn.Module):
  """The pixel before, or at the first pixel something learned, and the place: [B, H, W, features].

  With a reach, a convolution of the pixels above and to the left is added.  Attention has to learn where the neighbours are; a
  kernel knows.
  """

  features: int
  reach: int = 0

  @nn.compact
  def __call__(self, x, at):
    batch, height, width, channels = x.shape
    learned = lambda name, *shape: self.param(name, nn.initializers.normal(0.3), (*shape, self.features))
    first, place = learned("first"), learned("row", height)[:, None] + learned("column", width)[None]
    place = place[None]
    if at is None:
      before = jnp.pad(x.reshape(batch, -1, channels), ((0, 0), (1, 0), (0, 0)))[:, :-1].reshape(x.shape)
      is_first = jnp.arange(height * width).reshape(1, height, width, 1) == 0
    else:
      index = at.row * width + at.column
      before = jax.lax.dynamic_slice_in_dim(x.reshape(batch, 1, -1, channels), jnp.maximum(index - 1, 0), 1, 2)
      is_first, place = jnp.full((1, 1, 1, 1), index == 0), at.of(place)
    h = jnp.where(is_first, first[None, None, None], nn.Dense(self.features)(before)) + place
    if self.reach:
      seen = dict(use_bias=False, from_image=True)
      h += CausalConv(self.features, (-self.reach, -1), (-self.reach, self.reach), **seen)(x, at)
      h += CausalConv(self.features, (0, 0), (-self.reach, -1), **seen)(x, at)
    return h


class RowsAttention(nn.Module):
  """x [B, H, W, F] -> [B, H, W, F]: each pixel attends to itself, to those left of it and to `reach` whole rows above.

  Every head has a learned bias for each offset of rows and columns (relative positions, Raffel et al. 2020).  At one place,
  keys and values of earlier places are remembered in the collection "cache".
  """

  heads: int
  reach: int | None = None  # None: all rows above

  @nn.compact
  def __call__(self, x, at: Place | None = None):
    features = x.shape[-1]
    if features % self.heads:
      raise ValueError(f"{features} features cannot be shared by {self.heads} heads")
    height, width = x.shape[1:3] if at is None else (at.height, at.width)
    reach = height - 1 if self.reach is None else min(self.reach, height - 1)
    size = features // self.heads
    qkv = nn.Dense(3 * features, use_bias=False)(x).reshape(*x.shape[:3], 3, self.heads, size)
    q, k, v = jnp.moveaxis(qkv, (3, 4), (0, 2))  # [B, heads, H, W, size]
    if at is None:
      rows, columns = jnp.arange(height), jnp.arange(width)
      k, v = _windows(k, reach), _windows(v, reach)
    else:
      rows, columns = jnp.full(1, at.row), jnp.full(1, at.column)
      k, v = self._remembered("keys", k, reach, at), self._remembered("values", v, reach, at)
    scores = jnp.einsum("bhiqc,bhikc->bhiqk", q, k) / math.sqrt(size) + self._bias(columns, reach, width)
    # A pixel itself is always allowed, so no softmax is over nothing, and what is not allowed weighs exactly nothing.
    allowed = _allowed(rows, columns, reach, width)[None, None]
    weights = jax.nn.softmax(jnp.where(allowed, scores.astype(jnp.float32), -jnp.inf))
    h = jnp.einsum("bhiqk,bhikc->bhiqc", weights.astype(v.dtype), v)
    return nn.Dense(features)(jnp.moveaxis(h, 1, 3).reshape(x.shape))

  def _bias(self, columns, reach, width):
    """Of each head for queries in these columns: [1, heads, 1, columns, (reach + 1) * W]."""
    table = self.param("bias", nn.initializers.zeros_init(), (self.heads, reach + 1, 2 * width - 1))
    offsets = jnp.arange(width)[None] - columns[:, None]
    bias = jnp.asarray(table)[:, :, offsets + width - 1]  # [heads, reach + 1, columns, W]
    return bias.transpose(0, 2, 1, 3).reshape(1, self.heads, 1, len(columns), -1)

  def _remembered(self, name, a, reach, at):
    """a [B, heads, 1, 1, c] and what was given before, in the rows that are looked at: [B, heads, 1, (reach + 1) * W, c]."""
    batch, heads, _, _, size = a.shape
    shape = batch, heads, reach + at.height, at.width, size
    memory = self.variable("cache", name, jnp.zeros, shape, a.dtype)
    memory.value = jax.lax.dynamic_update_slice(memory.value, a, (0, 0, reach + at.row, at.column, 0))
    seen = jax.lax.dynamic_slice_in_dim(memory.value, at.row, reach + 1, 2)
    return seen.reshape(batch, heads, 1, -1, size)


def _windows(a, reach: int):
  """Each row of a [B, heads, H, W, c] with `reach` rows above it, zeros above the first: [B, heads, H, (reach + 1) * W, c]."""
  height = a.shape[2]
  padded = jnp.pad(a, ((0, 0), (0, 0), (reach, 0), (0, 0), (0, 0)))
  return jnp.concatenate([padded[:, :, first : first + height] for first in range(reach + 1)], 3)


def _allowed(rows, columns, reach: int, width: int):
  """Which keys queries at (rows, columns) see: bool [rows, columns, (reach + 1) * width]."""
  key_rows = rows[:, None] - reach + jnp.arange(reach + 1)[None]
  in_image = (key_rows >= 0)[:, None, :, None]
  above = (jnp.arange(reach + 1) < reach).reshape(1, 1, -1, 1)
  before = (jnp.arange(width)[None] <= columns[:, None])[None, :, None]
  return (in_image & (above | before)).reshape(len(rows), len(columns), -1)


def cached() -> Scan:
  """An `ImageTransformer` pixel by pixel, each layer remembering its keys and values."""
  return pixelcnn.cached()
