"""PixelCNN and Gated PixelCNN: from an image to what is predicted of each of its pixels by those before it.

van den Oord et al. 2016a (https://arxiv.org/abs/1601.06759), 2016b (https://arxiv.org/abs/1606.05328).  Layers and their two
ways to run are in causal.py.  Outputs are in groups, one for each channel of the image, in order.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.networks.causal import CausalConv, Pixelwise, Place, Positions, Scan, blank
from gm_jax.networks.dropout import Dropout


class PixelCNN(nn.Module):
  """x [B, H, W, C], label int32 [B] or None -> [B, H, W, outputs].

  Residual blocks of half the features inside, as in the first paper; what lies above and to the right beyond a diagonal is
  never seen (the blind spot), which `GatedPixelCNN` mends.
  """

  outputs: int
  features: int = 32
  blocks: int = 7
  reach: int = 1  # pixels that the kernels of the blocks reach
  first_reach: int = 3
  num_classes: int = 0  # 0: unconditional
  rate: float = 0.0  # of dropout
  groups: int = 0  # of features; 0: one for each channel of the image, 1: no channel sees another of its own pixel
  positions: bool = False  # whether the first features know where they are

  @nn.compact
  def __call__(self, x, train: bool, label=None, at: Place | None = None):
    groups = self.groups or x.shape[-1]
    look = lambda reach, features, **options: _Around(features, reach, groups, **options)
    h = look(self.first_reach, self.features, first=True)(x, at)
    if self.positions:
      h += Positions(self.features)(x, at)
    if self.num_classes:
      h += nn.Dense(self.features, use_bias=False)(jax.nn.one_hot(label, self.num_classes))[:, None, None]
    for _ in range(self.blocks):
      inner = Pixelwise(self.features // 2, groups)(nn.relu(h))
      inner = look(self.reach, self.features // 2)(nn.relu(inner), at)
      inner = Dropout(self.rate)(nn.relu(inner), train)
      h += Pixelwise(self.features, groups)(inner)
    h = Pixelwise(self.features, groups)(nn.relu(h))
    return Pixelwise(self.outputs, groups)(nn.relu(h))


class _Around(nn.Module):
  """What is above within reach, what is to the left within reach, and the pixel itself as far as its channels allow."""

  features: int
  reach: int
  groups: int
  first: bool = False

  @nn.compact
  def __call__(self, x, at):
    reach, bare = self.reach, dict(use_bias=False, from_image=self.first)
    above = CausalConv(self.features, (-reach, -1), (-reach, reach), **bare)(x, at)
    left = CausalConv(self.features, (0, 0), (-reach, -1), **bare)(x, at)
    own = x if at is None or not self.first else at.of(x)
    return above + left + Pixelwise(self.features, self.groups, strict=self.first)(own)


class GatedPixelCNN(nn.Module):
  """x [B, H, W, C], label int32 [B] or None -> [B, H, W, outputs].  If `mapped`, the label is a map [B, H, W, F].

  Two stacks: the vertical one sees all rows above, the horizontal one its own row to the left and, at each layer, the vertical
  one.  Together they see all that comes before.  Units are tanh(a) * sigmoid(b).
  """

  outputs: int
  groups: int = 1  # of features: one for each channel of the image, or 1, and no channel sees another of its own pixel
  features: int = 32
  blocks: int = 7
  reach: int = 1
  first_reach: int = 3
  num_classes: int = 0
  rate: float = 0.0
  positions: bool = False  # whether the first features know where they are
  mapped: bool = False  # whether the label says something of each pixel, rather than of the image

  def setup(self):
    reaches = [self.first_reach, *[self.reach] * self.blocks]
    layers = list(enumerate(reaches))
    wide, groups = 2 * self.features, self.groups
    self.down = [CausalConv(wide, (-r, 0 if i else -1), (-r, r), from_image=i == 0) for i, r in layers]
    self.right = [CausalConv(wide, (0, 0), (-r, -1), use_bias=False, from_image=i == 0) for i, r in layers]
    self.own = [Pixelwise(wide, groups, strict=i == 0) for i, _ in layers]
    self.across = [nn.Dense(wide) for _ in layers]
    self.mix = [Pixelwise(self.features, groups) for _ in layers]
    self.skip = [Pixelwise(self.features, groups) for _ in layers]
    self.of_class = [nn.Dense(2 * wide, use_bias=False) for _ in layers] if self.num_classes or self.mapped else []
    self.place = Positions(wide) if self.positions else lambda x, at: 0.0
    self.dropout = Dropout(self.rate)
    self.last, self.head = Pixelwise(self.features, groups), Pixelwise(self.outputs, groups)

  def __call__(self, x, train: bool, label=None):
    return self.horizontal(self.vertical(x, label), x, train, label)

  def vertical(self, x, label=None, at: Place | None = None) -> list:
    """What the rows above say, at each layer: [B, H, W, 2 features], or one row of it at Place(row, None)."""
    given, h = [], x
    for index, down in enumerate(self.down):
      given.append(down(h, at) + self._told(label, index, at)[0] + (0.0 if index else self.place(x, at)))
      h = _gate(given[-1], 1)
    return given

  def horizontal(self, given: list, x, train: bool, label=None, at: Place | None = None):
    """Outputs [B, H, W, outputs], or those of one pixel, whose `given` are [B, 1, 1, 2 features] each."""
    h, skips = x, 0
    for index, right in enumerate(self.right):
      own = at.of(x) if at is not None and index == 0 else h
      a = right(h, at) + self.own[index](own) + self.across[index](given[index]) + self._told(label, index, at)[1]
      new = self.mix[index](self.dropout(_gate(a, self.groups), train))
      h = h + new if index else new
      skips += self.skip[index](h)
    return self.head(nn.relu(self.last(nn.relu(skips))))

  def _told(self, label, index, at: Place | None):
    """The label's say in the vertical and in the horizontal units: each [B, 1, 1, 2 features], of a map that of each pixel."""
    if not self.of_class:
      return 0.0, 0.0
    if self.mapped:
      told = label if at is None else at.of(label)
    else:
      told = jax.nn.one_hot(label, self.num_classes)[:, None, None]
    return jnp.split(self.of_class[index](told), 2, -1)


def cached() -> Scan:
  """A `PixelCNN` pixel by pixel, each layer remembering what it was given."""

  def look(network, variables, cache, x, label, row, column):
    at = Place(row, column, *x.shape[1:3])
    outputs, changed = network.apply({**variables, "cache": cache}, x, train=False, label=label, at=at, mutable=["cache"])
    return outputs[:, 0, 0], changed["cache"]

  def begin(network, variables, x, label):
    return blank(lambda: look(network, variables, {}, x, label, 0, 0)[1])

  return Scan(begin, lambda network, variables, memory, x, label, row: memory, look)


def gated_cached() -> Scan:
  """A `GatedPixelCNN` pixel by pixel: the vertical stack a row at a time, the horizontal one a pixel at a time."""

  def apply(network, variables, cache, method, *args, **options):
    result, changed = network.apply({**variables, "cache": cache}, *args, **options, method=method, mutable=["cache"])
    return result, {**cache, **changed["cache"]}

  def rows(network, variables, cache, x, label, row):
    return apply(network, variables, cache, GatedPixelCNN.vertical, x, label, Place(row, None, *x.shape[1:3]))

  def one(network, variables, cache, given, x, label, row, column):
    given = [jax.lax.dynamic_slice_in_dim(a, column, 1, 2) for a in given]
    place = Place(row, column, *x.shape[1:3])
    return apply(network, variables, cache, GatedPixelCNN.horizontal, given, x, False, label, place)

  def begin(network, variables, x, label):
    def all_of_it():
      given, cache = rows(network, variables, {}, x, label, 0)
      return one(network, variables, cache, given, x, label, 0, 0)[1], given

    return blank(all_of_it)

  def row(network, variables, memory, x, label, row):
    given, cache = rows(network, variables, memory[0], x, label, row)
    return cache, given

  def pixel(network, variables, memory, x, label, row, column):
    cache, given = memory
    outputs, cache = one(network, variables, cache, given, x, label, row, column)
    return outputs[:, 0, 0], (cache, given)

  return Scan(begin, row, pixel)


def _gate(a, groups: int):
  """tanh(a) * sigmoid(b), a and b side by side within each group of features: [..., 2 F] -> [..., F]."""
  a = a.reshape(*a.shape[:-1], groups, 2, -1)
  return (jnp.tanh(a[..., 0, :]) * nn.sigmoid(a[..., 1, :])).reshape(*a.shape[:-3], -1)
