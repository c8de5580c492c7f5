"""Data that stay on disk: read, decoded and forgotten batch by batch, by Grain, with threads that read ahead.

The call is that of data in memory, `batches(dataset, batch_size, seed)(step)`, and so is the promise: the batch is a function
of (seed, step), whatever was read before.  Grain's permutation is computed index by index, so an epoch of any length costs no
memory.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from gm_jax.data import decoded, noise
from gm_jax.data.batches import rows_of
from gm_jax.data.dataset import Dataset, as_stored
from gm_jax.errors import UserError

BUDGET = 2 * 2**30  # bytes of decoded arrays that are held in memory
_PIECE = 1024  # examples read at a time while memory is filled


class Source(Protocol):
  """Random access to examples on disk.

  Attributes:
    num: how many.
    num_bytes: of all of them, decoded.
  """

  num: int
  num_bytes: int

  def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    """The examples at `indices` [B], decoded: {name: [B, ...]}.  Called from several threads."""

  def made_from(self) -> Any:
    """Everything that the arrays depend on, in JSON: files by `decoded.stamp`, and how they are decoded."""


def opened(source: Source, protocol: dict[str, Any], budget: int = BUDGET):
  """The data of `source`: in memory (`Dataset`) if they fit into `budget` bytes, else `Large`."""
  if source.num_bytes > budget:
    return Large(source, protocol, num=source.num)
  return Dataset(decoded.remember(lambda: _read_all(source), source.made_from()), protocol)


def _read_all(source: Source) -> dict[str, np.ndarray]:
  arrays = {}
  for first in range(0, source.num, _PIECE):
    piece = source.read(np.arange(first, min(first + _PIECE, source.num)))
    for name, values in piece.items():
      if not first:
        arrays[name] = np.empty((source.num, *values.shape[1:]), values.dtype)
      arrays[name][first : first + len(values)] = values
  return arrays


@dataclasses.dataclass(frozen=True)
class Large:
  """One split on disk; see `Dataset`, whose place it takes."""

  source: Source
  protocol: dict[str, Any]
  transform: Callable = as_stored
  num: int = 0

  def __len__(self) -> int:
    return self.num

  def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    return self.source.read(indices)

  def loader(self, batch_size: int, seed: int) -> "LargeBatches":
    return LargeBatches(self, batch_size, seed)

  def take(self, num: int) -> "Large":
    num = min(num, self.num)
    return dataclasses.replace(self, num=num, protocol={**self.protocol, "take": num})


class LargeBatches:
  """Batches of a data set on disk.  Asking for consecutive steps is fast; asking for any other is right."""

  def __init__(self, dataset: Large, batch_size: int, seed: int, threads: int = 4, ahead: int = 4):
    import grain

    self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
    epochs = 2**50 // len(dataset)  # for ever: an unlimited repeat overflows the length of its batches
    self._order = grain.MapDataset.range(len(dataset)).seed(seed).shuffle().repeat(epochs).batch(batch_size)
    self._options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    self._expected, self._ahead = None, iter(())  # the request that the threads are reading ahead for

  def __call__(self, step: int) -> dict[str, np.ndarray]:
    """Batch `step`, {name: [batch_size, ...]}."""
    return self.rows(step, 0, self.batch_size)

  def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
    """Rows `start` to `stop` - 1 of batch `step`; only these are read."""
    if self._expected != (step, start, stop):
      mine = self._order.slice(slice(step, None)).map(lambda indices: indices[start:stop])
      self._ahead = iter(mine.map(self.dataset.gather).to_iter_dataset(self._options))
    batch = next(self._ahead)
    self._expected = step + 1, start, stop
    return self.dataset.transform(batch, rows_of(self.seed, noise.TRAIN, step, start, stop - start))


def check_image_shape(image: np.ndarray, shape, name: str) -> np.ndarray:
  """`image` if it has the shape of the others."""
  if image.shape != tuple(shape):
    raise UserError(f"{name} is {list(image.shape)} where others are {list(shape)}; give a size to resize all pictures to")
  return image
