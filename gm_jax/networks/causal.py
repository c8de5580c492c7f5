"""Convolutions that see only what comes before, in raster order, on a whole image or at one place of it.

A kernel is cut to the pixels that it may see instead of being masked: it costs what it sees and cannot leak by rounding.  Each
layer has two ways to run, with the same parameters:

    layer(x)              x [B, H, W, F], the whole image, for training
    layer(x, at)          x [B, 1, 1, F], one pixel of it (or [B, 1, W, F], one row), at Place(row, column)

In the second, a layer remembers the x that it was given at earlier places, in the collection "cache", and computes its output
at this place alone.  So an image is drawn at the cost of about one pass over it, where whole passes for each pixel would cost
H * W of them (Ramachandran et al. 2017, https://arxiv.org/abs/1704.06001).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.networks.conv import Conv


class Place(NamedTuple):
  """A pixel of an image, or with column None a whole row."""

  row: Any
  column: Any
  height: int  # of the image
  width: int

  @property
  def first_column(self):
    return 0 if self.column is None else self.column

  @property
  def num_columns(self) -> int:
    return self.width if self.column is None else 1

  def of(self, x):
    """x [B, H, W, F] here: [B, 1, 1, F], or [B, 1, W, F] for a row."""
    return jax.lax.dynamic_slice(x, (0, self.row, self.first_column, 0), (len(x), 1, self.num_columns, x.shape[-1]))


class Scan(NamedTuple):
  """How to run a network pixel by pixel, over an image that is known up to there.  `memory` is any pytree.

  Attributes:
    begin: `(network, variables, x [B, H, W, C], label) -> memory`.
    row: `(network, variables, memory, x, label, row) -> memory`, before the first pixel of each row.
    pixel: `(network, variables, memory, x, label, row, column) -> (outputs [B, outputs], memory)`.
  """

  begin: Callable
  row: Callable
  pixel: Callable


def whole_passes() -> Scan:
  """For any causal network: the whole image again for each pixel, H * W times the cost of one pass."""

  def pixel(network, variables, memory, x, label, row, column):
    return network.apply(variables, x, train=False, label=label)[:, row, column], memory

  return Scan(lambda network, variables, x, label: (), lambda network, variables, memory, x, label, row: memory, pixel)


def blank(memory: Callable):
  """Zeros of the shapes that `memory()` has, without computing it: what a scan begins with."""
  return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(memory))


class CausalConv(nn.Module):
  """A convolution from the rows i + rows[0] .. i + rows[1] and the columns j + columns[0] .. j + columns[1] to pixel (i, j).

  Zeros lie around the image.  `rows` end at 0 at the latest; `from_image` layers are given the whole image also at one place,
  as far as it is known, and remember nothing.
  """

  features: int
  rows: tuple[int, int]
  columns: tuple[int, int]
  use_bias: bool = True
  from_image: bool = False

  @nn.compact
  def __call__(self, x, at: Place | None = None):
    (first_row, last_row), (first_column, last_column) = self.rows, self.columns
    kernel_size = last_row - first_row + 1, last_column - first_column + 1
    conv = Conv(self.features, kernel_size, padding="VALID", use_bias=self.use_bias)
    if at is None:
      return conv(_pad(x, (-first_row, last_row), (-first_column, last_column)))
    # The memory reaches as far as any pixel's window does.
    above, left, right = -first_row, -first_column, max(last_column, 0)
    if self.from_image:
      memory = _pad(x, (above, 0), (left, right))
    else:
      shape = len(x), above + at.height, left + at.width + right, x.shape[-1]
      seen = self.variable("cache", "seen", jnp.zeros, shape, x.dtype)
      write = lambda memory: jax.lax.dynamic_update_slice(memory, x, (0, above + at.row, left + at.first_column, 0))
      # Always so; but without a choice the compiler fuses this with the reading below and then copies all of the memory.
      seen.value = jax.lax.cond(at.row >= 0, write, lambda memory: memory, seen.value)
      memory = seen.value
    size = len(x), kernel_size[0], kernel_size[1] + at.num_columns - 1, memory.shape[-1]
    return conv(jax.lax.dynamic_slice(memory, (0, at.row, at.first_column, 0), size))


class Positions(nn.Module):
  """A learned vector for each place of the image, the same for all images: [1, H, W, features], or those of one Place.

  Convolutions treat all places alike; where things lie in the middle of the image, that has to be said.
  """

  features: int

  @nn.compact
  def __call__(self, x, at: Place | None = None):
    shape = x.shape[1:3] if at is None else (at.height, at.width)
    table = self.param("table", nn.initializers.zeros_init(), (*shape, self.features))[None]
    return table if at is None else at.of(table)


class Pixelwise(nn.Module):
  """A 1 x 1 convolution whose features are in `groups`, one for each channel of the image, in order.

  Group c sees the groups up to itself or, if `strict`, those before it: so channel c is predicted from the channels before it.
  """

  features: int
  groups: int = 1
  strict: bool = False
  use_bias: bool = True

  @nn.compact
  def __call__(self, x):
    inputs = x.shape[-1]
    if inputs % self.groups or self.features % self.groups:
      raise ValueError(f"{inputs} to {self.features} features cannot be shared by {self.groups} groups")
    kernel = self.param("kernel", nn.initializers.lecun_normal(), (inputs, self.features))
    if self.groups > 1 or self.strict:
      group = lambda size: np.arange(size) * self.groups // size
      before, after = group(inputs)[:, None], group(self.features)[None]
      kernel = kernel * (before < after if self.strict else before <= after)
    x = x @ kernel
    return x + self.param("bias", nn.initializers.zeros_init(), (self.features,))[None, None, None] if self.use_bias else x


def _pad(x, rows, columns):
  """Zeros around the rows and columns of x [B, H, W, F]; a negative number takes away."""
  return jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))
