"""Images in a larger frame: networks that halve and double them want sides that can be halved often."""

import dataclasses

import numpy as np

from gm_jax.data.dataset import Dataset
from gm_jax.errors import UserError


def padded(dataset, size: int):
  """The data set with every image in the middle of a black one, `size` pixels a side: `framed` on whatever is read."""
  if isinstance(dataset, Dataset):
    framed(dataset.arrays["image"][:1], size)  # what cannot be framed is said now
  before = dataset.transform

  def frame(batch, noise):
    batch = before(batch, noise)
    return {**batch, "image": framed(batch["image"], size)}

  return dataclasses.replace(dataset, transform=frame, protocol={**dataset.protocol, "padded": size})


def framed(images: np.ndarray, size: int) -> np.ndarray:
  """uint8 [B, H, W, C] -> [B, size, size, C]; where the rest is odd, its larger half is below and on the right."""
  if images.dtype != np.uint8 or max(images.shape[1:3]) > size:
    raise UserError(f"{images.dtype} {list(images.shape[1:])} cannot be framed in {size} x {size}; take uint8 images no larger")
  spare = [(0, 0), *(((size - side) // 2, -((side - size) // 2)) for side in images.shape[1:3]), (0, 0)]
  return np.pad(images, spare)


def unframed(images: np.ndarray, size: int) -> np.ndarray:
  """The way back, for square ones: [B, H, W, C] -> their middles, [B, size, size, C]."""
  top, left = ((side - size) // 2 for side in images.shape[1:3])
  if min(top, left) < 0:
    raise UserError(f"images of {images.shape[1]} x {images.shape[2]} have no middle of {size} x {size}")
  return images[:, top : top + size, left : left + size]
