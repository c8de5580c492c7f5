"""What the players minimise, against closed forms: best critics, penalties of known functions, games whose paths are known."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import images
from gm_jax.implicit import games, gan
from gm_jax.networks.dropout import Dropout
from gm_jax.networks.spectral import spectral_dense
from tests.implicit import players

softplus = lambda x: np.log1p(np.exp(np.asarray(x, np.float64)))
sigmoid = lambda x: 1 / (1 + np.exp(-np.asarray(x, np.float64)))
EXTREME = np.array([-50.0, -1.0, 0.0, 1.0, 50.0], np.float32)


def test_minimax_saturates_where_non_saturating_does_not():
  slope_of = lambda game: jax.grad(lambda logits: game.generator(logits).sum())(jnp.asarray(EXTREME))
  np.testing.assert_allclose(games.minimax().generator(EXTREME), -softplus(EXTREME), rtol=1e-6)
  np.testing.assert_allclose(slope_of(games.minimax()), -sigmoid(EXTREME), rtol=1e-5, atol=1e-20)
  np.testing.assert_allclose(slope_of(games.non_saturating()), -sigmoid(-EXTREME), rtol=1e-5, atol=1e-20)


@pytest.mark.parametrize("make", [games.minimax, games.non_saturating])
def test_logarithms_at_extreme_logits(make):
  real, fake = EXTREME, EXTREME[::-1]
  losses, reports, _, _ = players.objective_at(make(), players.Reading(), players.points(real), players.points(fake), {})
  np.testing.assert_allclose(losses, softplus(-real) + softplus(fake), rtol=1e-6)
  np.testing.assert_array_equal(reports["real"], real)
  np.testing.assert_array_equal(reports["fake"], fake)


P, Q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
MIDDLE = (P + Q) / 2
JS = (P * np.log(P / MIDDLE) + Q * np.log(Q / MIDDLE)).sum() / 2
# Game, its best critic on three symbols, and what that critic pays.
BEST = {
  "minimax": (games.minimax(), np.log(P / Q), 2 * np.log(2) - 2 * JS),
  "non-saturating": (games.non_saturating(), np.log(P / Q), 2 * np.log(2) - 2 * JS),
  "least-squares": (games.least_squares(), P / (P + Q), (P * Q / (P + Q)).sum() / 2),
  "least-squares-pearson": (games.least_squares(-1, 1, 0), (P - Q) / (P + Q), 2 * (P * Q / (P + Q)).sum()),
  "hinge": (games.hinge(), np.sign(P - Q), 2 * np.minimum(P, Q).sum()),
}


@pytest.mark.parametrize("name", BEST)
def test_the_best_critic_of_a_finite_space(name):
  game, best, value = BEST[name]
  real, fake = (jnp.asarray(np.repeat(np.arange(3), np.round(100 * weights).astype(int))) for weights in (P, Q))

  @jax.jit
  @jax.vmap
  def loss(logits):
    return players.objective_at(game, players.Table(), real, fake, {"params": {"logits": logits}})[0].mean()

  around = np.concatenate([np.zeros((1, 3)), 0.1 * np.eye(3), -0.1 * np.eye(3)])
  losses = np.asarray(loss(jnp.asarray(best[None] + around, jnp.float32)))
  np.testing.assert_allclose(losses[0], value, rtol=1e-5)
  assert (losses[1:] > losses[0] + 1e-4).all(), "every other critic pays more"


def test_what_the_generators_descend_at_the_best_critic():
  at_best = lambda name: np.asarray(BEST[name][0].generator(jnp.asarray(BEST[name][1], jnp.float32)))
  # Its part and the data's, which it cannot change: minus the critic's loss, a Jensen-Shannon divergence.
  log_d = -softplus(-BEST["minimax"][1])
  np.testing.assert_allclose(Q @ at_best("minimax") + P @ log_d, 2 * JS - 2 * np.log(2), rtol=1e-5)
  # Mao et al. 2017, theorem 1: Pearson's chi square of p + q against 2 q.
  chi_square = ((2 * Q - (P + Q)) ** 2 / (P + Q)).sum()
  np.testing.assert_allclose(2 * (P + Q) @ at_best("least-squares-pearson"), chi_square, rtol=1e-5)
  np.testing.assert_allclose(Q @ at_best("hinge"), -Q @ np.sign(P - Q), rtol=1e-6)


class Steps(nn.Module):
  """D(x) = sum of the slopes before x, x = 0, 1, 2, 3: with slopes in [-1, 1], every function that is 1-Lipschitz there."""

  @nn.compact
  def __call__(self, x, train):
    return (x[:, 0, 0] > jnp.arange(3)[None]) @ self.param("slopes", nn.initializers.normal(0.1), (3,))


class Fixed(nn.Module):
  """A generator that has given up."""

  @nn.compact
  def __call__(self, z, train):
    self.param("unused", nn.initializers.ones, (1,))
    return players.points([0, 0, 0, 0, 0, 0, 2, 3])


def test_the_clipped_critic_finds_the_earth_movers_distance():
  real = np.array([0, 1, 1, 1, 3, 3, 3, 3])
  model = players.duel(games.wgan(clip=1.0), optax.rmsprop(0.2), generator=Fixed(), critic=Steps())
  states, metrics = players.walk(model, {"image": players.points(real)}, 30)
  slopes = np.asarray(states.critic.params["slopes"])
  assert np.abs(slopes).max() <= 1, "clipped after every step"
  # In one dimension the distance is the area between the two distribution functions: 1/8 (5 + 2 + 3).
  np.testing.assert_array_equal(slopes[-1], [1, 1, 1])
  np.testing.assert_allclose(metrics["loss"][-1], -10 / 8, rtol=1e-6)


def test_clipping_takes_every_parameter():
  params = {"kernel": jnp.array([[-3.0, 0.001], [0.5, -0.02]]), "bias": jnp.array([7.0])}
  clipped = games.wgan(0.01).project(params)
  np.testing.assert_allclose(clipped["kernel"], np.array([[-0.01, 0.001], [0.01, -0.01]]), rtol=1e-6)
  np.testing.assert_allclose(clipped["bias"], [0.01], rtol=1e-6)


# Penalties.


class Bowl(nn.Module):
  """D(x) = a |x|^2 / 2: its slope is a |x|."""

  @nn.compact
  def __call__(self, x, train):
    return self.param("a", nn.initializers.ones, (1,)) * (x.reshape(len(x), -1) ** 2).sum(1) / 2


def test_dragan_looks_around_data_alone_and_both_parts_of_the_loss_are_descended():
  real = np.where(np.arange(4000) % 2, 3.0, 5.0).astype(np.float32)  # deviation 1
  game = games.dragan(weight=3.0, spread=0.5)
  losses = lambda params, fake: players.objective_at(
    game, Bowl(), players.points(real), players.points(fake), {"params": params}
  )
  params = {"a": jnp.ones(1)}
  both = jax.jit(
    lambda fake: (losses(params, fake)[1], jax.grad(lambda params: losses(params, fake)[0].mean())(params)["a"][0])
  )
  reports, gradient = both(-real)
  found = np.asarray(reports["slope"])
  share = (found - real) / 0.5  # x + std / 2 * U
  assert share.min() >= -1e-5
  assert share.max() <= 1 + 1e-5
  np.testing.assert_allclose(share.mean(), 0.5, atol=0.02)
  np.testing.assert_allclose(share.var(), 1 / 12, atol=0.005)
  np.testing.assert_array_equal(both(-100 * real)[0]["slope"], found)
  # d/da of softplus(-a x^2 / 2) + softplus(a g^2 / 2) + 3 (a s - 1)^2 at a = 1.
  half = real.astype(np.float64) ** 2 / 2
  expected = -half * sigmoid(-half) + half * sigmoid(half) + 3 * 2 * (found - 1) * found
  np.testing.assert_allclose(gradient, expected.mean(), rtol=1e-4)


def test_dragan_around_data_without_spread_is_the_slope_at_data():
  real = jnp.full((6, 2, 3, 1), 2.0)
  _, reports, _, _ = players.objective_at(games.dragan(), Bowl(), real, -7 * real)
  np.testing.assert_allclose(reports["slope"], np.full(6, np.sqrt(24)), rtol=1e-5)


def test_lazy_r1_is_the_plain_one_on_average_and_counts_its_turns():
  real, fake = players.points([1.0, -2.0, 3.0]), players.points([0.0, 1.0, 4.0])
  plain = players.objective_at(games.r1(games.hinge(), gamma=5.0), players.Line(), real, fake)
  np.testing.assert_allclose(plain[1]["r1"], np.full(3, 2.5), rtol=1e-6)  # 5 / 2 psi^2, wherever
  without = players.objective_at(games.hinge(), players.Line(), real, fake)
  np.testing.assert_allclose(plain[0], without[0] + 2.5, rtol=1e-6)
  lazy, variables, paid = games.r1(games.hinge(), gamma=5.0, every=3), None, []
  for turn in range(6):
    _, reports, written, variables = players.objective_at(lazy, players.Line(), real, fake, variables)
    paid.append(float(reports["r1"][1]))
    variables = {**variables, **written}
    assert int(variables["counters"]["r1"]) == turn + 1
  np.testing.assert_allclose(paid, [7.5, 0, 0, 7.5, 0, 0], rtol=1e-6)


def test_the_slope_at_data_brings_both_players_to_rest():
  """Mescheder et al. 2018, section 3: without R1 a point and a line turn round each other."""
  theta, psi = orbits = np.ones(2)
  expected = []
  for _ in range(300):  # the same in NumPy, gamma = 0.3
    psi = psi - 0.1 * (sigmoid(psi * theta) * theta + 0.3 * psi)
    theta = theta + 0.1 * sigmoid(-psi * theta) * psi
    expected.append([theta, psi])
  orbits = players.orbit(game=games.r1(games.non_saturating(), gamma=0.3), optimizer=optax.sgd(0.1))
  np.testing.assert_allclose(orbits, expected, atol=1e-4)
  assert np.linalg.norm(orbits[-1]) < 0.02
  assert np.linalg.norm(players.orbit(game=games.non_saturating(), optimizer=optax.sgd(0.1))[-1]) > 0.4


class Masked(nn.Module):
  """D(x) = the sum of what dropout leaves of x."""

  @nn.compact
  def __call__(self, x, train):
    return Dropout(0.5)(x.reshape(len(x), -1), train).sum(1) * self.param("scale", nn.initializers.ones, (1,))


class Normalised(nn.Module):
  """A linear critic whose weights have length 1, by a layer that writes down what it found."""

  @nn.compact
  def __call__(self, x, train):
    return spectral_dense(1)(x.reshape(len(x), -1), train)[:, 0]


def test_penalties_of_critics_that_draw_and_that_write():
  real, fake = jax.random.normal(jax.random.key(0), (2, 16, 2, 2, 1))
  reports = players.objective_at(games.wgan_gp(), Masked(), real, fake)[1]
  left = np.asarray(reports["slope"]) ** 2 / 4  # of 4 pixels, each kept one counts twice
  np.testing.assert_allclose(left, np.round(left), atol=1e-4)
  assert 0 < left.mean() < 4
  _, reports, written, _ = players.objective_at(games.r1(games.wgan_gp(), gamma=2.0), Normalised(), real, fake)
  np.testing.assert_allclose(reports["slope"], np.ones(16), rtol=1e-5)
  np.testing.assert_allclose(reports["r1"], np.ones(16), rtol=1e-5)
  assert "spectral" in written


class Told(nn.Module):
  """D(x | y) = (y + 1) x."""

  @nn.compact
  def __call__(self, x, train, label):
    return (label + 1) * x[:, 0, 0, 0] * self.param("scale", nn.initializers.ones, (1,))


@pytest.mark.parametrize("make", [games.wgan_gp, games.dragan, lambda: games.r1(games.hinge(), gamma=2.0)])
def test_penalties_are_taken_at_each_examples_own_label(make):
  label = jnp.array([0, 1, 2, 3, 0, 5])
  real, fake = jax.random.normal(jax.random.key(0), (2, 6, 1, 1, 1))
  _, reports, _, _ = players.objective_at(make(), Told(), real, fake, condition=(label,))
  found = reports["slope"] if "slope" in reports else jnp.sqrt(reports["r1"])
  np.testing.assert_allclose(found, label + 1, rtol=1e-5)
  np.testing.assert_allclose(reports["fake"], (label + 1) * fake[:, 0, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("game", [games.wgan_gp(), games.dragan(), games.r1(games.hinge()), games.r1(games.minimax(), every=4)])
def test_a_critic_that_mixes_examples_is_refused_under_any_penalty_on_slopes(game):
  model = players.duel(game, optax.sgd(0.1), critic=players.Normed())
  with pytest.raises(ValueError, match="BatchNorm makes D"):
    jax.eval_shape(model.init, jax.random.key(0), {"image": players.points([0.0, 1.0])})


@pytest.mark.parametrize("game", [games.minimax(), games.least_squares(), games.hinge(), games.wgan()])
def test_it_is_welcome_elsewhere(game):
  model = players.duel(game, optax.sgd(0.1), critic=players.Normed())
  jax.eval_shape(model.init, jax.random.key(0), {"image": players.points([0.0, 1.0])})


@pytest.mark.parametrize(("moving", "still"), [("critic", "generator"), ("generator", "critic")])
def test_each_players_step_leaves_the_other_as_it_was(moving, still):
  rate = lambda player: optax.sgd(0.1 if player == moving else 0.0)
  optimizers = rate("generator"), rate("critic")
  model = gan.gan(players.Dot(), players.Line(), games.hinge(), *optimizers, num_latents=1, pixels=images.POINTS)
  states, _ = players.walk(model, {"image": players.points([0.5, -0.5])}, 2)
  value = lambda player: jax.tree.leaves(getattr(states, player).params)[0].reshape(2)
  np.testing.assert_array_equal(value(still), [1.0, 1.0])
  assert (value(moving) != 1.0).all()
