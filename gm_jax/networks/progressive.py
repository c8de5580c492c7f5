"""Players that grow: progressive growing of GANs (Karras et al. 2018).

Level 0 is an image of a few pixels, and each further level doubles its sides.  A level comes in slowly: while alpha goes from 0
to 1, the generator's image goes from the doubled one of the level before to its own,

  G_l = (1 - alpha) double(G_(l-1)) + alpha rgb_l(h_l),

and the critic's first features from those of the halved image to those of the whole one.  `seen_at` does the same to data,
which otherwise would show detail that no fake can have yet.  At alpha = 0 both players are those of the level before.

All levels' parameters exist from the start.  A level is an int, and images have that level's own size (one compilation per
level), or a traced integer: then all images have the full size, those of lower levels made of squares, and one program, whose
branches cost what their levels cost, goes through all levels.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax

from gm_jax.errors import UserError
from gm_jax.networks.conv import convolve_doubled, double
from gm_jax.networks.equalized import EqualConv, EqualDense, leaky, pixel_norm
from gm_jax.networks.minibatch import append_deviation
from gm_jax.networks.players import Critic


class Generator(nn.Module):
  """z [B, Z] -> images [B, *shape], at `level`, and the last one unless told.

  Attributes:
    channels: of each level, from the coarsest.
    output: of every pixel.  The paper's is linear; with tanh, what must be black everywhere can be, whatever z is.
  """

  shape: tuple[int, int, int]
  channels: Sequence[int] = (64, 64, 32)
  output: Callable = lambda image: image

  def setup(self):
    *size, features = self.shape
    last = len(self.channels) - 1
    if any(side % (1 << last) for side in size):
      raise UserError(f"{last} doublings make an image whose sides {1 << last} divides; got {size[0]} x {size[1]}")
    first = Root((size[0] >> last, size[1] >> last), self.channels[0])
    self.blocks = [first, *(Widening(channels) for channels in self.channels[1:])]
    self.to_image = [EqualConv(features, 1, gain=1.0) for _ in self.channels]

  def __call__(self, z, train: bool, *, level=None, alpha=1.0):
    del train
    last = len(self.channels) - 1
    if self.is_initializing():
      for layer, maps in zip(self.to_image, self._grow(z, last)):
        layer(maps)
    if _is_static(level):
      return self._at(last if level is None else level, z, alpha)
    branch = lambda level: lambda self, z, alpha: enlarge(self._at(level, z, alpha), last - level)
    return nn.switch(level, [branch(level) for level in range(last + 1)], self, z, alpha)

  def _at(self, level: int, z, alpha):
    maps = self._grow(z, level)
    image = self.to_image[level](maps[level])
    return self.output(_fade(double(self.to_image[level - 1](maps[level - 1])), image, alpha) if level else image)

  def _grow(self, z, level: int):
    """The maps that levels 0 ... `level` end with."""
    h, maps = pixel_norm(z), []
    for block in self.blocks[: level + 1]:
      h = block(h)
      maps.append(h)
    return maps


class Root(nn.Module):
  """z [B, Z] -> the maps of level 0, [B, *size, channels]."""

  size: tuple[int, int]
  channels: int

  @nn.compact
  def __call__(self, z):
    h = EqualDense(self.size[0] * self.size[1] * self.channels)(z).reshape(-1, *self.size, self.channels)
    return pixel_norm(leaky(EqualConv(self.channels, 3)(pixel_norm(leaky(h)))))


class Widening(nn.Module):
  """h [B, H, W, C] -> [B, 2 H, 2 W, channels]."""

  channels: int

  @nn.compact
  def __call__(self, h):
    h = pixel_norm(leaky(EqualConv(self.channels, 3, convolve=convolve_doubled)(h)))
    return pixel_norm(leaky(EqualConv(self.channels, 3)(h)))


class Discriminator(Critic):
  """Images -> logits [B], the generator's mirror image.  The last level compares the images of a batch (`group` at a time).

  `x` has the size of `level` where that is an int, or None for the last level, and the full size where it is traced.
  """

  channels: Sequence[int] = (64, 64, 32)  # of each level, from the coarsest
  group: int | None = 4

  def setup(self):
    self.from_image = [EqualConv(channels, 1) for channels in self.channels]
    self.blocks = [Narrowing(*pair) for pair in zip(self.channels[1:], self.channels[:-1])]
    self.head = Head(self.channels[0], self.group)

  def judge(self, x, train: bool, *, level=None, alpha=1.0):
    del train
    last = len(self.channels) - 1
    if self.is_initializing():
      self._touch(x if level is None or not _is_static(level) else enlarge(x, last - level))
    if _is_static(level):
      return self._at(last if level is None else level, x, alpha)
    branch = lambda level: lambda self, x, alpha: self._at(level, halve(x, last - level), alpha)
    return nn.switch(level, [branch(level) for level in range(last + 1)], self, x, alpha)

  def _at(self, level: int, x, alpha):
    h = leaky(self.from_image[level](x))
    if level:
      h = _fade(leaky(self.from_image[level - 1](halve(x))), self.blocks[level - 1](h), alpha)
    for block in reversed(self.blocks[: max(level - 1, 0)]):
      h = block(h)
    return self.head(h)

  def _touch(self, x):
    """Makes all parameters, at any level that the first image has."""
    last = len(self.channels) - 1
    for level, layer in enumerate(self.from_image):
      layer(halve(x, last - level))
    self._at(last, x, 1.0)


class Narrowing(nn.Module):
  """h [B, H, W, channels] -> [B, H / 2, W / 2, below]."""

  channels: int
  below: int

  @nn.compact
  def __call__(self, h):
    h = leaky(EqualConv(self.channels, 3)(h))
    return halve(leaky(EqualConv(self.below, 3)(h)))


class Head(nn.Module):
  """The maps of level 0 -> logits [B] and features [B, channels]."""

  channels: int
  group: int | None

  @nn.compact
  def __call__(self, h):
    h = leaky(EqualConv(self.channels, 3)(append_deviation(h, self.group)))
    features = leaky(EqualDense(self.channels)(h.reshape(len(h), -1)))
    return EqualDense(1, gain=1.0)(features)[:, 0], features


def seen_at(x, level, alpha, last: int):
  """Full-size images x [B, H, W, C] as the players at `level` of 0 ... `last` see them, fading in from the level before.

  Returns images of the level's own size where `level` is an int, of full size where it is traced.
  """

  def at(level: int):
    small = halve(x, last - level)
    return _fade(double(halve(small)), small, alpha) if level else small

  if _is_static(level):
    return at(level)
  return jax.lax.switch(level, [lambda level=level: enlarge(at(level), last - level) for level in range(last + 1)])


def halve(x, times: int = 1):
  """Means of squares of 2^times pixels a side: [B, H, W, C] -> [B, H / 2^times, W / 2^times, C]."""
  b, h, w, c = x.shape
  side = 1 << times
  return x.reshape(b, h // side, side, w // side, side, c).mean((2, 4))


def enlarge(x, times: int):
  """The other way: each pixel becomes a square."""
  for _ in range(times):
    x = double(x)
  return x


def _fade(old, new, alpha):
  return (1 - alpha) * old + alpha * new


def _is_static(level) -> bool:
  return level is None or isinstance(level, int)
