"""A data set in memory: named arrays, and the protocol that every number measured on them carries."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from gm_jax.data.batches import Batches
from gm_jax.errors import UserError


def as_stored(batch: dict, noise: Callable) -> dict:
  """The transformation that does nothing."""
  del noise
  return batch


@dataclasses.dataclass(frozen=True)
class Dataset:
  """One split in memory.

  Attributes:
    arrays: `{"image": uint8 [N, H, W, C], "label": int32 [N], ...}`; points are float32 [N, 1, 1, D].
    protocol: what was measured on, in JSON: at least "data", "split" and "binarization".
    transform: `(batch, noise) -> batch`, applied to whatever is read; `noise(shape) -> uint16 [B, *shape]` draws rows that
      belong to (seed, step, row of the global batch) in training and to the example in evaluation.
  """

  arrays: dict[str, np.ndarray]
  protocol: dict[str, Any]
  transform: Callable = as_stored

  def __len__(self) -> int:
    return len(self.arrays["image"])

  def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    """The examples at `indices` [B], untransformed: {name: [B, ...]}, new arrays."""
    return {name: array.take(indices, axis=0) for name, array in self.arrays.items()}

  def loader(self, batch_size: int, seed: int) -> Batches:
    return Batches(self, batch_size, seed)

  def take(self, num: int) -> "Dataset":
    """The first `num` examples (all of them if there are fewer)."""
    kept = {name: array[:num] for name, array in self.arrays.items()}
    return dataclasses.replace(self, arrays=kept, protocol={**self.protocol, "take": len(kept["image"])})

  def where(self, mask: np.ndarray) -> "Dataset":
    """The examples where `mask` [N] holds: `train.where(train.arrays["label"] == 3)` is the threes."""
    kept = {name: array[mask] for name, array in self.arrays.items()}
    return dataclasses.replace(self, arrays=kept, protocol={**self.protocol, "subset": len(kept["image"])})


def from_arrays(image, label=None, *, data: str = "arrays", split: str = "train", **protocol) -> Dataset:
  """A data set from arrays of your own.

  Args:
    image: uint8 [N, H, W, C], or [N, H, W] for one channel; points as float [N, D] or [N, 1, 1, D].
    label: integers [N], or None where there are none.
    data, split: their names, for the protocol; further keywords are added to it.
  """
  image = np.asarray(image)
  if not image.size:
    raise UserError(f"{data}: an empty array, {list(image.shape)}; at least one example is needed")
  if image.dtype == np.uint8 and image.ndim in (3, 4):
    image = image.reshape(*image.shape[:3], -1)
  elif np.issubdtype(image.dtype, np.floating) and (image.ndim == 2 or image.ndim == 4 and image.shape[1:3] == (1, 1)):
    image = image.reshape(len(image), 1, 1, -1).astype(np.float32)
  else:
    raise UserError(f"{data}: {image.dtype} {list(image.shape)} is not images, uint8 [N, H, W, C], nor points, float [N, D]")
  arrays = {"image": np.ascontiguousarray(image)}
  if label is not None:
    label = np.asarray(label)
    if label.shape != image.shape[:1] or not np.issubdtype(label.dtype, np.integer):
      raise UserError(f"{data}: labels {label.dtype} {list(label.shape)}; integers [{len(image)}] are needed, one per image")
    arrays["label"] = label.astype(np.int32)
  return Dataset(arrays, {"data": data, "split": split, "binarization": "none", **protocol})
