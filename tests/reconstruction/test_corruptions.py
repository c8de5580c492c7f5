"""What is lost is lost at the rate that was asked for, to each image by itself, and nothing else is touched."""

import jax
import numpy as np
import pytest

from gm_jax import rows
from gm_jax.reconstruction import corruptions

X = np.random.default_rng(0).uniform(0.1, 0.9, (40, 12, 12, 3)).astype(np.float32)
KEY = jax.random.key(0)

MARK = np.eye(12, dtype=np.float32)
ALL = {
  "gaussian": corruptions.gaussian(0.3),
  "masking": corruptions.masking(0.25),
  "salt and pepper": corruptions.salt_and_pepper(0.2),
  "coarse": corruptions.coarse(2),
  "grey": corruptions.grey(),
  "hole": corruptions.hole(5),
  "negative": corruptions.negative(0.5),
  "slanted": corruptions.slanted(0.4),
  "both": corruptions.both(corruptions.negative(0.5), corruptions.masking(0.25)),
  "watermark": corruptions.watermark(MARK, 0.7),
}


@pytest.mark.parametrize("name", ALL)
def test_an_image_meets_the_same_fate_in_any_batch(name):
  whole = ALL[name](KEY, X)
  assert whole.shape == X.shape
  assert (np.asarray(whole) != X).any((1, 2, 3)).mean() > 0.25  # some only befall a share of the images
  with rows.view(first=30):
    np.testing.assert_allclose(ALL[name](KEY, X[30:33]), whole[30:33], atol=1e-6)


def test_noise_has_its_deviation():
  noise = np.asarray(ALL["gaussian"](KEY, X) - X)
  assert noise.std() == pytest.approx(0.3, rel=0.02)
  assert abs(noise.mean()) < 0.01
  assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.2


@pytest.mark.parametrize(("name", "values"), [("masking", [0]), ("salt and pepper", [0, 1])])
def test_pixels_are_lost_whole_and_at_the_rate(name, values):
  after = np.asarray(ALL[name](KEY, X))
  lost = (after != X).any(-1)
  assert (after[lost] == after[lost][:, :1]).all()
  shares = [(after[lost][:, 0] == value).sum() / lost.size for value in values]
  rate = {"masking": 0.25, "salt and pepper": 0.2}[name] / len(values)
  assert all(abs(share - rate) < 5 * np.sqrt(rate / lost.size) for share in shares)
  assert sum(shares) * lost.size == lost.sum()


def test_coarse_images_keep_the_means_of_blocks_and_smooth_ones_come_back():
  np.testing.assert_allclose(corruptions.shrunk(X, 12)[:, 0, 0], X.mean((1, 2)), rtol=1e-5)
  np.testing.assert_allclose(corruptions.shrunk(X, 2)[:, 1, 2], X[:, 2:4, 4:6].mean((1, 2)), rtol=1e-5)
  ramp = np.broadcast_to(np.linspace(0, 1, 12, dtype=np.float32)[None, :, None, None], (1, 12, 12, 1))
  after = np.asarray(ALL["coarse"](KEY, ramp))
  np.testing.assert_allclose(after[:, 3:-3], ramp[:, 3:-3], atol=1e-5)
  with pytest.raises(ValueError, match="5 x 5"):
    corruptions.coarse(5)(KEY, X)


def test_grey_has_one_value_for_each_pixel():
  after = np.asarray(ALL["grey"](KEY, X))
  np.testing.assert_allclose(after, X.mean(-1, keepdims=True).repeat(3, -1), rtol=1e-6)


def test_a_hole_is_a_square_that_goes_everywhere():
  many = np.zeros((3000, 12, 12, 1), np.float32)
  hidden = np.asarray(ALL["hole"](KEY, many))[..., 0] == 0.5
  assert (hidden.sum((1, 2)) == 25).all()
  assert (hidden.any(1).sum(1) == 5).all()
  assert (hidden.any(2).sum(1) == 5).all()
  corners = hidden[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(0)  # 8 x 8 places, one of which hides a corner
  assert (abs(corners - 1 / 64) < 5 * np.sqrt(1 / 64 / 3000)).all()


def test_a_watermark_lies_where_it_is():
  after = np.asarray(ALL["watermark"](KEY, X))
  off = MARK == 0
  np.testing.assert_array_equal(after[:, off], X[:, off])
  np.testing.assert_allclose(after[:, ~off], 0.3 * X[:, ~off] + 0.7, rtol=1e-6)


def test_negatives_are_whole_images():
  many = np.full((3000, 2, 2, 1), 0.25, np.float32)
  after = np.asarray(ALL["negative"](KEY, many)).reshape(3000, -1)
  assert set(np.unique(after)) == {0.25, 0.75}
  assert (np.ptp(after, axis=1) == 0).all()
  assert abs((after[:, 0] == 0.75).mean() - 0.5) < 4 * 0.5 / np.sqrt(3000)


def test_slanted_rows_are_moved_by_the_slope_of_their_image():
  """A vertical line: where it stands in each row tells the slope, the same for all rows, evenly spread over the images."""
  many = np.zeros((2000, 12, 15, 1), np.float32)
  many[:, :, 7] = 1.0
  after = np.asarray(ALL["slanted"](KEY, many))[..., 0]
  assert (after.sum(2) == 1).all()
  shift = after.argmax(2) - 7  # [N, 12]
  up = 6 - np.arange(12)
  slope = shift[:, 0] / 6
  assert (abs(shift - slope[:, None] * up[None]) <= 1.0).all()
  assert (shift[:, 6] == 0).all()
  assert abs(slope.mean()) < 5 * 0.4 / np.sqrt(3 * 2000)
  assert slope.min() < -0.3
  assert slope.max() > 0.3
  assert len(np.unique(shift[:, 0])) == 5


def test_both_are_one_after_the_other():
  first_key, second_key = jax.random.split(KEY)
  expected = corruptions.masking(0.25)(second_key, corruptions.negative(0.5)(first_key, X))
  np.testing.assert_array_equal(ALL["both"](KEY, X), expected)
