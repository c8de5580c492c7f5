"""Dropout whose mask belongs to the example."""

import flax.linen as nn
import jax.numpy as jnp

from gm_jax import random


class Dropout(nn.Module):
  """Sets entries of x [B, ...] to zero with probability `rate` and scales the others up, so that the mean stays (Srivastava et
  al. 2014).  Example i loses the same entries however the batch is cut (`gm_jax.random`); the key is the stream "dropout"."""

  rate: float

  @nn.compact
  def __call__(self, x, train: bool):
    if not train or self.rate == 0:
      return x
    keep = random.bernoulli(self.make_rng("dropout"), jnp.full(x.shape, 1 - self.rate))
    return jnp.where(keep, x / (1 - self.rate), 0)
