"""Images in a larger frame: they are whole and in the middle, and nothing else is changed."""

import numpy as np
import pytest

from gm_jax import data
from gm_jax.data.padded import framed, unframed
from gm_jax.errors import UserError


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 8, 3), (12, 11, 1)])
def test_an_image_is_whole_in_the_middle_of_black(shape):
  images = np.random.default_rng(0).integers(1, 256, (3, *shape), dtype=np.uint8)
  frame = framed(images, 12)
  assert frame.shape == (3, 12, 12, shape[-1])
  rows, columns = np.nonzero(frame.any((0, 3)).any(1))[0], np.nonzero(frame.any((0, 3)).any(0))[0]
  np.testing.assert_array_equal(frame[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], images)
  for first, last in ((rows[0], rows[-1]), (columns[0], columns[-1])):
    assert first <= 11 - last <= first + 1
  assert frame.sum(dtype=int) == images.sum(dtype=int)


@pytest.mark.parametrize("size", [3, 7, 8, 12])
def test_out_of_the_frame_it_is_what_it_was(size):
  images = np.random.default_rng(0).integers(1, 256, (3, size, size, 2), dtype=np.uint8)
  for larger in range(size, 14):
    np.testing.assert_array_equal(unframed(framed(images, larger), size), images)
  with pytest.raises(UserError, match=f"no middle of {size + 1} x {size + 1}"):
    unframed(images, size + 1)


def test_batches_and_evaluation_are_framed_and_the_protocol_says_so():
  plain = data.digits("test")
  large = data.padded(plain, 16)
  one, other = (data.batches(dataset, 32, seed=1)(3) for dataset in (plain, large))
  np.testing.assert_array_equal(other["image"], framed(one["image"], 16))
  np.testing.assert_array_equal(other["label"], one["label"])
  for (ours, _), (theirs, _) in zip(data.epoch(large, 128, 0), data.epoch(plain, 128, 0), strict=True):
    np.testing.assert_array_equal(ours["image"][:, 4:12, 4:12], theirs["image"])
  assert large.protocol == {**plain.protocol, "padded": 16}


def test_what_is_drawn_of_an_image_is_drawn_before():
  """Black and white, then framed: the same pixels as without the frame."""
  drawn = data.dynamic_binarization(data.digits("test"))
  one, other = (data.batches(dataset, 32, seed=1)(0)["image"] for dataset in (drawn, data.padded(drawn, 10)))
  np.testing.assert_array_equal(other[:, 1:9, 1:9], one)


def test_refuses_what_is_larger_and_what_is_no_image():
  with pytest.raises(UserError, match="7 x 7"):
    data.padded(data.digits("test"), 7)
  with pytest.raises(UserError, match="float32"):
    data.padded(data.from_arrays(np.zeros((4, 2), np.float32)), 8)
