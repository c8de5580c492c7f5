"""Every factor does what its name says, and nothing else."""

import numpy as np
import pytest

from gm_jax.data.sprites import Grid, draw, sprites
from gm_jax.errors import UserError

GRID = Grid(3, 8, 5, 5)


def one(shape=0, scale=2, orientation=0, column=2, row=2, size=48):
  return draw([[shape, scale, orientation, column, row]], size, GRID)[0, :, :, 0] > 0


def centre(image):
  return np.array([index.mean() for index in np.nonzero(image)])


@pytest.mark.parametrize("shape", range(3))
def test_places_move_a_shape_and_leave_it_whole(shape):
  assert np.allclose(np.diff([centre(one(shape, column=c))[1] for c in range(5)]), 0.25 * (47 - 2 * 0.27 * 48), atol=0.7)
  assert np.allclose(np.diff([centre(one(shape, row=r))[0] for r in range(5)]), 0.25 * (47 - 2 * 0.27 * 48), atol=0.7)
  areas = [one(shape, column=c, row=r).sum() for c in range(5) for r in range(5)]
  assert np.std(areas) < 0.06 * np.mean(areas)  # none is cut by the border
  for corner in (0, 4):
    image = one(shape, column=corner, row=corner)
    assert image.sum() == image[1:-1, 1:-1].sum()


@pytest.mark.parametrize("shape", range(3))
def test_scales_are_from_half_to_full(shape):
  areas = [one(shape, scale=s, size=96).sum() for s in range(3)]
  np.testing.assert_allclose(np.sqrt(areas) / np.sqrt(areas[-1]), [0.5, 0.75, 1], atol=0.03)


def test_a_turn_of_two_eighths_is_a_quarter():
  for shape in range(3):
    turned = one(shape, orientation=2)
    assert (turned != np.rot90(one(shape))).mean() < 0.03
  assert (one(0, orientation=2) != one(0)).mean() < 0.03  # a square does not show it
  assert (one(2, orientation=4) != one(2)).mean() > 0.02  # a heart does


def test_shapes_are_told_apart():
  for a in range(3):
    for b in range(a):
      assert (one(a) != one(b)).mean() > 0.01


def test_splits_hold_every_combination_once():
  train, test = (sprites(split, 16, Grid(2, 3, 4, 5)) for split in ("train", "test"))
  factors = np.concatenate([train.arrays["factors"], test.arrays["factors"]])
  assert len(factors) == 3 * 2 * 3 * 4 * 5 == len(np.unique(factors, axis=0))
  assert len(test) == 60
  np.testing.assert_array_equal(train.arrays["label"], train.arrays["factors"][:, 0])
  np.testing.assert_array_equal(draw(test.arrays["factors"], 16, Grid(2, 3, 4, 5)), test.arrays["image"])
  with pytest.raises(UserError, match="validation"):
    sprites("validation")
