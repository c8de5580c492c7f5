"""FID, KID and IS by their true names, for whoever has the weights: the Inception network behind published numbers.

    variables = load("inception.safetensors")
    real, drawn = (outputs(variables, pictures) for pictures in (test_images, samples))
    fid(drawn, real), kid(drawn, real, seed=0), inception_score(drawn)

Inception-v3 (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567) as trained in 2015, which Heusel et al. 2017 chose for FID.
It differs from torchvision's in three ways: average pools divide by the pixels that are there, not by 9 at the border; the last
block pools by the maximum; and it has 1,008 classes.  No weights come with gm_jax.  They are read from a safetensors file with
the names and shapes of PyTorch's state dict: `Mixed_5b.branch1x1.conv.weight` [O, I, h, w], `.bn.running_mean`, `fc.weight`.

A published number also depends on the resizing to 299 x 299 pixels (`metrics.resizing`): bilinear, and unless another is given
that of the graph of 2015, which older papers used.  State which, the number of images, and the split of the real ones.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.errors import UserError
from gm_jax.metrics import frechet, kernel, resizing, safetensors, score
from gm_jax.networks.conv import Conv
from gm_jax.networks.norm import BatchNorm


class Outputs(NamedTuple):
  """Of N images, float32."""

  features: np.ndarray  # [N, 2048], what FID and KID compare
  logits: np.ndarray  # [N, 1008]
  score_logits: np.ndarray  # [N, 1008], without the bias, which the code of Salimans et al. left out of the Inception score


def fid(samples: Outputs, real: Outputs) -> float:
  """The Frechet Inception distance; of as many samples as everyone else's, or it cannot be compared."""
  return frechet.distance(frechet.moments(samples.features), frechet.moments(real.features))


def kid(samples: Outputs, real: Outputs, *, seed: int, block: int = 1000) -> kernel.KernelDistance:
  """The kernel Inception distance with its standard error, by disjoint blocks."""
  return kernel.distance(samples.features, real.features, seed=seed, block=block)


def inception_score(samples: Outputs, splits: int = 10) -> score.Score:
  """IS, from 1 to 1,008; its mean and deviation over splits."""
  return score.of_logits(samples.score_logits, splits)


# The network, block by block.


class Layer(NamedTuple):
  """A convolution, its batch normalisation and a rectifier."""

  name: str
  features: int
  height: int = 1
  width: int = 1
  stride: int = 1


class Unit(nn.Module):
  """x [B, H, W, C] -> [B, H', W', features]; what halves an image sees no padding, and nor does what is asked not to."""

  layer: Layer
  padding: str | None = None

  @nn.compact
  def __call__(self, x):
    layer, padding = self.layer, self.padding or ("VALID" if self.layer.stride > 1 else "SAME")
    kernel_size, strides = (layer.height, layer.width), (layer.stride, layer.stride)
    x = Conv(layer.features, kernel_size, strides, padding=padding, use_bias=False, name="conv")(x)
    return nn.relu(BatchNorm(epsilon=1e-3, name="bn")(x, train=False))


class Mixed(nn.Module):
  """The branches of x side by side.  A branch is a chain of layers, pools, and tuples of layers that share their input."""

  branches: tuple

  @nn.compact
  def __call__(self, x):
    return jnp.concatenate([functools.reduce(self.follow, branch, x) for branch in self.branches], -1)

  def follow(self, x, link):
    if isinstance(link, Layer):
      return Unit(link, name=link.name)(x)
    if isinstance(link, tuple):
      return jnp.concatenate([self.follow(x, fork) for fork in link], -1)
    return link(x)


def average_pool(x):
  """Means over 3 x 3 pixels, of those that are there."""
  return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def max_pool(x):
  return nn.max_pool(x, (3, 3), (1, 1), "SAME")


def halve(x):
  return nn.max_pool(x, (3, 3), (2, 2), "VALID")


def _chain(name: str, *layers) -> tuple:
  return tuple(Layer(f"{name}_{number}", *layer) for number, layer in enumerate(layers, 1))


def _mixed_a(pooled: int) -> tuple:
  """Channels to 224 + pooled."""
  return (
    (Layer("branch1x1", 64),),
    _chain("branch5x5", (48,), (64, 5, 5)),
    _chain("branch3x3dbl", (64,), (96, 3, 3), (96, 3, 3)),
    (average_pool, Layer("branch_pool", pooled)),
  )


def _mixed_c(inner: int) -> tuple:
  """768 channels to 768, by 7 x 7 convolutions cut into rows and columns."""
  return (
    (Layer("branch1x1", 192),),
    _chain("branch7x7", (inner,), (inner, 1, 7), (192, 7, 1)),
    _chain("branch7x7dbl", (inner,), (inner, 7, 1), (inner, 1, 7), (inner, 7, 1), (192, 1, 7)),
    (average_pool, Layer("branch_pool", 192)),
  )


def _mixed_e(pool: Callable) -> tuple:
  """Channels to 2048; the ends of two branches fork into a row and a column."""
  fork = lambda name: (Layer(f"{name}a", 384, 1, 3), Layer(f"{name}b", 384, 3, 1))
  return (
    (Layer("branch1x1", 320),),
    (Layer("branch3x3_1", 384), fork("branch3x3_2")),
    (*_chain("branch3x3dbl", (448,), (384, 3, 3)), fork("branch3x3dbl_3")),
    (pool, Layer("branch_pool", 192)),
  )


BLOCKS = {
  "Mixed_5b": _mixed_a(32),
  "Mixed_5c": _mixed_a(64),
  "Mixed_5d": _mixed_a(64),
  "Mixed_6a": (
    (Layer("branch3x3", 384, 3, 3, 2),),
    _chain("branch3x3dbl", (64,), (96, 3, 3), (96, 3, 3, 2)),
    (halve,),
  ),
  "Mixed_6b": _mixed_c(128),
  "Mixed_6c": _mixed_c(160),
  "Mixed_6d": _mixed_c(160),
  "Mixed_6e": _mixed_c(192),
  "Mixed_7a": (
    _chain("branch3x3", (192,), (320, 3, 3, 2)),
    _chain("branch7x7x3", (192,), (192, 1, 7), (192, 7, 1), (192, 3, 3, 2)),
    (halve,),
  ),
  "Mixed_7b": _mixed_e(average_pool),
  "Mixed_7c": _mixed_e(max_pool),
}


class Inception(nn.Module):
  """x in [-1, 1], [B, H, W, 3], H and W at least 75 -> `Outputs`."""

  @nn.compact
  def __call__(self, x):
    unit = lambda name, *layer, padding=None: Unit(Layer(name, *layer), padding, name=name)
    x = unit("Conv2d_1a_3x3", 32, 3, 3, 2)(x)
    x = unit("Conv2d_2a_3x3", 32, 3, 3, padding="VALID")(x)
    x = halve(unit("Conv2d_2b_3x3", 64, 3, 3)(x))
    x = unit("Conv2d_3b_1x1", 80)(x)
    x = halve(unit("Conv2d_4a_3x3", 192, 3, 3, padding="VALID")(x))
    for name, branches in BLOCKS.items():
      x = Mixed(branches, name=name)(x)
    features = x.mean((1, 2))
    classify = nn.Dense(1008, name="fc")
    logits = classify(features)
    return Outputs(features, logits, logits - classify(jnp.zeros_like(features)))


# From pictures to outputs.


def outputs(variables, pictures, *, resize: Callable | None = None, batch_size: int = 50) -> Outputs:
  """What the network makes of pictures, uint8 [N, H, W, 3], or grey ones [N, H, W, 1] with their channel three times.

  Args:
    variables: from `load`.
    pictures: rounded to bytes as they are saved and looked at.
    resize: uint8 [B, H, W, 3] -> float32 [B, 299, 299, 3] between 0 and 255; `resizing.as_in_2015` unless given.
    batch_size: images at a time.
  """
  pictures = np.asarray(pictures)
  if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] not in (1, 3) or not len(pictures):
    raise UserError(f"{pictures.dtype} of shape {list(pictures.shape)}; Inception reads uint8 [N, H, W, 3] or [N, H, W, 1]")
  pieces = []
  for first in range(0, len(pictures), batch_size):
    piece = pictures[first : first + batch_size]
    filled = np.concatenate([piece, np.repeat(piece[-1:], min(batch_size, len(pictures)) - len(piece), axis=0)])
    found = _apply(resize or resizing.as_in_2015, variables, np.broadcast_to(filled, (*filled.shape[:3], 3)))
    pieces.append([np.asarray(array)[: len(piece)] for array in found])
  return Outputs(*map(np.concatenate, zip(*pieces)))


@functools.partial(jax.jit, static_argnums=0)
def _apply(resize, variables, pictures):
  return Inception().apply(variables, (resize(pictures) - 128) / 128)


# The weights.


def load(path) -> dict:
  """Variables of `Inception` from a safetensors file; what else is in it is not read.

  Raises:
    UserError: the file cannot be read, is damaged or no safetensors, lacks a tensor or has one of another shape.
  """
  read = safetensors.reader(path)
  shapes = jax.eval_shape(Inception().init, jax.random.key(0), jax.ShapeDtypeStruct((1, 75, 75, 3), jnp.float32))

  def fill(location, leaf):
    *parts, last = (entry.key for entry in location[1:])
    name = ".".join((*parts, TENSORS[last]))
    if (tensor := read(name)) is None:
      raise UserError(f"{path} has no tensor {name}: it holds another network than the Inception of FID")
    turned = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T  # [O, I, h, w] -> [h, w, I, O]
    if turned.shape != leaf.shape:
      raise UserError(f"{path}: {name} is {list(tensor.shape)}; the Inception of FID needs {_torch_shape(leaf.shape)}")
    return frechet.checked(turned.astype(np.float32), f"{path}: {name}", turned.ndim)

  return jax.tree_util.tree_map_with_path(fill, shapes)


TENSORS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def _torch_shape(shape) -> list:
  return [*shape[:-3:-1], *shape[:-2]]
