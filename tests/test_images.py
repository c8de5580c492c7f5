"""Every grey level survives every conversion, and the uniform cube costs 8 bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import images

LEVELS = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)


@pytest.mark.parametrize(
  ("there", "back"), [(images.to_unit, images.from_unit), (images.to_symmetric, images.from_symmetric)]
)
@pytest.mark.parametrize("run", [jax.jit, lambda function: function])
def test_every_level_comes_back(there, back, run):
  np.testing.assert_array_equal(run(lambda x: back(there(x)))(LEVELS), LEVELS)


def test_the_ranges_are_what_they_say():
  np.testing.assert_allclose(images.to_unit(LEVELS).ravel(), np.arange(256) / 255, atol=1e-7)
  np.testing.assert_allclose(images.to_symmetric(LEVELS).ravel(), np.linspace(-1, 1, 256), atol=1e-6)
  points = np.array([[-3.5, 7.25]], np.float32).reshape(1, 1, 1, 2)
  for convert in (images.to_unit, images.to_symmetric):
    np.testing.assert_array_equal(convert(points), points)


def test_values_outside_are_clipped_and_halves_rounded_to_the_nearest_level():
  np.testing.assert_array_equal(images.from_unit(jnp.array([-9.0, 1.2, 100.4 / 255, 100.6 / 255])), [0, 255, 100, 101])
  np.testing.assert_array_equal(images.from_symmetric(jnp.array([-1.5, 7.0, 0.0])), [0, 255, 128])


def test_binary_cuts_at_one_half_and_keeps_black_and_white():
  np.testing.assert_array_equal(images.to_binary(LEVELS).ravel(), np.arange(256) >= 128)
  np.testing.assert_array_equal(images.from_unit(images.to_binary(np.array([0, 255], np.uint8))), [0, 255])
  np.testing.assert_array_equal(images.to_binary(np.array([0, 1], np.float32)), [0, 1])


def test_a_dequantized_pixel_stays_in_its_bin():
  """All levels, ten million draws: float32 has so few digits at 255 that a careless uniform leaves its bin now and then."""
  x = jnp.broadcast_to(LEVELS.reshape(1, 256), (40_000, 256))
  there_and_back = jax.jit(lambda key: (images.quantize(images.dequantize(key, x)) != x).sum())
  assert int(there_and_back(jax.random.key(0))) == 0
  u = np.asarray(images.dequantize(jax.random.key(1), x), np.float64) * 256 - np.asarray(x)
  assert u.min() > 0
  assert u.max() < 1
  np.testing.assert_allclose([u.mean(), u.var()], [1 / 2, 1 / 12], atol=4 * 0.3 / np.sqrt(u.size))


def test_the_uniform_cube_is_eight_bits():
  """Its density on [0, 1]^D is 1, so its nll is 0 nats before the levels are counted."""
  assert images.bits_per_dim(0.0, 784, bin_width=1 / 256) == pytest.approx(8, abs=1e-12)
  nll = 784 * images.DEQUANTIZED.log_levels - 0.0
  assert images.bits_per_dim(nll, 784) == pytest.approx(8, abs=1e-12)
  # A mass of one half per pixel is one bit; the uniform density on [-1, 1]^D, 2^-D, is log2(2 * 127.5) bits.
  assert images.bits_per_dim(784 * np.log(2), 784) == pytest.approx(1)
  assert images.bits_per_dim(784 * np.log(2), 784, bin_width=1 / 127.5) == pytest.approx(np.log2(255))


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_levels_are_the_nearest_and_spread_evenly(levels):
  x = np.arange(levels)
  spread = np.round(np.linspace(0, 255, levels))
  np.testing.assert_array_equal(images.from_levels(x, levels), spread)
  np.testing.assert_array_equal(images.to_levels(images.from_levels(x, levels), levels), x)
  nearest = np.abs(LEVELS.reshape(-1, 1) - np.linspace(0, 255, levels)).argmin(1)
  np.testing.assert_array_equal(images.to_levels(LEVELS, levels).ravel(), nearest)
  if levels == 2:
    np.testing.assert_array_equal(images.to_levels(LEVELS, 2), images.to_binary(LEVELS))


@pytest.mark.parametrize("pixels", [images.POINTS, images.BINARY, images.DEQUANTIZED])
def test_pixels_written_are_the_pixels_read(pixels):
  black_and_white = np.where(LEVELS > 99, 255, 0).astype(np.uint8)
  x = {images.POINTS: LEVELS.astype(np.float32), images.BINARY: black_and_white}.get(pixels, LEVELS)
  back = pixels.write(pixels.read(jax.random.key(0), x))
  np.testing.assert_array_equal(back, x)
  assert back.dtype == x.dtype


@pytest.mark.parametrize(("num", "columns", "lines"), [(7, 3, 3), (6, 3, 2), (1, None, 1), (10, None, 3), (4, 9, 1)])
def test_a_grid_puts_each_image_in_its_place(num, columns, lines):
  pictures = np.random.default_rng(0).integers(0, 100, (num, 4, 5, 3)).astype(np.uint8)
  canvas = images.grid(pictures, columns, padding=2)
  across = columns or int(np.ceil(np.sqrt(num)))
  assert canvas.shape == (lines * 6 + 2, across * 7 + 2, 3)
  assert canvas.dtype == np.uint8
  left_over = canvas.copy()
  for index in range(num):
    row, column = divmod(index, across)
    place = slice(2 + 6 * row, 6 + 6 * row), slice(2 + 7 * column, 7 + 7 * column)
    np.testing.assert_array_equal(canvas[place], pictures[index])
    left_over[place] = 128
  assert np.all(left_over == 128)
