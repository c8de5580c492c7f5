"""Images to the side that Inception reads: 299 pixels, bilinear.  Numbers made with different resizings cannot be compared.

The graph of 2015, in which FID was defined, interpolates from the upper left corners of pixels, without rounding and, where it
makes images smaller, without a low-pass filter.  Images of more than 299 pixels are aliased by it: `antialiased` is right for
them, and not what older papers did (Parmar et al. 2022, https://arxiv.org/abs/2104.11222).
"""

import jax
import jax.numpy as jnp
import numpy as np

SIZE = 299


def as_in_2015(pictures, size: int = SIZE):
  """[B, H, W, C] -> float32 [B, size, size, C], the resizing inside the graph of 2015.

  Pixel i is read at i H / size, between the two pixels there: grids meet at the upper left corner and not at the centres.
  """
  for axis in (1, 2):
    place = np.arange(size) * (pictures.shape[axis] / size)
    low = place.astype(int)
    high = np.minimum(low + 1, pictures.shape[axis] - 1)
    share = np.expand_dims(place - low, [other for other in range(4) if other != axis]).astype(np.float32)
    lower, upper = (jnp.take(pictures, index, axis=axis).astype(jnp.float32) for index in (low, high))
    pictures = lower + (upper - lower) * share
  return pictures


def antialiased(pictures, size: int = SIZE):
  """[B, H, W, C] -> float32 [B, size, size, C]: bilinear about the centres of pixels.

  Where the result is smaller, the filter is as wide as its pixels.  Rounded to whole levels and clipped to 0 to 255, as if the
  resized images had been saved.
  """
  shape = (len(pictures), size, size, pictures.shape[-1])
  resized = jax.image.resize(jnp.asarray(pictures, jnp.float32), shape, "linear", antialias=True)
  return jnp.clip(jnp.round(resized), 0, 255)
