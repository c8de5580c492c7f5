"""Fully visible sigmoid belief network: every pixel is a logistic regression on the pixels before it.

    logit p(x_d = 1 | x_1, ..., x_{d-1}) = b_d + sum_{j < d} W_jd x_j

Nothing is hidden, so the likelihood is exact and concave in W and b: there is one best network, and gradient ascent finds it
(Neal 1992, Connectionist learning of belief networks; Frey 1998, Graphical models for machine learning and digital
communication).  All logits are one product with a triangular matrix.  Drawing adds a row of W to the running logits for each
pixel that turns out to be on.
"""

import flax.linen as nn
import jax.numpy as jnp
import optax

from gm_jax.core import GenerativeModel
from gm_jax.tractable.flat import Steps, complete, log_probs, raster_model

__all__ = ["FVSBN", "complete", "fvsbn", "log_probs"]


class FVSBN(nn.Module):
  """x in {0, 1} [B, D] -> logits [B, D]."""

  num_pixels: int

  def setup(self):
    zeros = nn.initializers.zeros_init()  # the objective is concave, and a start at random is a start elsewhere
    self.weight = self.param("weight", zeros, (self.num_pixels, self.num_pixels))
    self.bias = self.param("bias", zeros, (self.num_pixels,))

  def __call__(self, x, train: bool):
    del train
    return x @ jnp.triu(self.weight, 1) + self.bias[None]

  def steps(self, num: int) -> Steps:
    """Memory: the logits [B, D] as far as the pixels seen decide them."""
    weight, start = self.weight, jnp.broadcast_to(self.bias[None], (num, self.num_pixels))
    # What a pixel adds to those before it is never looked at, so no triangle is cut out here.
    see = lambda logits, pixel, value: logits + value[:, None] * weight[pixel]
    return Steps(start, lambda logits, pixel: logits[jnp.arange(num), pixel], see)


def fvsbn(optimizer: optax.GradientTransformation, image_shape: tuple, *, decay: float = 0.999) -> GenerativeModel:
  """FVSBN of black and white images of `image_shape` (H, W, C); `decay` is that of the average `sample` and `evaluate` read."""
  height, width, channels = image_shape
  return raster_model(FVSBN(height * width * channels), optimizer, image_shape, decay=decay)
