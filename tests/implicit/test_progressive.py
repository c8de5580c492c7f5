"""The turns of growing, and that both players and the data are told."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax.implicit import games, progressive
from gm_jax.networks.progressive import seen_at
from tests.implicit import players


def test_levels_come_in_and_stay():
  turns = jnp.arange(16)
  level, alpha = jax.jit(jax.vmap(lambda turn: progressive.level_at(turn, last=2, fade=4, stay=2)))(turns)
  np.testing.assert_array_equal(level, [0] * 2 + [1] * 6 + [2] * 8)
  np.testing.assert_allclose(alpha, [1, 1, 0, 0.25, 0.5, 0.75, 1, 1, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1])


class Tone(nn.Module):
  """An image of 4 x 4 that is level + alpha everywhere."""

  @nn.compact
  def __call__(self, z, train, *, level, alpha):
    theta = self.param("theta", nn.initializers.zeros, (1, 1, 1, 1))
    return jnp.broadcast_to(theta + level + alpha, (len(z), 4, 4, 1))


class Corner(nn.Module):
  """D(x) = the first pixel, and 100 (level + alpha)."""

  @nn.compact
  def __call__(self, x, train, *, level, alpha):
    return x[:, 0, 0, 0] + self.param("psi", nn.initializers.zeros, (1,)) + 100 * (level + alpha)


def test_data_and_both_players_are_told():
  image = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
  growing = progressive.growing(last=2, fade=2, stay=1)
  model = players.duel(games.wgan(np.inf), optax.sgd(0.0), growing, generator=Tone(), critic=Corner())
  _, metrics = players.walk(model, {"image": image}, 7)
  for turn, (level, alpha) in enumerate([(0, 1), (1, 0), (1, 0.5), (1, 1), (2, 0), (2, 0.5), (2, 1)]):
    # At last=2 and 4 x 4 pixels level 0 is one pixel, whose square is the whole image.
    small = np.asarray(seen_at(image, level, alpha, 2))[:, 0, 0, 0]
    np.testing.assert_allclose(metrics["real"][turn], small.mean() + 100 * (level + alpha), rtol=1e-5)
    np.testing.assert_allclose(metrics["fake"][turn], 101 * (level + alpha), rtol=1e-5)
