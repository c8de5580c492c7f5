"""How close an image is to the one it should be: PSNR and SSIM, one number for each image.

Both take images uint8 [B, H, W, C].
"""

import jax
import jax.numpy as jnp
import numpy as np


def psnr(images, references):
  """Peak signal-to-noise ratio in dB, [B]: 10 log10(255^2 / mean squared difference); infinite where nothing differs."""
  difference = jnp.asarray(images, jnp.float32) - jnp.asarray(references, jnp.float32)
  return 20 * jnp.log10(255.0) - 10 * jnp.log10(jnp.square(difference).mean((1, 2, 3)))


def ssim(images, references, *, window: int = 11, deviation: float = 1.5):
  """Structural similarity, [B], 1 where nothing differs (Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861).

  Means, variances and covariance under a Gaussian window wherever it fits inside the image; the mean over places and channels
  of  (2 m m' + c1) (2 cov + c2) / ((m^2 + m'^2 + c1) (var + var' + c2)),  c1 = (0.01 * 255)^2, c2 = (0.03 * 255)^2.

  Args:
    images, references: uint8 [B, H, W, C].
    window: its side, an odd number; cut to the image where that is smaller.
    deviation: of the Gaussian, in pixels.
  """
  x, y = (jnp.asarray(array, jnp.float32) for array in (images, references))
  sides = [min(window, side - 1 + side % 2) for side in x.shape[1:3]]
  local = lambda a: _windowed(a, [_gaussian(side, deviation) for side in sides])
  mean_x, mean_y = local(x), local(y)
  # About the images' own means, so that float32 does not lose small variances to large squares.
  centre = (x.mean((1, 2), keepdims=True) + y.mean((1, 2), keepdims=True)) / 2
  u, v, mean_u, mean_v = x - centre, y - centre, mean_x - centre, mean_y - centre
  var_x, var_y = local(u * u) - mean_u**2, local(v * v) - mean_v**2
  covariance = local(u * v) - mean_u * mean_v
  c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
  luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
  structure = (2 * covariance + c2) / (var_x + var_y + c2)
  return (luminance * structure).mean((1, 2, 3))


def _gaussian(size: int, deviation: float) -> np.ndarray:
  weights = np.exp(-0.5 * ((np.arange(size) - size // 2) / deviation) ** 2)
  return (weights / weights.sum()).astype(np.float32)


def _windowed(a, kernels):
  """Weighted means [B, H', W', C] where the window fits, an axis at a time."""
  for axis, kernel in zip((1, 2), kernels):
    places = a.shape[axis] - len(kernel) + 1
    a = sum(weight * jax.lax.slice_in_dim(a, start, start + places, axis=axis) for start, weight in enumerate(kernel))
  return a
