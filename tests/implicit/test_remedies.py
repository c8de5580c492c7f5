"""Each remedy by itself, against games played by hand; and all together."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import images, random
from gm_jax.implicit import games, gan, latents, remedies
from gm_jax.networks.minibatch import MinibatchCritic
from gm_jax.networks.norm import BatchNorm
from gm_jax.networks.spectral import SpectralNorm
from tests.implicit import players

PLAIN = gan.GAN(
  players.Dot(), players.Line(), games.wgan(np.inf), optax.sgd(0.1), optax.sgd(0.1), latents.normal(1), pixels=images.POINTS
)


# The bilinear game psi theta: the critic goes down, the generator up; both from 1.  With momentum they spiral outwards.


def by_hand(steps, weight=0.0, unroll=0, rate=0.1, momentum=0.3):
  """theta and psi after each step, [steps, 2]."""
  theta, psi, trace_theta, trace_psi = 1.0, 1.0, 0.0, 0.0
  path = [(theta, psi)]
  for _ in range(steps):
    past = np.mean([point for point in path[:-1]] or [path[-1]], axis=0)  # of all before this one
    trace_psi = theta + 2 * weight * (psi - past[1]) + momentum * trace_psi
    psi -= rate * trace_psi
    # How the critic will go on, and how that depends on theta.
    ahead, trace, slope, trace_slope = psi, trace_psi, 0.0, 0.0
    for _ in range(unroll):
      trace, trace_slope = theta + momentum * trace, 1.0 + momentum * trace_slope
      ahead, slope = ahead - rate * trace, slope - rate * trace_slope
    trace_theta = -ahead - theta * slope + 2 * weight * (theta - past[0]) + momentum * trace_theta
    theta -= rate * trace_theta
    path.append((theta, psi))
  return np.array(path[1:])


@pytest.mark.parametrize(
  ("chosen", "options", "radius"),
  [
    ((), {}, (10, np.inf)),
    ((remedies.unrolled(0),), {}, (10, np.inf)),
    ((remedies.historical_averaging(0.1),), {"weight": 0.1}, (0, 0.02)),
    ((remedies.unrolled(1),), {"unroll": 1}, (0, 0.1)),
    ((remedies.unrolled(3),), {"unroll": 3}, (0, 1e-4)),
  ],
  ids=["plain", "unrolled-0", "historical-averaging", "unrolled-1", "unrolled-3"],
)
def test_the_bilinear_game(chosen, options, radius):
  path = players.orbit(*chosen, game=games.wgan(np.inf))
  np.testing.assert_allclose(path, by_hand(300, **options), rtol=1e-3, atol=1e-3)
  assert radius[0] <= np.linalg.norm(path[-1]) <= radius[1]


def test_the_critic_that_is_kept_has_made_one_step():
  critics = [players.orbit(*chosen, game=games.wgan(np.inf), steps=1)[0, 1] for chosen in [(), (remedies.unrolled(4),)]]
  np.testing.assert_array_equal(critics[0], critics[1])


def test_history_is_the_mean_of_all_before():
  transform = remedies.towards_history(0.25)
  params = jax.random.normal(jax.random.key(0), (5, 3))
  state = transform.init({"w": params[0]})
  for step in range(5):
    pulled, state = transform.update({"w": jnp.ones(3)}, state, {"w": params[step]})
    away = params[step] - params[:step].mean(0) if step else jnp.zeros(3)
    np.testing.assert_allclose(pulled["w"], 1 + 0.5 * away, rtol=1e-5)
  np.testing.assert_allclose(state.mean["w"], params.mean(0), rtol=1e-5, atol=1e-6)


# Rates and turns.


def test_two_learning_rates():
  path = players.orbit(remedies.two_learning_rates(4.0, 0.5), game=games.wgan(np.inf), steps=1, optimizer=optax.sgd(0.1))
  np.testing.assert_allclose(path[0], [1 + 0.05 * 0.6, 1 - 0.4 * 1], rtol=1e-6)  # the generator sees psi = 0.6


@pytest.mark.parametrize(("n_critic", "n_generator"), [(1, 1), (3, 1), (1, 2), (2, 3)])
def test_turns_are_counted(n_critic, n_generator):
  model = players.duel(games.hinge(), optax.sgd(0.1), remedies.alternation(n_critic, n_generator))
  states, _ = players.walk(model, {"image": players.points([0.0, 0.5])}, 6)
  np.testing.assert_array_equal(states.turn, np.arange(1, 7))
  np.testing.assert_array_equal(states.average.updates, np.arange(1, 7) // n_critic * n_generator)
  # -D(g): each of its steps is one of psi, the critic's of that turn.
  theta, psi = (jax.tree.leaves(player.params)[0].reshape(6) for player in (states.generator, states.critic))
  moves = np.where(np.arange(1, 7) % n_critic == 0, 0.1 * n_generator * psi, 0)
  np.testing.assert_allclose(theta, 1 + np.cumsum(moves), rtol=1e-5)


# What the critic sees.


def test_packs():
  pack = remedies.packing(3)(PLAIN).views[0]
  x = jnp.arange(6 * 2 * 2 * 2.0).reshape(6, 2, 2, 2)
  label = jnp.arange(6) + 10
  packs, labels = pack(jax.random.key(0), 0, True, x, label)
  for index in range(2):
    np.testing.assert_array_equal(packs[index], np.concatenate(x[3 * index : 3 * index + 3], -1))
  np.testing.assert_array_equal(labels, [[10, 11, 12], [13, 14, 15]])
  alone, labels = pack(jax.random.key(0), 0, False, x, label)
  for index in range(6):
    following = [(index + ahead) % 6 for ahead in range(3)]
    np.testing.assert_array_equal(alone[index], np.concatenate(x[np.array(following)], -1))
    np.testing.assert_array_equal(labels[index], np.array(following) + 10)
  with pytest.raises(ValueError, match="4 images on a device cannot be cut into packs of 3"):
    pack(jax.random.key(0), 0, True, x[:4], label[:4])
  assert remedies.packing(1)(PLAIN) is PLAIN


class Product(nn.Module):
  """D of a pack of two points: their product."""

  @nn.compact
  def __call__(self, x, train):
    return x[:, 0, 0, 0] * x[:, 0, 0, 1] * self.param("psi", nn.initializers.ones, (1,))


def test_a_packed_critic_judges_real_with_real_and_fake_with_fake():
  model = players.duel(games.wgan(np.inf), optax.sgd(0.1), remedies.packing(2), critic=Product())
  states, metrics = players.walk(model, {"image": players.points([2.0, 3.0, 4.0, 5.0])}, 1)
  np.testing.assert_allclose([metrics["real"][0], metrics["fake"][0]], [(6 + 20) / 2, 1.0], rtol=1e-6)
  # psi after its step, and then d(psi theta^2) / d theta from both of the pack.
  psi = 1 - 0.1 * (1 - 13)
  np.testing.assert_allclose(states.generator.params["theta"].reshape(()), 1 + 0.1 * 2 * psi, rtol=1e-6)


def test_instance_noise_fades_and_is_not_that_of_the_fakes():
  plan = remedies.instance_noise(optax.linear_schedule(0.5, 0.0, 10))(PLAIN)
  zeros = players.points(np.zeros(4000))
  seen = lambda turn, train: plan.views[0](jax.random.key(0), turn, train, zeros)[0]
  for turn, level in [(0, 0.5), (5, 0.25), (10, 0.0), (99, 0.0)]:
    np.testing.assert_allclose(seen(turn, True).std(), level, rtol=0.05)
  np.testing.assert_array_equal(seen(0, False), zeros)

  class Noise(nn.Module):
    """D(x) = x, with a parameter that does nothing."""

    @nn.compact
    def __call__(self, x, train):
      return x[:, 0, 0, 0] + 0 * self.param("psi", nn.initializers.ones, (1,))

  model = players.duel(
    games.wgan(np.inf), optax.sgd(0.0), remedies.instance_noise(1.0), generator=players.Dot(0.0), critic=Noise()
  )
  _, metrics = players.walk(model, {"image": players.points(np.zeros(2))}, 20)
  noises = np.stack([metrics["real"], metrics["fake"]])
  assert len(np.unique(noises)) == 40, "a fresh draw every time, for data and for fakes"
  assert abs(np.corrcoef(noises)[0, 1]) < 0.7


def test_what_is_changed_for_the_critic_is_changed_on_both_sides_and_teaches_the_generator():
  twice = remedies.augmentation(lambda key, x: 2 * x)
  data = {"image": players.points([2.0, 4.0])}
  model = players.duel(games.wgan(np.inf), optax.sgd(0.1), twice)
  states, metrics = players.walk(model, data, 1)
  np.testing.assert_allclose([metrics["real"][0], metrics["fake"][0]], [2 * 3, 2], rtol=1e-6)
  psi = 1 - 0.1 * (2 - 6)
  np.testing.assert_allclose(states.generator.params["theta"].reshape(()), 1 + 0.1 * 2 * psi, rtol=1e-6)
  before = model.init(jax.random.key(0), data)
  np.testing.assert_allclose(model.evaluate(jax.random.key(1), before, data)["critic"], [2.0, 4.0], rtol=1e-6)

  key = jax.random.key(0)
  shifted = remedies.augmentation(lambda key, x: x + random.normal(key, len(x), x.shape[1:]))(PLAIN).views[0]
  seen, again, other = (shifted(key, 0, True, players.points(np.zeros(9)))[0] for key in (key, key, jax.random.key(1)))
  np.testing.assert_array_equal(seen, again)
  assert not np.isclose(seen, other).any()


def test_layers_that_are_remedies():
  both = remedies.spectral_normalization()(remedies.minibatch_discrimination(3, 2)(PLAIN))
  assert both.critic == SpectralNorm(MinibatchCritic(PLAIN.critic, 3, 2))
  x = jax.random.normal(jax.random.key(0), (6, 1, 1, 1))
  critic = MinibatchCritic(PLAIN.critic, 3, 2)
  variables = critic.init(jax.random.key(1), x, True)
  logits = lambda x: critic.apply(variables, x, True)
  assert float(jnp.abs(logits(x)[0] - logits(jnp.broadcast_to(x[:1], x.shape))[0])) > 1e-3, "the others are seen"


# What the generator wants.


def test_feature_matching_is_of_means():
  x, g = jax.random.normal(jax.random.key(0), (2, 6, 2, 2, 1))
  game = remedies.feature_matching(weight=3.0)(PLAIN).game
  variables = players.Line().init(jax.random.key(0), x, True)
  losses = lambda x, g: nn.apply(lambda critic: game.generator_losses(critic, x, g, True), players.Line())(variables)
  flat = lambda x: x.reshape(6, -1)
  expected = 3 * ((flat(x).mean(0) - flat(g).mean(0)) ** 2).sum()
  np.testing.assert_allclose(losses(x, g), np.full(6, expected), rtol=1e-5)
  np.testing.assert_allclose(losses(x, g[::-1]), losses(x, g), rtol=1e-5)
  # No gradient where the means agree, whatever the examples; and the one of the mean elsewhere.
  slope = jax.jit(jax.grad(lambda g: losses(x, g).mean()))
  np.testing.assert_allclose(slope(g - g.mean(0, keepdims=True) + x.mean(0, keepdims=True)), np.zeros(g.shape), atol=1e-6)
  np.testing.assert_allclose(slope(g)[0], 3 * 2 / 6 * (g - x).mean(0), rtol=1e-4, atol=1e-6)
  besides = remedies.feature_matching(3.0, adversarial=0.5)(PLAIN).game
  both = nn.apply(lambda critic: besides.generator_losses(critic, x, g, True), players.Line())(variables)
  np.testing.assert_allclose(both, losses(x, g) - 0.5 * flat(g)[:, 0], rtol=1e-4)


@pytest.mark.parametrize("remedy", [remedies.feature_matching(), remedies.minibatch_discrimination()])
def test_critics_without_features_are_refused(remedy):
  with pytest.raises(ValueError, match=r"needs a critic with a method features.*Reading has none"):
    remedy(PLAIN._replace(critic=players.Reading()))


@pytest.mark.parametrize(
  "wrong", [lambda: remedies.unrolled(-1), lambda: remedies.packing(0), lambda: remedies.alternation(0, 1)]
)
def test_numbers_that_mean_nothing_are_refused(wrong):
  with pytest.raises(ValueError, match="take|at least"):
    wrong()


# Where samples come from.


class Numbered(nn.Module):
  """Example i of a batch is i / 10 and 3 - i, normalised by two layers that remember at different paces."""

  @nn.compact
  def __call__(self, z, train):
    i = jnp.arange(float(len(z)))
    first = BatchNorm(momentum=0.9, epsilon=0.0)(i[:, None] / 10, train)
    second = BatchNorm(momentum=0.5, epsilon=0.0)(3 - i[:, None], train)
    return jnp.concatenate([first, second], 1)[:, None, None]


def test_recomputed_statistics_are_those_of_a_batch():
  plan = PLAIN._replace(generator=Numbered(), game=games.hinge())
  batch = {"image": jnp.zeros((4, 1, 1, 2))}
  model = gan.adversarial(remedies.recomputed_statistics(num=50, passes=3)(plan))
  state = jax.jit(model.init)(jax.random.key(0), batch)
  settled = jax.jit(lambda variables: remedies.recomputed_statistics(50, 3)(plan).settle(plan, variables))(
    state.average.variables
  )
  variance = (50**2 - 1) / 12
  for layer, (mean, var) in {"BatchNorm_0": (2.45, variance / 100), "BatchNorm_1": (3 - 24.5, variance)}.items():
    np.testing.assert_allclose(settled["batch_stats"][layer]["mean"], [mean], rtol=1e-5)
    np.testing.assert_allclose(settled["batch_stats"][layer]["var"], [var], rtol=1e-5)
  jax.tree.map(np.testing.assert_array_equal, settled["params"], state.average.variables["params"])
  # Samples 0 to 4 lie where they would among 50.
  expected = (np.arange(5) - 24.5) / np.sqrt(variance)
  sample = np.asarray(model.sample(jax.random.key(1), state, 5))[:, 0, 0]
  np.testing.assert_allclose(sample, np.stack([expected, -expected], 1), rtol=1e-4)
  plain = np.asarray(gan.adversarial(plan).sample(jax.random.key(1), state, 5))[:, 0, 0]
  np.testing.assert_allclose(plain[:, 0], np.arange(5) / 10, rtol=1e-5)


def test_a_generator_without_statistics_has_none_to_recompute():
  plan = remedies.recomputed_statistics()(PLAIN)
  variables = {"params": {"theta": jnp.ones(1)}}
  assert plan.settle(plan, variables) is variables
