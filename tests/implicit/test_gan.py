"""The GAN's two players, one by one, against closed forms."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import images
from gm_jax.implicit import gan
from gm_jax.networks import dcgan
from tests import models


class Linear(nn.Module):
  """D(x) = <w, x>: its slope is |w| everywhere."""

  @nn.compact
  def __call__(self, x, train):
    return nn.Dense(1, use_bias=False, kernel_init=nn.initializers.normal(0.3))(x.reshape(len(x), -1))[:, 0]


def objective_at(game, critic, real, fake, params=None):
  """Losses and reports of a critic's objective."""
  bound = lambda critic, *args: game.critic(critic, jax.random.key(1), *args, train=True)
  variables = nn.init(bound, critic)(jax.random.key(0), real, fake) if params is None else {"params": params}
  return nn.apply(bound, critic)(variables, real, fake), variables


@pytest.mark.parametrize("shape", [(2,), (8, 8, 1), (5, 4, 3)])
def test_gradient_penalty_of_a_linear_critic(shape):
  real, fake = jax.random.normal(jax.random.key(2), (2, 6, *shape))
  (losses, reports), variables = objective_at(gan.wgan_gp(weight=7.0), Linear(), real, fake)
  norm = jnp.linalg.norm(variables["params"]["Dense_0"]["kernel"])
  np.testing.assert_allclose(reports["slope"], jnp.full(6, norm), rtol=1e-5)
  np.testing.assert_allclose(losses, reports["fake"] - reports["real"] + 7.0 * (norm - 1) ** 2, rtol=1e-4, atol=1e-5)


def test_gradient_penalty_is_taken_between_real_and_fake_and_differentiates_twice():
  class Cubic(nn.Module):
    @nn.compact
    def __call__(self, x, train):
      a = self.param("a", nn.initializers.ones, (1,))
      return a[0] * x[:, 0] ** 3

  real, fake = jnp.full((2000, 1), 1.0), jnp.full((2000, 1), 2.0)
  (_, reports), variables = objective_at(gan.wgan_gp(), Cubic(), real, fake)
  slope = np.asarray(reports["slope"])  # 3 x^2 with x uniform on [1, 2]
  assert slope.min() >= 3
  assert slope.max() <= 12
  np.testing.assert_allclose(slope.mean(), 7.0, atol=0.3)
  # d/da of the mean of (3 a x^2 - 1)^2 at a = 1 is the mean of 2 (s - 1) s.
  penalty = lambda params: ((objective_at(gan.wgan_gp(), Cubic(), real, fake, params)[0][1]["slope"] - 1) ** 2).mean()
  gradient = jax.grad(penalty)(variables["params"])["a"][0]
  np.testing.assert_allclose(gradient, (2 * (slope - 1) * slope).mean(), rtol=1e-4)


class Table(nn.Module):
  """A logit for each of three symbols: every critic there is, on a discrete space."""

  @nn.compact
  def __call__(self, x, train):
    return self.param("logits", nn.initializers.zeros, (3,))[x]


def test_the_best_non_saturating_critic_is_the_log_ratio():
  p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
  real, fake = (jnp.asarray(np.repeat(np.arange(3), (100 * weights).astype(int))) for weights in (p, q))
  loss = lambda logits: objective_at(gan.non_saturating(), Table(), real, fake, {"logits": logits})[0][0].mean()
  at_optimum = jax.grad(loss)(jnp.log(jnp.asarray(p / q)))
  np.testing.assert_allclose(at_optimum, 0, atol=1e-6)
  assert float(jnp.abs(jax.grad(loss)(jnp.zeros(3))).max()) > 0.05
  # There the loss is 2 log 2 - 2 JS(p, q) (Goodfellow et al. 2014, theorem 1).
  middle = (p + q) / 2
  js = (p * np.log(p / middle) + q * np.log(q / middle)).sum() / 2
  np.testing.assert_allclose(loss(jnp.log(jnp.asarray(p / q))), 2 * np.log(2) - 2 * js, rtol=1e-5)


def test_non_saturating_losses_at_extreme_logits():
  logits = jnp.array([-50.0, -1.0, 0.0, 1.0, 50.0])
  generator = gan.non_saturating().generator
  exact = np.log1p(np.exp(-np.asarray(logits, np.float64)))
  np.testing.assert_allclose(generator(logits), exact, rtol=1e-6)
  gradient = jax.vmap(jax.grad(lambda logit: generator(logit[None])[0]))(logits)
  # -1 where the critic is sure that the sample is false: it does not saturate.
  np.testing.assert_allclose(gradient, -1 / (1 + np.exp(np.asarray(logits, np.float64))), rtol=1e-5, atol=1e-20)


def test_wgan_generator_follows_the_critic():
  np.testing.assert_array_equal(gan.wgan_gp().generator(jnp.array([2.0, -3.0])), [-2.0, 3.0])


def changed(before, after):
  return any(bool((a != b).any()) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after)))


def play(model, steps, state=None):
  step = jax.jit(model.step)
  state = jax.jit(model.init)(jax.random.key(0), models.grey(0)) if state is None else state
  states = [state]
  for index in range(steps):
    states.append(step(jax.random.key(index), states[-1], models.grey(index))[0])
  return states


def test_each_player_moves_in_its_turn_and_leaves_the_other_bit_identical():
  states = play(models.make_gan(gan.wgan_gp(), None, n_critic=3), 6)
  for turn, (before, after) in enumerate(zip(states, states[1:]), start=1):
    assert changed(before.critic.params, after.critic.params)
    plays = turn % 3 == 0
    for part in ("generator", "average"):
      assert changed(getattr(before, part), getattr(after, part)) == plays, f"{part} at turn {turn}"
    assert int(after.turn) == turn


def test_the_critic_does_not_see_the_generator_move():
  # The same first step, with and without the generator's move, leaves the same critic.
  alone, together = (play(models.make_gan(gan.wgan_gp(), None, n_critic=n), 1)[-1] for n in (2, 1))
  assert changed(alone.generator, together.generator)
  for ours, theirs in zip(jax.tree.leaves(alone.critic), jax.tree.leaves(together.critic)):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_critic_with_batchnorm_is_refused_under_a_gradient_penalty():
  model = models.make_gan(gan.wgan_gp(), dcgan.batch_norm, n_critic=1)
  with pytest.raises(ValueError, match="BatchNorm makes D"):
    jax.eval_shape(model.init, jax.random.key(0), models.grey(0))


def test_samples_come_from_the_average():
  model = models.make_gan(gan.non_saturating(), dcgan.batch_norm, n_critic=1)
  state = play(model, 2)[-1]
  other = state._replace(generator=jax.tree.map(jnp.zeros_like, state.generator))
  np.testing.assert_array_equal(model.sample(jax.random.key(1), state, 4), model.sample(jax.random.key(1), other, 4))


def test_wgan_gp_finds_a_shifted_gaussian():
  """On points, a generator z -> z + b learns the data's mean: the game has the right sign and converges."""

  class Shift(nn.Module):
    @nn.compact
    def __call__(self, z, train):
      return (z + self.param("shift", nn.initializers.zeros, (1, 2)))[:, None, None, :]

  class Critic(nn.Module):
    @nn.compact
    def __call__(self, x, train):
      hidden = nn.tanh(nn.Dense(32)(x.reshape(len(x), -1)))
      return nn.Dense(1)(nn.tanh(nn.Dense(32)(hidden)))[:, 0]

  optimizer = optax.adam(5e-3, b1=0.5)
  options = {"num_latents": 2, "n_critic": 2, "decay": 0.99, "pixels": images.POINTS}
  model = gan.gan(Shift(), Critic(), gan.wgan_gp(1.0), optimizer, optimizer, **options)
  center = np.array([1.5, -0.5], np.float32)
  draw = lambda key: {"image": (jax.random.normal(key, (128, 2)) + center[None])[:, None, None, :]}
  advance = lambda state, key: (model.step(key, state, draw(jax.random.fold_in(key, 1)))[0], None)
  state = model.init(jax.random.key(0), draw(jax.random.key(9)))
  state, _ = jax.jit(lambda state: jax.lax.scan(advance, state, jax.random.split(jax.random.key(1), 2400)))(state)
  np.testing.assert_allclose(state.average.variables["params"]["shift"][0], center, atol=0.2)


class Named(nn.Module):
  """A generator whose image of a label is the label."""

  @nn.compact
  def __call__(self, z, train, label):
    return label[:, None, None, None] + 0 * self.param("nothing", nn.initializers.ones, (1, 1, 1, 1))


class Knowing(nn.Module):
  """D(x | y) = -(x - y)^2: zero only for what the label says."""

  @nn.compact
  def __call__(self, x, train, label):
    return -((x[:, 0, 0, 0] - label) ** 2) + 0 * self.param("nothing", nn.initializers.ones, (1,))


def test_both_players_are_told_the_same_label_for_data_and_for_fakes():
  optimizer = optax.sgd(0.1)
  options = {"num_latents": 1, "num_classes": 4, "pixels": images.POINTS}
  model = gan.gan(Named(), Knowing(), gan.non_saturating(), optimizer, optimizer, **options)
  label = np.array([3, 1, 0, 2, 2, 3], np.int32)
  batch = {"image": label[:, None, None, None].astype(np.float32), "label": label}
  state = jax.jit(model.init)(jax.random.key(0), batch)
  metrics = jax.jit(model.step)(jax.random.key(1), state, batch)[1]
  assert float(metrics["real"]) == float(metrics["fake"]) == 0
  np.testing.assert_array_equal(model.evaluate(jax.random.key(2), state, batch)["critic"], np.zeros(6))
  draw = jax.jit(model.sample, static_argnums=2)
  np.testing.assert_array_equal(draw(jax.random.key(3), state, 6, label)[:, 0, 0, 0], label)
  of_any = np.asarray(draw(jax.random.key(3), state, 800))[:, 0, 0, 0]
  np.testing.assert_allclose(np.bincount(of_any.astype(int), minlength=4) / 800, np.full(4, 0.25), atol=0.06)
