"""A VAE whose every quantity is known: linear Gaussian, with the exact posterior as its encoder or one that is off."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from tests.approximate.test_vae import linear_vae, ppca_variables

LOADINGS = np.diag([1.5, 0.8, 0.0])[:, :2]  # orthogonal columns: the posterior of z is diagonal
NOISE = 0.5
MEAN = np.array([0.3, -0.2, 0.1])
MODULE = linear_vae(size=3, num_latents=2)


def exact():
  """Variables of p(x | z) = N(W z + mean, noise), q(z | x) = p(z | x)."""
  return ppca_variables(LOADINGS, NOISE, MEAN)


def off():
  """The same decoder; an encoder that has gone astray."""
  variables = exact()
  rng = np.random.default_rng(5)
  astray = lambda leaf: leaf + jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32)
  posterior = jax.tree.map(astray, variables["params"]["posterior"])
  return {"params": {**variables["params"], "posterior": posterior}}


def batch(num: int):
  x = np.random.default_rng(6).normal(size=(num, 3)) @ np.diag([1.6, 1.0, 0.7]) + MEAN[None]
  return {"image": jnp.asarray(x[:, None, None], jnp.float32)}


def log_prob(batch):
  """log p(x), nats [B]."""
  x = np.asarray(batch["image"], np.float64).reshape(-1, 3)
  return stats.multivariate_normal(MEAN, LOADINGS @ LOADINGS.T + NOISE * np.eye(3)).logpdf(x)
