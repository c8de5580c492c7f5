"""Drawing images from a PixelCNN: ours, from remembered activations, against the usual loop in PyTorch, a whole pass per pixel.

Command: python benchmarks/sampling_torch.py        (PyTorch is in the extra `bench`)
Hardware: 2 CPU cores
Minutes: 1
Expected: 168 times as fast at 28 x 28 (wanted: 5)

Both are the same network with the same weights, and their logits agree on the same images.  The weights are random: what a
pixel costs does not depend on them.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import record
import torch
from torch import nn

from gm_jax.networks import pixelcnn
from gm_jax.tractable import autoregressive

SHAPE, NUM, THREADS = (28, 28, 1), 16, 2
FEATURES, BLOCKS = 64, 5
LEAST, TOLERANCE = 5.0, 1e-4


class MaskedConv(nn.Conv2d):
  """What lies above, what lies to the left and, unless it is the first layer, the pixel itself."""

  def __init__(self, inputs: int, outputs: int, reach: int, first: bool):
    size = 2 * reach + 1
    super().__init__(inputs, outputs, size, padding=reach)
    mask = torch.arange(size * size) < size * reach + reach + (not first)
    self.register_buffer("mask", mask.reshape(1, 1, size, size).float())

  def forward(self, x):
    return nn.functional.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class Block(nn.Module):
  """Residual, half the features inside."""

  def __init__(self, features: int):
    super().__init__()
    inner = features // 2
    self.layers = nn.Sequential(
      nn.ReLU(), nn.Conv2d(features, inner, 1),
      nn.ReLU(), MaskedConv(inner, inner, 1, first=False),
      nn.ReLU(), nn.Conv2d(inner, features, 1),
    )  # fmt: skip

  def forward(self, x):
    return x + self.layers(x)


def torch_pixelcnn(params) -> nn.Module:
  """x [B, 1, H, W] -> logits [B, 1, H, W]: `gm_jax.networks.pixelcnn.PixelCNN` with these parameters."""
  network = nn.Sequential(
    MaskedConv(1, FEATURES, 3, first=True),
    *[Block(FEATURES) for _ in range(BLOCKS)],
    nn.ReLU(), nn.Conv2d(FEATURES, FEATURES, 1),
    nn.ReLU(), nn.Conv2d(FEATURES, 1, 1),
  )  # fmt: skip
  convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
  masked = [convolution for convolution in convolutions if isinstance(convolution, MaskedConv)]
  pixelwise = [convolution for convolution in convolutions if not isinstance(convolution, MaskedConv)]
  with torch.no_grad():
    for index, convolution in enumerate(masked):
      _copy(convolution, *_around(params[f"_Around_{index}"]))
    for index, convolution in enumerate(pixelwise):
      _copy(convolution, params[f"Pixelwise_{index}"]["kernel"][None, None], params[f"Pixelwise_{index}"]["bias"])
  return network.eval()


def _around(params):
  """Our three kernels as one, [size, size, inputs, outputs], and the bias."""
  above, left = (params[f"CausalConv_{index}"]["Conv_0"]["kernel"] for index in (0, 1))
  reach, size = above.shape[:2]
  kernel = np.zeros((size, *above.shape[1:]), np.float32)
  kernel[:reach], kernel[reach, :reach] = above, left[0]
  kernel[reach, reach] = params["Pixelwise_0"]["kernel"]
  return kernel, params["Pixelwise_0"]["bias"]


def _copy(convolution: nn.Conv2d, kernel, bias):
  convolution.weight.copy_(torch.tensor(kernel).permute(3, 2, 0, 1))
  convolution.bias.copy_(torch.tensor(bias))


@torch.no_grad()
def torch_draw(network: nn.Module):
  height, width, channels = SHAPE
  x = torch.zeros(NUM, channels, height, width)
  for row in range(height):
    for column in range(width):
      logits = network(x)[:, :, row, column]
      x[:, :, row, column] = torch.bernoulli(torch.sigmoid(logits))
  return x.numpy()


def ours():
  """(network, its variables, `() -> images`), compiled; the parameters are random, biases included."""
  network = pixelcnn.PixelCNN(SHAPE[-1], FEATURES, BLOCKS)
  model = autoregressive.autoregressive(network, autoregressive.bernoulli(), optax.sgd(0.0), SHAPE, scan=pixelcnn.cached())
  state = jax.jit(model.init)(jax.random.key(0), {"image": jnp.zeros((NUM, *SHAPE), jnp.uint8)})
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda leaf: np.float32(leaf + 0.05 * rng.normal(size=leaf.shape)), state.average.variables)
  state = state._replace(average=state.average._replace(variables=variables))
  sample = jax.jit(model.sample, static_argnums=2)
  draw = lambda: sample(jax.random.key(1), state, NUM)
  jax.block_until_ready(draw())
  return network, variables, draw


def compare_logits(network, variables, theirs: nn.Module) -> float:
  """The largest difference of their logits on random images, which must be rounding."""
  x = np.random.default_rng(1).integers(0, 2, (NUM, *SHAPE)).astype(np.float32)
  logits = np.asarray(jax.jit(lambda x: network.apply(variables, x, train=False))(x))
  with torch.no_grad():
    other = theirs(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
  difference = float(np.abs(logits - other).max())
  assert difference < TOLERANCE < np.abs(logits).max(), f"the networks are not the same: logits differ by {difference}"
  return difference


def main() -> int:
  torch.set_num_threads(THREADS)
  network, variables, draw = ours()
  theirs = torch_pixelcnn(variables["params"])
  difference = compare_logits(network, variables, theirs)  # and the passes after the first are warm
  functions = {"gm_jax": draw, "PyTorch": lambda: torch_draw(theirs)}
  times = {name: record.summary(seconds) for name, seconds in record.interleaved(functions, repeats=3, warmup=0).items()}
  ratio = round(times["PyTorch"]["median_ms"] / times["gm_jax"]["median_ms"], 1)
  row = {"network": f"PixelCNN, {BLOCKS} blocks of {FEATURES}", "images": NUM, "times": times, "ratio": ratio}
  row |= {"largest_difference_of_logits": difference, "torch_threads": THREADS}
  print(record.write("sampling_torch", row, ("jax", "jaxlib", "flax", "numpy", "torch")))
  print(f"{ratio} times as fast; logits differ by at most {difference:.1e}")
  return int(ratio < LEAST)


if __name__ == "__main__":
  sys.exit(main())
