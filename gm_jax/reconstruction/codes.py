"""Where codes lie: their mean and covariance, followed while training, so that an autoencoder can be sampled from.

An autoencoder has no prior.  A Gaussian fitted to the codes of the training data afterwards is the simplest one (Ghosh et al.
2020, https://arxiv.org/abs/1903.12436, "ex-post density estimation"); here it is fitted on the way.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax import random
from gm_jax.core import global_mean


class Moments(NamedTuple):
  """Moving averages over batches of codes [B, Z]."""

  mean: jax.Array  # [Z]
  second: jax.Array  # [Z, Z], of z z^T
  updates: jax.Array  # int32 []


def nothing(num_codes: int) -> Moments:
  """Before any code was seen."""
  return Moments(jnp.zeros(num_codes), jnp.eye(num_codes), jnp.zeros((), jnp.int32))


def follow(moments: Moments, z, decay: float = 0.99) -> Moments:
  """After a batch of codes; the first ones count alike, later ones as in an average that forgets."""
  z = jax.lax.stop_gradient(z)
  step_size = jnp.maximum(1 - decay, 1 / (1.0 + moments.updates))
  mean, second = global_mean((z.mean(0), z.T @ z / len(z)))
  blend = lambda old, new: (1 - step_size) * old + step_size * new
  return Moments(blend(moments.mean, mean), blend(moments.second, second), moments.updates + 1)


def draw(key, moments: Moments, num: int):
  """Codes from the Gaussian with these moments, [num, Z]."""
  size = len(moments.mean)
  covariance = moments.second - moments.mean[:, None] * moments.mean[None]
  # What never varies is left with a little noise, so that the factor exists in float32.
  covariance += (1e-5 * jnp.trace(covariance) / size + 1e-12) * jnp.eye(size)
  factor = jnp.linalg.cholesky(covariance)
  return moments.mean[None] + random.normal(key, num, (size,)) @ factor.T
