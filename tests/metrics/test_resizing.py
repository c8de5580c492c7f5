"""Resizing by loops, and by Pillow."""

import numpy as np
import PIL.Image
import pytest

from gm_jax.metrics import resizing

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (1, 31, 45, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [5, 7, 16, 40])
def test_resizing_of_2015_by_loops(size):
  picture = PICTURES[:1, :7, :16]
  found = np.asarray(resizing.as_in_2015(picture, size))[0]
  for i in range(size):
    for j in range(size):
      y, x = i * 7 / size, j * 16 / size
      top, left = int(y), int(x)
      bottom, right = min(top + 1, 6), min(left + 1, 15)
      p = picture[0].astype(float)
      upper = p[top, left] + (x - left) * (p[top, right] - p[top, left])
      lower = p[bottom, left] + (x - left) * (p[bottom, right] - p[bottom, left])
      np.testing.assert_allclose(found[i, j], upper + (y - top) * (lower - upper), atol=1e-3)


def test_a_picture_of_the_right_size_is_not_touched():
  picture = RNG.integers(0, 256, (1, 40, 40, 3), dtype=np.uint8)
  np.testing.assert_array_equal(resizing.as_in_2015(picture, 40), picture)
  np.testing.assert_array_equal(resizing.antialiased(picture, 40), picture)


@pytest.mark.parametrize("size", [9, 20, 77])
def test_antialiased_resizing_is_pillows(size):
  """To one level, since Pillow rounds twice."""
  found = np.asarray(resizing.antialiased(PICTURES[:1], size))[0]
  theirs = np.asarray(PIL.Image.fromarray(PICTURES[0]).resize((size, size), PIL.Image.Resampling.BILINEAR), float)
  assert np.abs(found - theirs).max() <= 1
  assert (found == np.round(found)).all()


def test_shrinking_aliases_in_2015_only():
  stripes = np.zeros((1, 60, 60, 1), np.uint8)
  stripes[:, ::2] = 255
  assert np.asarray(resizing.as_in_2015(stripes, 30)).min() == 255  # every other row is all that it sees
  assert np.ptp(np.asarray(resizing.antialiased(stripes, 30))[:, 2:-2]) <= 1
