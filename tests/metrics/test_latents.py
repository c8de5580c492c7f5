"""Active units of a linear model, where it is known which latents say something."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.approximate import vae
from gm_jax.metrics import latents
from tests.approximate.test_vae import VariablesOnly, linear_vae, ppca_variables


def test_the_spread_of_exact_posteriors_is_known_and_dead_latents_are_not_active():
  """Of x = W z + noise, Var E[z_j | x] = w_j^2 / (w_j^2 + noise), for columns of W at right angles."""
  sizes, noise = np.array([2.0, 0.5, 0.0, 0.04]), 0.25
  loadings = np.eye(6)[:, :4] * sizes[None]
  variables, module = ppca_variables(loadings, noise, np.zeros(6)), linear_vae(size=6, num_latents=4)
  rng = np.random.default_rng(0)
  x = rng.normal(size=(50_000, 4)) @ loadings.T + np.sqrt(noise) * rng.normal(size=(50_000, 6))
  state, points = VariablesOnly(variables), jnp.asarray(x[:, None, None], jnp.float32)
  means, _ = vae.encode(module, jax.random.key(0), state, points)
  np.testing.assert_allclose(latents.spread(means), sizes**2 / (sizes**2 + noise), rtol=0.03, atol=1e-9)
  assert latents.active_units(means) == 2
  assert latents.active_units(means, threshold=0.005) == 3


def test_what_is_constant_is_not_active_however_large():
  means = np.stack([np.full(100, 1e4), np.linspace(-1, 1, 100)], 1).astype(np.float32)
  assert latents.active_units(means) == 1
