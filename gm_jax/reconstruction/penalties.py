"""What codes are asked to be besides useful: `(autoencoder, key, x, z) -> [B]`, added to the error of reconstruction."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax import random
from gm_jax.core import global_mean


def l1(weight: float) -> Callable:
  """Few units active: weight * sum_j |z_j|."""
  return lambda autoencoder, key, x, z: weight * jnp.abs(z).sum(1)


def kl_to_rate(rate: float, weight: float) -> Callable:
  """Each unit active for a share `rate` of the images: weight * sum_j KL(rate || mean of z_j over the batch), codes in (0, 1).

  Ng 2011, "Sparse autoencoder" (CS294A lecture notes).  All images of a batch pay the same.
  """

  def penalty(autoencoder, key, x, z):
    active = jnp.clip(global_mean(z.mean(0)), 1e-6, 1 - 1e-6)
    kl = rate * jnp.log(rate / active) + (1 - rate) * jnp.log((1 - rate) / (1 - active))
    return jnp.broadcast_to(weight * kl.sum(), len(z))

  return penalty


def contractive(weight: float) -> Callable:
  """Codes that small changes of the image leave alone: weight * |dz/dx|^2, the squared Frobenius norm of the Jacobian.

  Rifai et al. 2011 (https://icml.cc/2011/papers/455_icmlpaper.pdf); exact, at the cost of one backward pass per unit.
  """

  def penalty(autoencoder, key, x, z):
    pull = _pull_back(autoencoder, x)
    units = jnp.eye(z.shape[1])
    squares = jax.lax.map(lambda unit: jnp.square(pull(jnp.broadcast_to(unit[None], z.shape))).sum((1, 2, 3)), units)  # [Z, B]
    return weight * squares.sum(0)

  return penalty


def contractive_by_noise(weight: float, num: int = 1) -> Callable:
  """The same in expectation at the cost of `num` backward passes: E |v^T dz/dx|^2 over v ~ N(0, I) (Hutchinson 1990)."""

  def penalty(autoencoder, key, x, z):
    pull = _pull_back(autoencoder, x)
    noise = random.normal(key, len(z), (num, z.shape[1])).swapaxes(0, 1)  # [num, B, Z]
    squares = jax.lax.map(lambda v: jnp.square(pull(v)).sum((1, 2, 3)), noise)
    return weight * squares.mean(0)

  return penalty


def _pull_back(autoencoder, x) -> Callable:
  """v [B, Z] -> v^T dz/dx [B, H, W, C]; no image's code depends on another image, so one pass serves all of them."""
  module, variables = autoencoder.unbind()
  _, pull = jax.vjp(lambda x: module.apply(variables, x, False, method="encode"), x)
  return lambda v: pull(v)[0]
