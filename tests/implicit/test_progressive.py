"""The turns of growing, and that both players and the data are told."""

import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import checkpoint
from gm_jax.implicit import games, gan, many, progressive
from gm_jax.networks.progressive import Discriminator, Generator, seen_at
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


# The players of networks.progressive in training steps: a level, its fade-in, and the next.

LAST, FADE, STAY = 1, 4, 2


def growing_gan():
  generator, critic = Generator((4, 4, 1), (3, 2)), Discriminator((3, 2))
  optimizer = optax.adam(1e-2, b1=0.0, eps=1e-5)
  options = dict(num_latents=3, decay=0.9, remedies=(progressive.growing(LAST, FADE, STAY),))
  return gan.gan(generator, critic, games.wgan_gp(), optimizer, optimizer, **options)


def batch_of(step):
  return {"image": np.random.default_rng(step).integers(0, 256, (8, 4, 4, 1), dtype=np.uint8)}


@pytest.fixture(scope="module")
def grown():
  """The model's compiled step, and its state after as many as take it into the fade of level 1."""
  model = growing_gan()
  step = jax.jit(model.step)
  state = jax.jit(model.init)(jax.random.key(0), batch_of(0))
  for index in range(STAY + 1):
    state, _ = step(jax.random.key(index), state, batch_of(index))
  return step, state


def test_a_level_begins_as_the_last_one_ends(grown):
  """At alpha = 0 a step is one of the level before: losses, slopes of the critic, and where both players go."""
  step, state = grown
  at = lambda turn: step(jax.random.key(7), state._replace(turn=jnp.int32(turn)), batch_of(7))
  (before, old), (after, new), (_, later) = at(STAY - 1), at(STAY), at(STAY + 1)
  assert old.keys() >= {"loss", "generator_loss", "slope"}
  for name in old:
    np.testing.assert_allclose(new[name], old[name], rtol=1e-4, atol=1e-5, err_msg=name)
    assert abs(later[name] - old[name]) > 1e-4, name
  chex.assert_trees_all_close(after._replace(turn=before.turn), before, rtol=1e-3, atol=1e-5)


def test_a_run_stopped_while_a_level_comes_in_ends_in_the_same_bits(grown, tmp_path):
  step, middle = grown
  assert 0 < progressive.level_at(middle.turn, LAST, FADE, STAY)[1] < 1

  def advance(state):
    for index in range(STAY + 1, STAY + FADE + 2):  # past the end of the fade
      state, _ = step(jax.random.key(index), state, batch_of(index))
    return state

  checkpoint.save(tmp_path, int(middle.turn), middle)
  _, restored = checkpoint.restore(tmp_path, jax.tree.map(jnp.zeros_like, middle))
  chex.assert_trees_all_equal(advance(middle), advance(restored))


def test_many_seeds_compute_their_level_alone():
  """A step is one program in which levels are branches, for many seeds too: a lower one costs less."""
  model = growing_gan()

  def branches(model):
    state = jax.eval_shape(model.init, jax.random.key(0), batch_of(0))
    program = str(jax.make_jaxpr(model.step)(jax.random.key(0), state, batch_of(0)))
    return len(re.findall(r"\bcond\[", program))

  assert branches(many.many(model, 2)) == branches(model) > 0
