"""Batch s of a run, as a pure function of (seed, s).

Nothing is remembered from one batch to the next, so a run stopped anywhere goes on exactly where it was: the step names the
batch.  Epoch e visits the examples in permutation e, and batches run on across the border between two epochs, so that every
example is seen equally often whatever the batch size.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gm_jax.data import noise
from gm_jax.errors import UserError


def batches(dataset, batch_size: int, seed: int):
  """The training batches of `dataset`: a function of the step.

      fetch = batches(dataset, 128, seed=0)
      fetch(step)                    # {"image": [128, H, W, C], ...}
      fetch.rows(step, 32, 64)       # rows 32 to 63 of the same batch: what one of four processes feeds

  Args:
    dataset: a `Dataset`, or a `Large` one: whatever has a length and a `loader`.
    batch_size: of the global batch; at most the number of examples.
    seed: integer in [0, 2**32).
  """
  num = len(dataset)
  if not 1 <= batch_size <= num:
    name = f"{dataset.protocol['data']}/{dataset.protocol['split']}"
    raise UserError(f"batch size {batch_size} is not between 1 and {num}, the number of examples in {name}")
  if not 0 <= seed < 2**32:
    raise UserError(f"seed {seed}; take an integer in [0, 2**32)")
  return dataset.loader(batch_size, seed)


class Batches(NamedTuple):
  """The batches of a data set in memory; `batches` makes one."""

  dataset: Any
  batch_size: int
  seed: int

  def __call__(self, step: int) -> dict[str, np.ndarray]:
    """Batch `step`, {name: [batch_size, ...]}."""
    return self.rows(step, 0, self.batch_size)

  def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
    """Rows `start` to `stop` - 1 of batch `step`."""
    first = step * self.batch_size
    num = len(self.dataset)
    order = lambda epoch: _order(self.seed, epoch, num)
    batch = self.dataset.gather(in_turn(order, num, first + start, first + stop))
    return self.dataset.transform(batch, rows_of(self.seed, noise.TRAIN, step, start, stop - start))


def epoch(dataset, batch_size: int, seed: int = 0) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
  """Once over the split in order: pairs (batch {name: [batch_size, ...]}, valid bool [batch_size]).

  The last batch is filled up by repeating the last example, with `valid` False, so that one shape is compiled and every example
  counts once.  What is random (dynamic binarisation) belongs to (seed, example): it is the same at any batch size.
  """
  num = len(dataset)
  for first in range(0, num, batch_size):
    which = np.arange(first, first + batch_size)
    batch = dataset.gather(np.minimum(which, num - 1))
    yield dataset.transform(batch, rows_of(seed, noise.EVALUATE, 0, first, batch_size)), which < num


def rows_of(seed: int, purpose: int, index: int, first: int, num: int):
  """The `noise` of a transform that sees these rows: shape -> uint16 [num, *shape]."""
  return functools.partial(noise.uniform16, seed, purpose, index, first, num)


_order = functools.lru_cache(maxsize=4)(noise.permutation)  # train and test, this epoch and the next


def in_turn(order, num: int, first: int, stop: int) -> np.ndarray:
  """Which of `num` examples stand at positions `first` to `stop` - 1 of the endless sequence of epochs, int64 [stop - first].

  `order(epoch)` is that epoch's permutation.
  """
  pieces = []
  while first < stop:
    number, offset = divmod(first, num)
    pieces.append(order(number)[offset : offset + stop - first])
    first += len(pieces[-1])
  return pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros(0, np.int64), *pieces])
