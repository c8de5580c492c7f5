"""PixelCNN++: two streams of causal residual blocks, down through coarser images and up again through their mirror image.

Salimans, Karpathy, Chen and Kingma 2017 (https://arxiv.org/abs/1701.05517).  The down stream sees the rows above a pixel, the
right stream also what is left of it in its own row; the right one is fed by the down one at every block.  Pixel (I, J) of a
coarser image stands for (2 I, 2 J) of the finer one and sees what that may see; it is given to all of the four that come from
it, the first of which is (2 I, 2 J).  No channel of a pixel sees another of its own pixel: that is left to the output
(`autoregressive.logistic_mixture`).

Weights are plain ones.  The paper normalises them and starts from a batch of data, so that each unit begins at mean 0 and
deviation 1; here kernels are drawn so that activations keep their size, and the gate, which begins near one half, makes every
block a small change, and a new network is a function of its key alone.

Besides the paper's shortcuts into the blocks, the way up adds what a resolution ended with on the way down to what comes from
the coarser one: with one block per resolution the nearest pixels would otherwise come through gates only, and training starts
more slowly.

Layers and their two ways to run are in causal.py.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.networks.causal import CausalConv, Place, Scan, blank
from gm_jax.networks.conv import Conv
from gm_jax.networks.dropout import Dropout
from gm_jax.networks.unet import depth_to_space

ROWS = (-1, 0)  # that a kernel inside the network sees, from its pixel's


class PixelCNNPP(nn.Module):
  """x [B, H, W, C], label int32 [B] or None -> [B, H, W, outputs], for any H and W.

  The authors' network for CIFAR-10 has 160 features, 5 blocks, 3 resolutions and a dropout rate of 0.5.
  """

  outputs: int
  features: int = 32
  blocks: int = 1  # per resolution, on the way down and again on the way up
  resolutions: int = 3
  first_reach: int = 3  # pixels that the first kernels reach; those of the blocks reach one
  rate: float = 0.0  # of dropout
  num_classes: int = 0  # 0: unconditional

  def setup(self):
    reach, wide = self.first_reach, (-self.first_reach, self.first_reach)
    stream = dict(blocks=self.blocks, resolutions=self.resolutions, rate=self.rate, num_classes=self.num_classes)
    self.above = CausalConv(self.features, (-reach, -1), wide, from_image=True)
    self.left = CausalConv(self.features, (0, 0), (-reach, -1), from_image=True)
    self.down_stream = _Stream(self.features, (-1, 1), **stream)
    self.right_stream = _Stream(self.features, (-1, 0), **stream)
    self.head = nn.Dense(self.outputs)

  def __call__(self, x, train: bool, label=None):
    return self.right(self.down(x, train, label), x, train, label)

  def down(self, x, train: bool, label=None, at: Place | None = None) -> list:
    """What the rows above say, first and at each block: [B, H, W, features], coarser inside; or one row at Place(row, None)."""
    first = self.above(x, at)
    return [first, *self.down_stream(first, None, train, label, at)]

  def right(self, given: list, x, train: bool, label=None, at: Place | None = None):
    """Outputs [B, H, W, outputs], or those of one pixel; `given` is from `down`, of its whole row."""
    h = self.left(x, at) + _here(given[0], at)
    return self.head(nn.elu(self.right_stream(h, given[1:], train, label, at)[-1]))


class _Stream(nn.Module):
  """h [B, H, W, F], activations of the other stream for each block or None -> the output of each block, in order."""

  features: int
  columns: tuple[int, int]  # that a kernel sees
  blocks: int
  resolutions: int
  rate: float
  num_classes: int

  @nn.compact
  def __call__(self, h, given, train: bool, label, at: Place | None):
    outputs, skips = [], []

    def block(h, place, *extra):
      other = () if given is None else (_here(given[len(outputs)], place),)
      outputs.append(_Block(self.features, self.columns, self.rate, self.num_classes)(h, (*other, *extra), train, label, place))
      return outputs[-1]

    places = [at]
    for _ in range(self.resolutions - 1):
      places.append(_half(places[-1]))
    for level, place in enumerate(places):
      if level:
        h = _Halve(self.features, ROWS, self.columns)(h, places[level - 1])
      for _ in range(self.blocks):
        h = block(h, place)
        skips.append(h)
    for level, place in reversed(list(enumerate(places))):
      if level < self.resolutions - 1:
        h = skips[-1] + _Double(self.features)(h, skips[-1].shape[1:3], place)
      for _ in range(self.blocks):
        h = block(h, place, skips.pop())
    return outputs


class _Block(nn.Module):
  """h plus a gated change of it, which also sees the other activations."""

  features: int
  columns: tuple[int, int]
  rate: float
  num_classes: int

  @nn.compact
  def __call__(self, h, others: tuple, train: bool, label, at: Place | None):
    inner = CausalConv(self.features, ROWS, self.columns)(_both_signs(h), at)
    if others:
      inner += nn.Dense(self.features, use_bias=False)(_both_signs(jnp.concatenate(others, -1)))
    inner = Dropout(self.rate)(_both_signs(inner), train)
    change = CausalConv(2 * self.features, ROWS, self.columns)(inner, at)
    if self.num_classes:
      of_class = nn.Dense(2 * self.features, use_bias=False)(jax.nn.one_hot(label, self.num_classes))
      change += of_class[:, None, None]
    a, b = jnp.split(change, 2, -1)
    return h + a * nn.sigmoid(b)


class _Halve(CausalConv):
  """Every second row and column of a causal convolution, beginning with the first: [B, H, W, F] -> [B, H / 2, W / 2, F],
  rounded up.

  At a place of the finer image, what was computed for the coarser pixel that it belongs to.
  """

  @nn.compact
  def __call__(self, x, at: Place | None = None):
    if at is None:  # the parent's kernel, by its name
      (first_row, last_row), (first, last) = self.rows, self.columns
      padding = ((-first_row, last_row), (-first, last))
      return Conv(self.features, (last_row - first_row + 1, last - first + 1), 2, padding, name="Conv_0")(x)
    y, below = super().__call__(x, at)[:, :, ::2], _half(at)
    made = self.variable("cache", "made", jnp.zeros, (len(x), below.height, below.width, self.features), y.dtype)
    write = lambda made: jax.lax.dynamic_update_slice(made, y, (0, below.row, below.first_column, 0))
    due = (at.row % 2 == 0) & (at.first_column % 2 == 0)
    made.value = jax.lax.cond(due, write, lambda made: made, made.value)
    return below.of(made.value)


class _Double(nn.Module):
  """Each pixel to the four that come from it, by weights of their own (a transposed convolution): the `size` of the finer
  image, or one place of it."""

  features: int

  @nn.compact
  def __call__(self, h, size: tuple[int, int], at: Place | None = None):
    h = depth_to_space(nn.Dense(4 * self.features)(h), 2)
    if at is None:
      return h[:, : size[0], : size[1]]
    return jax.lax.dynamic_slice(h, (0, at.row % 2, at.first_column % 2, 0), (len(h), 1, at.num_columns, self.features))


def _both_signs(x):
  """Concatenated exponential linear units: [..., F] -> [..., 2 F]."""
  return nn.elu(jnp.concatenate([x, -x], -1))


def _half(at: Place | None) -> Place | None:
  """The pixel or row of the coarser image."""
  if at is None:
    return None
  column = None if at.column is None else at.column // 2
  return Place(at.row // 2, column, (at.height + 1) // 2, (at.width + 1) // 2)


def _here(row, at: Place | None):
  """One pixel of a row [B, 1, W, F]; without a place, the whole image."""
  return row if at is None else jax.lax.dynamic_slice_in_dim(row, at.column, 1, 2)


def cached() -> Scan:
  """A `PixelCNNPP` pixel by pixel: the down stream a row at a time, the right one a pixel at a time.

  Coarser images are computed again for each finer pixel, from the same memory to the same numbers.
  """

  def apply(network, variables, cache, method, *args):
    result, changed = network.apply({**variables, "cache": cache}, *args, method=method, mutable=["cache"])
    return result, {**cache, **changed["cache"]}

  def row(network, variables, memory, x, label, row):
    place = Place(row, None, *x.shape[1:3])
    given, cache = apply(network, variables, memory[0], PixelCNNPP.down, x, False, label, place)
    return cache, given

  def pixel(network, variables, memory, x, label, row, column):
    cache, given = memory
    place = Place(row, column, *x.shape[1:3])
    outputs, cache = apply(network, variables, cache, PixelCNNPP.right, given, x, False, label, place)
    return outputs[:, 0, 0], (cache, given)

  def begin(network, variables, x, label):
    first = lambda: pixel(network, variables, row(network, variables, ({}, ()), x, label, 0), x, label, 0, 0)[1]
    return blank(first)

  return Scan(begin, row, pixel)
