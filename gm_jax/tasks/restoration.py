"""What an image has lost, given back: a model against simple methods, by PSNR and SSIM on the same corrupted images."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import images
from gm_jax.metrics import quality

EXACT = 10 * math.log10(12 * 255**2)  # dB: 58.9, what rounding to whole levels leaves on average


class Restoration(NamedTuple):
  """A way to corrupt images, and ways to restore them.

  Attributes:
    corrupt: `(key, x [B, H, W, C] in [0, 1]) -> x`.
    restore: `(state, corrupted x) -> uint8 [B, H, W, C]`, the model.
    baselines: `{name: corrupted x -> uint8}`, what it is held against.
    others: `{name: (state, corrupted x) -> uint8}`, more that the model can do, such as the mean of several answers.
  """

  corrupt: Callable
  restore: Callable
  baselines: dict[str, Callable]
  others: Mapping[str, Callable] = MappingProxyType({})


class Compared(NamedTuple):
  """Images by method, the first two of them "original" and "corrupted", and the scores of all but the original."""

  pictures: dict[str, np.ndarray]  # uint8 [N, H, W, C]
  scores: dict[str, dict[str, np.ndarray]]  # {method: {"psnr": dB [N], "ssim": [N]}}


def compare(restoration: Restoration, state, pictures, key, batch_size: int = 500) -> Compared:
  """Corrupts uint8 images [N, H, W, C] and lets every method restore them; the model is called "model"."""
  of_state = {"model": restoration.restore, **restoration.others}
  methods = {"corrupted": images.from_unit, **restoration.baselines}
  methods |= {name: partial(method, state) for name, method in of_state.items()}
  corrupt = jax.jit(restoration.corrupt)
  found = {name: [] for name in methods}
  for first in range(0, len(pictures), batch_size):
    piece = images.to_unit(jnp.asarray(pictures[first : first + batch_size]))
    x = corrupt(jax.random.fold_in(key, first), piece)
    for name, method in methods.items():
      found[name].append(np.asarray(method(x)))
  found = {name: np.concatenate(pieces) for name, pieces in found.items()}
  scores = {name: _scores(restored, pictures) for name, restored in found.items()}
  return Compared({"original": np.asarray(pictures), **found}, scores)


def _scores(restored, pictures) -> dict:
  """An image without any difference counts as EXACT, so that means exist."""
  psnr = np.minimum(quality.psnr(restored, pictures), EXACT)
  return {"psnr": np.asarray(psnr), "ssim": np.asarray(quality.ssim(restored, pictures))}


def sheet(pictures: dict[str, np.ndarray], num: int = 12) -> np.ndarray:
  """A picture: a line for each method, a column for each of the first images."""
  return images.grid(np.concatenate([line[:num] for line in pictures.values()]), columns=min(num, len(pictures["original"])))


# Simple methods.


@jax.jit
def median(x):
  """The median of the 3 x 3 pixels around each: [B, H, W, C] in [0, 1] -> uint8."""
  height, width = x.shape[1:3]
  around = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
  shifted = [around[:, row : row + height, column : column + width] for row in range(3) for column in range(3)]
  return images.from_unit(jnp.median(jnp.stack(shifted), axis=0))


def principal(train, num: int) -> Callable:
  """The projection on the first `num` principal directions of uint8 images [N, H, W, C]: a function of corrupted images."""
  x = np.asarray(images.to_unit(jnp.asarray(train))).reshape(len(train), -1).astype(np.float64)
  mean = x.mean(0)
  _, axes = np.linalg.eigh((x - mean).T @ (x - mean))
  axes = axes[:, -num:]

  def project(x):
    flat = np.asarray(x, np.float64).reshape(len(x), -1) - mean
    return np.asarray(images.from_unit(jnp.asarray((mean + flat @ axes @ axes.T).astype(np.float32)))).reshape(x.shape)

  return project


def linear(train, corrupt: Callable, ridge: float = 1e-3) -> Callable:
  """The best linear guess of the image from the corrupted one, least squares over corrupted uint8 images [N, H, W, C]."""
  x = images.to_unit(jnp.asarray(train))
  seen = np.asarray(corrupt(jax.random.key(0), x), np.float64).reshape(len(x), -1)
  wanted = np.asarray(x, np.float64).reshape(len(x), -1)
  means = seen.mean(0), wanted.mean(0)
  seen, wanted = seen - means[0], wanted - means[1]
  weights = np.linalg.solve(seen.T @ seen + ridge * len(seen) * np.eye(seen.shape[1]), seen.T @ wanted)

  def guess(x):
    flat = (np.asarray(x, np.float64).reshape(len(x), -1) - means[0]) @ weights + means[1]
    return np.asarray(images.from_unit(jnp.asarray(flat.astype(np.float32)))).reshape(x.shape)

  return guess


def mean_inside(train, lost: float = 0.5) -> Callable:
  """Pixels of exactly the value `lost` in all channels become those of the mean of uint8 images [N, H, W, C]."""
  mean = np.asarray(images.to_unit(jnp.asarray(train))).mean(0)
  return lambda x: images.from_unit(jnp.where((x == lost).all(-1, keepdims=True), mean[None], x))
