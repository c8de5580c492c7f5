"""Causal networks over maps of codes: a code is a name and no number, so each has a vector; and one map may be told of another.

The priors of VQ-VAE-2 (Razavi et al. 2019, https://arxiv.org/abs/1906.00446): the codes of the top, pixel by pixel, and those
of the bottom given all of the top.
"""

import flax.linen as nn

from gm_jax.networks import pixelcnn
from gm_jax.networks.causal import Scan
from gm_jax.networks.conv import Conv, ConvTranspose


class CodePixelCNN(nn.Module):
  """Codes int32 [B, H, W, 1], label -> logits [B, H, W, num_codes].

  Attributes:
    network: of `num_codes` outputs; with a reader it is `mapped`.
    num_codes: K.
    features: of the vector that stands for a code.
    reader: `label -> map [B, H, W, F]` for the network; None: the network is given the label itself, if it has classes.
  """

  network: pixelcnn.GatedPixelCNN
  num_codes: int
  features: int = 16
  reader: nn.Module | None = None

  def setup(self):
    self.table = nn.Embed(self.num_codes, self.features)

  def __call__(self, x, train: bool, label=None):
    return self.network(self.look_up(x), train, self.read(label))

  def look_up(self, x):
    return self.table(x[..., 0])

  def read(self, label):
    if self.reader is None:
      return label if self.network.num_classes else None  # a label that nobody hears is not carried along
    return self.reader(label)


class CodeReader(nn.Module):
  """What codes int32 [B, h, w] say of each place of a map of twice the size: [B, 2 h, 2 w, features]."""

  num_codes: int
  features: int = 32

  @nn.compact
  def __call__(self, codes):
    x = nn.Embed(self.num_codes, self.features)(codes)
    x += Conv(self.features, 3)(nn.relu(Conv(self.features, 3)(x)))
    return nn.relu(ConvTranspose(self.features, 4, 2)(nn.relu(x)))


def cached() -> Scan:
  """A `CodePixelCNN` pixel by pixel; what it is told is read once."""
  inner = pixelcnn.gated_cached()

  def given(network, variables, x):
    return network.network, {"params": variables["params"]["network"]}, network.apply(variables, x, method="look_up")

  def begin(network, variables, x, label):
    read = network.apply(variables, label, method="read")
    inside, inner_variables, vectors = given(network, variables, x)
    return read, inner.begin(inside, inner_variables, vectors, read)

  def row(network, variables, memory, x, label, row):
    del label
    read, memory = memory
    inside, inner_variables, vectors = given(network, variables, x)
    return read, inner.row(inside, inner_variables, memory, vectors, read, row)

  def pixel(network, variables, memory, x, label, row, column):
    del label
    read, memory = memory
    inside, inner_variables, vectors = given(network, variables, x)
    outputs, memory = inner.pixel(inside, inner_variables, memory, vectors, read, row, column)
    return outputs, (read, memory)

  return Scan(begin, row, pixel)
