"""Methods are compared on the same corrupted images, and each simple one does what its name says."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import data, images
from gm_jax.metrics import quality
from gm_jax.reconstruction import corruptions
from gm_jax.tasks import restoration

DIGITS = data.digits("test").arrays["image"][:64]


def test_every_method_sees_the_same_corrupted_images_and_is_scored_against_the_originals():
  black = lambda key, x: 0 * x
  task = restoration.Restoration(
    corruptions.masking(0.5), lambda state, x: images.from_unit(x + state), {"nothing": images.from_unit}
  )
  compared = restoration.compare(task, 0.0, DIGITS, jax.random.key(0), batch_size=20)
  for method in ("nothing", "model"):
    np.testing.assert_array_equal(compared.pictures[method], compared.pictures["corrupted"])
    np.testing.assert_array_equal(compared.scores[method]["psnr"], compared.scores["corrupted"]["psnr"])
  np.testing.assert_array_equal(compared.pictures["original"], DIGITS)
  np.testing.assert_allclose(compared.scores["model"]["ssim"], quality.ssim(compared.pictures["model"], DIGITS), rtol=1e-6)
  lost = (compared.pictures["corrupted"] != DIGITS).any(-1)
  assert len(np.unique(lost.reshape(64, -1), axis=0)) > 60  # pieces do not share their noise
  dark = restoration.compare(task._replace(corrupt=black), 0.0, DIGITS, jax.random.key(0))
  assert (dark.pictures["corrupted"] == 0).all()
  assert list(compared.pictures) == ["original", "corrupted", "nothing", "model"]


def test_the_sheet_has_a_line_for_each_method():
  pictures = {"original": DIGITS, "negative": 255 - DIGITS}
  sheet = restoration.sheet(pictures, num=4)
  assert sheet.shape == (2 * 9 + 1, 4 * 9 + 1, 1)
  np.testing.assert_array_equal(sheet[10:18, 10:18], 255 - DIGITS[1])


def test_the_median_takes_away_single_specks_and_leaves_halves():
  x = np.zeros((1, 9, 9, 2), np.float32)
  x[:, :, 5:] = 1
  clean = restoration.median(x)
  np.testing.assert_array_equal(clean, 255 * x.astype(np.uint8))
  x[0, 2, 2, 0], x[0, 4, 7, 1] = 1, 0
  np.testing.assert_array_equal(restoration.median(x), clean)


def test_the_projection_is_that_on_the_leading_directions():
  project = restoration.principal(DIGITS, 10)
  x = np.asarray(images.to_unit(DIGITS), np.float64).reshape(64, -1)
  left, values, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
  expected = x.mean(0) + (left[:, :10] * values[:10]) @ axes[:10]
  got = project(jnp.asarray(x.reshape(64, 8, 8, 1).astype(np.float32)))
  np.testing.assert_allclose(got.reshape(64, -1), np.clip(255 * expected, 0, 255), atol=1.01)


def test_the_linear_guess_is_exact_where_the_truth_is_linear():
  rng = np.random.default_rng(0)
  train = rng.integers(0, 256, (500, 2, 2, 1)).astype(np.uint8)
  turned = lambda key, x: 0.5 * x[:, ::-1] + 0.1
  guess = restoration.linear(train, turned, ridge=1e-9)
  seen = turned(None, images.to_unit(jnp.asarray(train[:20])))
  assert np.abs(guess(seen).astype(int) - train[:20]).max() <= 1


def test_a_hole_is_filled_with_the_mean_and_nothing_else_is_touched():
  fill = restoration.mean_inside(DIGITS)
  x = np.asarray(images.to_unit(DIGITS))
  holed = np.asarray(corruptions.hole(3)(jax.random.key(0), x))
  filled, hole = np.asarray(fill(holed)), holed[..., 0] == 0.5
  np.testing.assert_array_equal(filled[~hole], DIGITS[~hole])
  mean = np.broadcast_to(DIGITS.mean(0)[None], DIGITS.shape)
  assert np.abs(filled[hole].astype(float) - mean[hole]).max() <= 1
