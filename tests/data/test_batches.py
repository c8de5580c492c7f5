"""Batches are a pure function of (seed, step): permutations, restarts at any step, slices, and the border between epochs."""

import dataclasses

import numpy as np
import pytest

from gm_jax import data
from gm_jax.data.large import Large
from gm_jax.errors import UserError

NUM, BATCH = 23, 5  # the batch does not divide the epoch, so batches cross its border


@dataclasses.dataclass(frozen=True)
class ArraySource:
  """Arrays that pretend to lie on disk."""

  arrays: dict

  def read(self, indices):
    return {name: array[np.asarray(indices)] for name, array in self.arrays.items()}


def memory() -> data.Dataset:
  image = np.random.default_rng(0).integers(0, 256, (NUM, 4, 4, 1), dtype=np.uint8)
  return data.from_arrays(image, np.arange(NUM))  # the label names the example


def on_disk() -> Large:
  dataset = memory()
  return Large(ArraySource(dataset.arrays), dataset.protocol, num=NUM)


LOADERS = {
  "memory": memory,
  "memory, dynamic": lambda: data.dynamic_binarization(memory()),
  "disk": on_disk,
  "disk, dynamic": lambda: data.dynamic_binarization(on_disk()),
}


@pytest.fixture(params=LOADERS)
def dataset(request):
  return LOADERS[request.param]()


def same(one, other):
  assert one.keys() == other.keys()
  for name in one:
    np.testing.assert_array_equal(one[name], other[name], strict=True)


def examples(dataset, batch_size, seed, steps):
  fetch = data.batches(dataset, batch_size, seed)
  return np.concatenate([fetch(step)["label"] for step in range(steps)])


def test_each_epoch_is_another_permutation(dataset):
  epochs = examples(dataset, BATCH, 3, NUM * 4 // BATCH + 1)[: NUM * 4].reshape(4, NUM)
  np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(NUM), (4, 1)))
  assert len({tuple(order) for order in epochs}) == 4
  assert not any((order == np.arange(NUM)).all() for order in epochs)


def test_order_does_not_depend_on_the_batch_size(dataset):
  """Batches run on across the border between epochs: 3 epochs in fives are the 3 epochs in one-epoch batches."""
  whole = examples(dataset, NUM, 3, 3)
  for batch_size in (1, 5, 7):
    steps = 3 * NUM // batch_size
    np.testing.assert_array_equal(examples(dataset, batch_size, 3, steps), whole[: steps * batch_size])


def test_seeds_differ(dataset):
  assert not np.array_equal(examples(dataset, BATCH, 3, 4), examples(dataset, BATCH, 4, 4))


def test_restart_at_every_step(dataset):
  """A loader that begins at step s, and one that jumps about, give the bytes of one that ran from the start."""
  steps = 3 * NUM // BATCH + 1
  fetch = data.batches(dataset, BATCH, 3)
  run = [fetch(step) for step in range(steps)]
  jumping = data.batches(dataset, BATCH, 3)
  for step in np.random.default_rng(0).permutation(steps):
    same(jumping(int(step)), run[step])
  for step in range(steps):
    restarted = data.batches(dataset, BATCH, 3)
    same(restarted(step), run[step])
    if step + 1 < steps:
      same(restarted(step + 1), run[step + 1])


def test_rows_are_slices_of_the_batch(dataset):
  fetch, other = data.batches(dataset, BATCH, 3), data.batches(dataset, BATCH, 3)
  for step in range(7):
    whole = fetch(step)
    for start, stop in ((0, 2), (2, 5), (4, 5)):
      same(other.rows(step, start, stop), {name: array[start:stop] for name, array in whole.items()})


def test_batches_own_their_memory():
  """A batch that is written into changes nothing."""
  dataset = memory()
  fetch = data.batches(dataset, BATCH, 3)
  before = fetch(2)["image"].copy()
  fetch(2)["image"][:] = 0
  np.testing.assert_array_equal(fetch(2)["image"], before)


def test_epoch_reads_each_example_once_in_order(dataset):
  for batch_size in (1, 5, NUM, 40):
    pieces = list(data.epoch(dataset, batch_size))
    assert all(batch["image"].shape[0] == len(valid) == batch_size for batch, valid in pieces)
    labels = np.concatenate([batch["label"][valid] for batch, valid in pieces])
    np.testing.assert_array_equal(labels, np.arange(NUM))


def test_what_is_drawn_in_an_epoch_belongs_to_the_example(dataset):
  whole = next(data.epoch(dataset, NUM, seed=5))[0]["image"]
  for batch_size in (1, 4, 23):
    pieces = np.concatenate([batch["image"][valid] for batch, valid in data.epoch(dataset, batch_size, seed=5)])
    np.testing.assert_array_equal(pieces, whole)


@pytest.mark.parametrize(("batch_size", "seed"), [(NUM + 1, 0), (0, 0), (-3, 0), (1, -1), (1, 2**32)])
def test_impossible_batches(dataset, batch_size, seed):
  with pytest.raises(UserError, match=rf"{seed if batch_size == 1 else batch_size}"):
    data.batches(dataset, batch_size, seed)


def test_take_and_where():
  dataset = memory()
  assert len(dataset) == NUM
  assert dataset.take(7).arrays["label"].tolist() == list(range(7))
  assert dataset.take(7).protocol["take"] == 7
  assert dataset.where(dataset.arrays["label"] % 5 == 2).arrays["label"].tolist() == [2, 7, 12, 17, 22]
  assert len(on_disk().take(7)) == 7
  np.testing.assert_array_equal(np.sort(examples(on_disk().take(7), 7, 0, 1)), np.arange(7))


@pytest.mark.parametrize(
  ("image", "label"),
  [
    (np.zeros((3, 4, 4, 1)), None),  # floats that are no points
    (np.zeros(3), None),
    (np.zeros((3, 0)), None),
    (np.zeros((3, 2), int), None),
    (np.zeros((3, 16), np.uint8), None),
    (np.zeros((0, 4, 4, 1), np.uint8), None),
    (np.zeros((3, 4, 4, 1), np.uint8), np.zeros(4, int)),
    (np.zeros((3, 4, 4, 1), np.uint8), np.zeros(3)),
  ],
)
def test_arrays_that_are_no_data(image, label):
  with pytest.raises(UserError, match="mine: "):
    data.from_arrays(image, label, data="mine")


def test_points_and_grey_images_get_their_axes():
  for dims in (1, 2, 5):
    points = np.arange(3.0 * dims).reshape(3, dims)
    for given in (points, points[:, None, None]):
      stored = data.from_arrays(given).arrays["image"]
      assert stored.shape == (3, 1, 1, dims)
      np.testing.assert_array_equal(stored.reshape(3, dims), points)
  assert data.from_arrays(np.zeros((3, 4, 5), np.uint8)).arrays["image"].shape == (3, 4, 5, 1)
