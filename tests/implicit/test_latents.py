"""Laws of latents, by their moments."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.implicit import games, latents, remedies
from tests.implicit import players


def test_latents_of_another_law():
  class Through(nn.Module):
    @nn.compact
    def __call__(self, z, train):
      return z[:, None, None] + 0 * self.param("theta", nn.initializers.ones, (1, 1, 1, 1))

  model = players.duel(games.hinge(), optax.sgd(0.1), remedies.latents(latents.categorical(3)), generator=Through())
  state = jax.jit(model.init)(jax.random.key(0), {"image": jnp.zeros((4, 1, 1, 3))})
  drawn = np.asarray(jax.jit(model.sample, static_argnums=2)(jax.random.key(1), state, 600))[:, 0, 0]
  np.testing.assert_array_equal(np.sort(drawn, 1), np.tile([0, 0, 1], (600, 1)))
  np.testing.assert_allclose(drawn.mean(0), np.full(3, 1 / 3), atol=0.06)


@pytest.mark.parametrize(
  ("law", "variance"), [(latents.normal, 1), (latents.uniform, 1 / 3), (latents.sphere, 1), (latents.bernoulli, 1)]
)
def test_laws_of_latents(law, variance):
  z = np.asarray(jax.jit(lambda: latents.draw(latents.beside(law(4), latents.normal(2)), jax.random.key(0), 4000))())
  np.testing.assert_allclose(z.mean(0), np.zeros(6), atol=0.08)
  np.testing.assert_allclose(np.cov(z.T), np.diag([variance] * 4 + [1, 1]), atol=0.1)  # parts independent of each other
  if law is latents.sphere:
    np.testing.assert_allclose((z[:, :4] ** 2).sum(1), np.full(4000, 4), rtol=1e-5)
  elif law is not latents.normal:
    assert np.abs(z[:, :4]).max() <= 1
