"""PSNR and SSIM against their definitions."""

import numpy as np
import pytest

from gm_jax.metrics import quality

RNG = np.random.default_rng(0)


def pair(shape=(3, 20, 17, 2), noise=40):
  x = RNG.integers(0, 256, shape)
  smooth = (x + np.roll(x, 1, 1) + np.roll(x, 1, 2)) / 3
  return smooth.astype(np.uint8), np.clip(smooth + RNG.normal(0, noise, shape), 0, 255).astype(np.uint8)


def test_psnr_of_a_constant_difference():
  x = np.full((2, 4, 4, 1), 100, np.uint8)
  y = x + np.array([1, 10], np.uint8)[:, None, None, None]
  np.testing.assert_allclose(quality.psnr(x, y), 20 * np.log10([255, 25.5]), rtol=1e-6)
  assert np.isinf(quality.psnr(x, x)).all()


def test_ssim_is_its_definition_window_by_window():
  x, y = pair()
  offset = np.arange(11) - 5
  weights = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * 1.5**2))
  weights /= weights.sum()
  for image in range(3):
    values = []
    for channel in range(2):
      for top in range(10):
        for left in range(7):
          a, b = (array[image, top : top + 11, left : left + 11, channel].astype(float) for array in (x, y))
          mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
          var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
          covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
          c1, c2 = 2.55**2, 7.65**2
          values.append(
            (2 * mean_a * mean_b + c1) * (2 * covariance + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
          )
    assert float(quality.ssim(x, y)[image]) == pytest.approx(np.mean(values), abs=1e-5)


def test_ssim_is_one_for_the_same_image_and_negative_for_its_negative():
  x, _ = pair(noise=0)
  np.testing.assert_allclose(quality.ssim(x, x), 1, atol=1e-6)
  assert (np.asarray(quality.ssim(x, 255 - x)) < 0).all()
  np.testing.assert_allclose(quality.ssim(x, 255 - x), quality.ssim(255 - x, x), atol=1e-6)


def test_small_images_have_a_window_of_their_size():
  x, y = pair((2, 8, 8, 1))
  assert np.isfinite(quality.ssim(x, y)).all()
  np.testing.assert_allclose(quality.ssim(x, x), 1, atol=1e-6)


def test_small_variances_on_bright_ground_are_not_lost():
  x = np.full((1, 16, 16, 1), 250, np.uint8)
  x[:, ::2] = 251
  reference = np.full((1, 16, 16, 1), 250, np.uint8)
  # Variance 1/4 against none: the structure term is c2 / (c2 + 1/4) up to the window's ends.
  assert float(quality.ssim(x, reference)[0]) == pytest.approx(58.5225 / (58.5225 + 0.25), abs=2e-4)
