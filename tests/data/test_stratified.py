"""Interleaved batches: the classes in turn, each through its own permutations, and everything a function of (seed, step)."""

import numpy as np
import pytest

from gm_jax import data
from gm_jax.data.large import Large
from gm_jax.errors import UserError

SIZES = (4, 7, 12)  # of the classes; a batch of 15 has five rows of each, so small classes go round within few batches
NUM, BATCH, CLASSES = sum(SIZES), 15, len(SIZES)


def dataset():
  """The pixel names the example, the label its class."""
  label = np.random.default_rng(0).permutation(np.repeat(np.arange(CLASSES), SIZES))
  return data.from_arrays(np.arange(NUM, dtype=np.uint8).reshape(-1, 1, 1, 1), label)


def rows(steps, seed=3, batch_size=BATCH, source=None):
  """Names and labels of all rows of these steps, in order."""
  fetch = data.batches(source or data.stratified(dataset()), batch_size, seed)
  batches = [fetch(step) for step in steps]
  return tuple(np.concatenate([batch[name].reshape(-1) for batch in batches]) for name in ("image", "label"))


def test_row_i_is_of_class_i_mod_k():
  _, labels = rows(range(5))
  np.testing.assert_array_equal(labels, np.arange(5 * BATCH) % CLASSES)


def test_each_class_goes_through_its_own_permutations():
  names, labels = rows(range(4 * max(SIZES)))
  for one, size in enumerate(SIZES):
    members = np.flatnonzero(dataset().arrays["label"] == one)
    epochs = names[labels == one][: 12 * size].reshape(12, size)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(members, (12, 1)))
    assert len({tuple(epoch) for epoch in epochs}) > 6  # 4! = 24 orders of the smallest


def test_no_two_classes_share_a_permutation():
  alike = data.from_arrays(np.arange(60, dtype=np.uint8).reshape(-1, 1, 1, 1), np.repeat([0, 1, 2], 20))
  names, labels = rows(range(4), batch_size=60, source=data.stratified(alike))
  orders = [names[labels == one] - 20 * one for one in range(3)]
  assert not any((orders[one] == orders[other]).all() for one, other in ((0, 1), (0, 2), (1, 2)))


def test_the_order_does_not_depend_on_the_batch_size():
  whole, _ = rows(range(4))
  for batch_size in (3, 6):
    np.testing.assert_array_equal(rows(range(60 // batch_size), batch_size=batch_size)[0], whole)


def test_another_seed_is_another_order():
  assert (rows(range(3), seed=3)[0] != rows(range(3), seed=4)[0]).any()


@pytest.mark.parametrize("source", ["plain", "dynamic"])
def test_rows_are_slices_of_the_batch_at_any_step(source):
  plain = dataset()
  made = data.stratified(plain if source == "plain" else data.dynamic_binarization(plain))
  fetch, other = data.batches(made, BATCH, 3), data.batches(made, BATCH, 3)
  for step in (6, 0, 3):
    whole = fetch(step)
    for start, stop in ((0, 3), (2, 15), (4, 5), (7, 7)):
      for name, array in other.rows(step, start, stop).items():
        np.testing.assert_array_equal(array, whole[name][start:stop], strict=True)


def test_binarisation_may_come_before_or_after():
  one = data.dynamic_binarization(data.stratified(dataset()))
  other = data.stratified(data.dynamic_binarization(dataset()))
  np.testing.assert_array_equal(rows(range(3), source=one), rows(range(3), source=other))


def test_evaluation_is_in_order():
  made = data.stratified(dataset())
  names = np.concatenate([batch["image"][valid].reshape(-1) for batch, valid in data.epoch(made, 5)])
  np.testing.assert_array_equal(names, np.arange(NUM))
  assert made.protocol == dataset().protocol


def test_what_cannot_be_stratified_is_named():
  with pytest.raises(UserError, match="batch size 16 is not a multiple of the 3 classes of arrays/train"):
    data.batches(data.stratified(dataset()), 16, 0)
  with pytest.raises(UserError, match="no example of class 3, 4"):
    data.stratified(dataset(), 5)
  with pytest.raises(UserError, match="labels 0 to 2"):
    data.stratified(dataset(), 2)
  with pytest.raises(UserError, match="no example of class 1"):
    data.batches(data.stratified(dataset()).where(dataset().arrays["label"] != 1), 15, 0)
  with pytest.raises(UserError, match="no labels"):
    data.stratified(data.from_arrays(np.zeros((4, 2, 2, 1), np.uint8)))
  with pytest.raises(UserError, match="not in memory"):
    data.stratified(Large(None, dataset().protocol, num=NUM))
