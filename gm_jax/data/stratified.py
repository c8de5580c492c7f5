"""Batches in which every class has the same number of rows, in turn: what a model of one density per class learns from.

    train = stratified(digits("train"))          # a Dataset still, whose batches are interleaved
    batches(train, 160, seed=0)(step)["label"]   # 0, 1, ..., 9, 0, 1, ..., 9, ...

Row i is of class i mod K, so any cut of the batch into multiples of K rows, over devices or processes, holds every class.  Each
class has epochs and permutations of its own, so a rare class is seen more often than its share: how frequent the classes are is
what such batches do not tell.  Evaluation (`epoch`) is in order, as of any data set.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from gm_jax.data import noise
from gm_jax.data.batches import in_turn, rows_of
from gm_jax.data.dataset import Dataset
from gm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Stratified(Dataset):
  """A data set in memory whose batches are interleaved by class; `stratified` makes one."""

  num_classes: int = 1

  def loader(self, batch_size: int, seed: int) -> "StratifiedBatches":
    if batch_size % self.num_classes:
      raise UserError(f"batch size {batch_size} is not a multiple of the {self.num_classes} classes of {_name(self)}")
    return StratifiedBatches(self, _members(self), batch_size, seed)


def stratified(dataset: Dataset, num_classes: int | None = None) -> Stratified:
  """`dataset` with interleaved batches.

  Args:
    dataset: in memory, with labels; its transform, protocol and order stay.
    num_classes: K; None is the largest label and one.  Each class must have an example.
  """
  if not isinstance(dataset, Dataset):
    raise UserError(f"{_name(dataset)} is not in memory, which stratified batches need")
  if "label" not in dataset.arrays:
    raise UserError(f"{_name(dataset)} has no labels, which stratified batches need")
  num_classes = num_classes or int(dataset.arrays["label"].max()) + 1
  made = Stratified(dataset.arrays, dataset.protocol, dataset.transform, num_classes)
  _members(made)  # complains
  return made


class StratifiedBatches(NamedTuple):
  """The batches of a `Stratified` data set; a pure function of (seed, step), as `Batches` are."""

  dataset: Any
  members: list[np.ndarray]  # the examples of each class
  batch_size: int
  seed: int

  def __call__(self, step: int) -> dict[str, np.ndarray]:
    """Batch `step`, {name: [batch_size, ...]}; row i is of class i mod K."""
    return self.rows(step, 0, self.batch_size)

  def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
    """Rows `start` to `stop` - 1 of batch `step`."""
    num_classes = len(self.members)
    which = np.empty(stop - start, np.int64)
    for label, members in enumerate(self.members):
      first = start + (label - start) % num_classes  # the first of these rows that is of this class
      wanted = len(range(first, stop, num_classes))
      place = (step * self.batch_size + first) // num_classes  # among all rows of this class
      order = functools.partial(_order, self.seed, num_classes, label, len(members))
      which[first - start :: num_classes] = members[in_turn(order, len(members), place, place + wanted)]
    batch = self.dataset.gather(which)
    return self.dataset.transform(batch, rows_of(self.seed, noise.TRAIN, step, start, stop - start))


@functools.lru_cache(maxsize=1024)
def _order(seed: int, num_classes: int, label: int, num: int, epoch: int) -> np.ndarray:
  return noise.permutation(seed, epoch * num_classes + label, num, noise.SHUFFLE_CLASS)


def _members(dataset: Stratified) -> list[np.ndarray]:
  label = dataset.arrays["label"]
  if label.min() < 0 or label.max() >= dataset.num_classes:
    raise UserError(f"{_name(dataset)} has labels {label.min()} to {label.max()}; {dataset.num_classes} classes are 0 to K - 1")
  members = [np.flatnonzero(label == one) for one in range(dataset.num_classes)]
  empty = [str(one) for one, of_class in enumerate(members) if not len(of_class)]
  if empty:
    raise UserError(f"{_name(dataset)} has no example of class {', '.join(empty)}; stratified batches need every class")
  return members


def _name(dataset) -> str:
  return f"{dataset.protocol['data']}/{dataset.protocol['split']}"
