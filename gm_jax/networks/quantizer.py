"""Vector quantisation: each vector of a feature map becomes the nearest of K codes, and gradients pass as if it had not.

van den Oord et al. 2017 (https://arxiv.org/abs/1711.00937).  The codebook learns in one of two ways:

    ByGradient    codes descend |sg(z) - e|^2, sg the identity with no gradient (equation 3)
    ByAverages    codes follow the averages of the vectors that choose them (appendix A.1); codes that are hardly chosen are put
                  on vectors of the batch, since nothing else would ever move them (Dhariwal et al. 2020, section 3.1)

Both ask the encoder to commit itself to its codes: commitment * |z - sg(e)|^2.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax import rows


class Quantized(NamedTuple):
  """What became of z [B, h, w, D].

  Attributes:
    vectors: the chosen codes [B, h, w, D]; their gradient is handed on to z as it is.
    codes: which they are, int32 [B, h, w].
    penalty: what a step of learning adds to the loss, [B], summed over the vectors of an example.
    perplexity: exp(entropy) of the codes of the whole batch, []: how many are in use, K at most.
  """

  vectors: jax.Array
  codes: jax.Array
  penalty: jax.Array
  perplexity: jax.Array


class ByGradient(nn.Module):
  """z [B, h, w, D] -> Quantized, by codes that are parameters; they begin as vectors of the first batch."""

  num_codes: int
  commitment: float = 0.25

  @nn.compact
  def __call__(self, key, z, train: bool) -> Quantized:
    del key, train
    table = self.param("codes", _some_vectors, z, self.num_codes)
    codes = nearest(z, table)
    chosen = table[codes]
    to_codes = jnp.square(jax.lax.stop_gradient(z) - chosen).sum((1, 2, 3))
    return _quantized(z, chosen, codes, to_codes + _commitment(self.commitment, z, chosen), self.num_codes)

  def embed(self, codes):
    """int32 [B, h, w] -> vectors [B, h, w, D]."""
    return self.get_variable("params", "codes")[codes]


class ByAverages(nn.Module):
  """z [B, h, w, D] -> Quantized, by codes that are the collection "codebook"; they begin as vectors of the first batch.

  A code and its `usage`, the share of vectors that choose it, are moving averages; usage begins at 1 / K.  With n the share in
  this batch and m the mean over all its vectors of z - e where e is chosen, of 0 elsewhere,

      usage <- decay * usage + (1 - decay) * n
      e     <- e + (1 - decay) * m / usage

  which is the paper's ratio of averages, written so that a code that nobody chose stays where it is to the last bit.
  """

  num_codes: int
  commitment: float = 0.25
  decay: float = 0.99
  restart: float = 0.1  # a code whose usage falls below this part of 1 / K is put on a vector of the batch; 0: never

  @nn.compact
  def __call__(self, key, z, train: bool) -> Quantized:
    table = self.variable("codebook", "codes", lambda: _some_vectors(self.make_rng("params"), z, self.num_codes))
    usage = self.variable("codebook", "usage", jnp.full, self.num_codes, 1 / self.num_codes, jnp.float32)
    codes = nearest(z, table.value)
    chosen = jax.lax.stop_gradient(table.value)[codes]
    result = _quantized(z, chosen, codes, _commitment(self.commitment, z, chosen), self.num_codes)
    if train and not self.is_initializing():
      table.value, usage.value = self._follow(key, jax.lax.stop_gradient(z), codes, chosen, table.value, usage.value)
    return result

  def _follow(self, key, z, codes, chosen, table, usage):
    one_hot = jax.nn.one_hot(codes.reshape(-1), self.num_codes)  # [N, K]
    offsets = one_hot.T @ (z - chosen).reshape(-1, z.shape[-1]) / len(one_hot)
    share, offsets = rows.mean((one_hot.mean(0), offsets))
    usage = self.decay * usage + (1 - self.decay) * share
    table = table + (1 - self.decay) * offsets / jnp.maximum(usage, 1e-30)[:, None]
    dead = usage < self.restart / self.num_codes
    fresh = _some_vectors(key, z, self.num_codes)
    return jnp.where(dead[:, None], fresh, table), jnp.where(dead, 1 / self.num_codes, usage)

  def embed(self, codes):
    """int32 [B, h, w] -> vectors [B, h, w, D]."""
    return self.get_variable("codebook", "codes")[codes]


def nearest(z, table):
  """Which of the codes [K, D] is nearest to each vector of z [..., D], by squared distance; int32 [...]."""
  z, table = jax.lax.stop_gradient((z, table))
  products = jnp.matmul(z, table.T, precision=jax.lax.Precision.HIGHEST)
  squares = jnp.square(table).sum(1).reshape((1,) * (z.ndim - 1) + (-1,))
  return jnp.argmin(squares - 2 * products, axis=-1).astype(jnp.int32)  # |z|^2 is the same for all codes


def perplexity(codes, num_codes: int):
  """exp(entropy) of the codes int32 [B, ...] of the whole global batch, []."""
  share = rows.mean(jax.nn.one_hot(codes.reshape(-1), num_codes).mean(0))
  return jnp.exp(jax.scipy.special.entr(share).sum())


def _quantized(z, chosen, codes, penalty, num_codes):
  # The code plus nothing: its own bits, with the gradient of z.
  vectors = jax.lax.stop_gradient(chosen) + (z - jax.lax.stop_gradient(z))
  return Quantized(vectors, codes, penalty, perplexity(codes, num_codes))


def _commitment(weight: float, z, chosen):
  return weight * jnp.square(z - jax.lax.stop_gradient(chosen)).sum((1, 2, 3))


def _some_vectors(key, z, num: int):
  """`num` vectors of z [B, h, w, D] of the whole global batch, one from each of `num` equal stretches of it: [num, D]."""
  flat = z.reshape(-1, z.shape[-1])
  total = rows.total(len(flat))
  chosen = (jnp.arange(num) + jax.random.uniform(key, (num,))) * (total / num)
  # Where the batch is cut, each piece gives the vectors that lie in it.
  here = jnp.minimum(chosen.astype(jnp.int32), total - 1) - rows.indices(len(z))[0] * (len(flat) // len(z))
  mine = (here >= 0) & (here < len(flat))
  return rows.total(jnp.where(mine[:, None], flat[jnp.clip(here, 0, len(flat) - 1)], 0))
