"""PixelRNN: from an image to what is predicted of each of its pixels by those before it, through LSTM layers.

van den Oord et al. 2016a (https://arxiv.org/abs/1601.06759).  The layers, by rows or by diagonals, are in image_lstm.py.
Outputs are in groups, one for each channel of the image, in order.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.networks.causal import CausalConv, Pixelwise, Place, Scan
from gm_jax.networks.dropout import Dropout
from gm_jax.networks.image_lstm import RowLSTM


class PixelRNN(nn.Module):
  """x [B, H, W, C], label int32 [B] or None -> [B, H, W, outputs].

  A convolution that does not see the pixel itself, then residual LSTM layers of half the features inside.  By rows it sees
  a triangle above each pixel, and nothing beyond.  By diagonals it sees all that comes before but the last pixel of the row
  above (of its channels, the last), which the first convolution alone shows, as far as it reaches: no earlier place knows it.
  """

  outputs: int
  layer: Callable = RowLSTM  # (features, groups) -> a layer
  groups: int = 1  # of features: one for each channel of the image, or 1, and no channel sees another of its own pixel
  features: int = 32
  layers: int = 7
  first_reach: int = 3  # pixels that the first convolution reaches
  num_classes: int = 0  # 0: unconditional
  rate: float = 0.0  # of dropout

  def setup(self):
    reach, bare = self.first_reach, dict(use_bias=False, from_image=True)
    self.above = CausalConv(self.features, (-reach, -1), (-reach, reach), **bare)
    self.left = CausalConv(self.features, (0, 0), (-reach, -1), **bare)
    self.own = Pixelwise(self.features, self.groups, strict=True)
    self.of_class = nn.Dense(self.features, use_bias=False)
    self.lstm = [self.layer(self.features // 2, self.groups) for _ in range(self.layers)]
    self.up = [Pixelwise(self.features, self.groups) for _ in range(self.layers)]
    self.dropout = Dropout(self.rate)
    self.last, self.head = Pixelwise(self.features, self.groups), Pixelwise(self.outputs, self.groups)

  def __call__(self, x, train: bool, label=None):
    h = self._look(x, label)
    for lstm, up in zip(self.lstm, self.up):
      h = h + up(self.dropout(lstm(h), train))
    return self._read(h)

  def begin(self, x) -> list:
    """The memory of each layer, for images like x [B, H, W, C]."""
    blank = jnp.zeros((len(x), 1, x.shape[2], self.features), x.dtype)
    return [lstm.begin(blank) for lstm in self.lstm]

  def row(self, memories: list, row) -> list:
    return [lstm.row(memory, row) for lstm, memory in zip(self.lstm, memories)]

  def pixel(self, memories: list, x, label, at: Place):
    """Outputs [B, outputs] at a pixel of x [B, H, W, C], which is known up to there."""
    h, new = self._look(x, label, at), []
    for lstm, up, memory in zip(self.lstm, self.up, memories):
      inner, memory = lstm.pixel(memory, h, at.column)
      h = h + up(inner)
      new.append(memory)
    return self._read(h)[:, 0, 0], new

  def _look(self, x, label, at: Place | None = None):
    h = self.above(x, at) + self.left(x, at) + self.own(x if at is None else at.of(x))
    return h + self.of_class(jax.nn.one_hot(label, self.num_classes))[:, None, None] if self.num_classes else h

  def _read(self, h):
    return self.head(nn.relu(self.last(nn.relu(h))))


def cached() -> Scan:
  """A `PixelRNN` pixel by pixel, each layer remembering the states that it still needs."""

  def begin(network, variables, x, label):
    del label
    return network.apply(variables, x, method=PixelRNN.begin)

  def row(network, variables, memories, x, label, row):
    del x, label
    return network.apply(variables, memories, row, method=PixelRNN.row)

  def pixel(network, variables, memories, x, label, row, column):
    return network.apply(variables, memories, x, label, Place(row, column, *x.shape[1:3]), method=PixelRNN.pixel)

  return Scan(begin, row, pixel)
