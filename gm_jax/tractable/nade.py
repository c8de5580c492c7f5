"""NADE: a hidden layer for every pixel, all of them made of the same weights.

    a_1 = c,     a_{d+1} = a_d + W_d x_d
    logit p(x_d = 1 | x_1, ..., x_{d-1}) = b_d + V_d . sigmoid(a_d)

The activations that pixel d sees are those of the pixel before it and one row of W more, so all D hidden layers together cost
what one costs: O(D H) (Larochelle & Murray 2011; Uria et al. 2016, https://arxiv.org/abs/1605.02226, section 2).  It was made
from one step of mean field in an RBM, whose weights it shares in the same way.

The likelihood is a walk over the pixels.  Its gradient needs every a_d again; they are kept at the beginning of each `chunk` of
pixels only and recomputed from there, so that a batch takes memory for D / chunk + chunk hidden layers and not for D.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gm_jax.core import GenerativeModel
from gm_jax.tractable.flat import Steps, complete, log_probs, raster_model

__all__ = ["NADE", "complete", "log_probs", "nade"]


class NADE(nn.Module):
  """x in {0, 1} [B, D] -> logits [B, D]."""

  num_pixels: int  # D
  num_hidden: int = 500  # H
  activation: Callable = nn.sigmoid
  chunk: int = 28  # pixels between two activations that are kept; the square root of D takes the least memory

  def setup(self):
    shape, init = (self.num_pixels, self.num_hidden), nn.initializers.normal(1 / math.sqrt(self.num_pixels))
    zeros = nn.initializers.zeros_init()
    self.weight_in, self.weight_out = self.param("weight_in", init, shape), self.param("weight_out", init, shape)  # W, V
    self.bias_hidden, self.bias_out = self.param("bias_hidden", zeros, shape[1:]), self.param("bias_out", zeros, shape[:1])

  def __call__(self, x, train: bool):
    del train

    def pixel(a, row):
      weight_in, weight_out, bias, x = row  # [H], [H], [], [B]
      return a + x[:, None] * weight_in[None], self.activation(a) @ weight_out + bias

    chunk = jax.checkpoint(lambda a, rows: jax.lax.scan(pixel, a, rows))
    rows = jax.tree.map(self._chunked, (self.weight_in, self.weight_out, self.bias_out, x.T))
    _, logits = jax.lax.scan(chunk, self._start(len(x)), rows)
    return logits.reshape(-1, len(x))[: self.num_pixels].T

  def steps(self, num: int) -> Steps:
    """Memory: the activations a_d [B, H]."""
    weight_in, weight_out, bias = self.weight_in, self.weight_out, self.bias_out
    logit = lambda a, pixel: (self.activation(a) * weight_out[pixel]).sum(1) + bias[pixel]
    return Steps(self._start(num), logit, lambda a, pixel, value: a + value[:, None] * weight_in[pixel])

  def _start(self, num):
    return jnp.broadcast_to(self.bias_hidden[None], (num, self.num_hidden))

  def _chunked(self, rows):
    """[D, ...] -> [chunks, chunk, ...], with zeros behind the last pixel."""
    rows = jnp.pad(rows, ((0, -len(rows) % self.chunk), *[(0, 0)] * (rows.ndim - 1)))
    return rows.reshape(-1, self.chunk, *rows.shape[1:])


def nade(
  network: NADE, optimizer: optax.GradientTransformation, image_shape: tuple, *, decay: float = 0.999
) -> GenerativeModel:
  """NADE of black and white images of `image_shape` (H, W, C); `decay` is that of the average `sample` and `evaluate` read."""
  return raster_model(network, optimizer, image_shape, decay=decay)
