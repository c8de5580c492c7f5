"""The price of uneven paths: on generators whose paths are known, and how often and from which memory it is paid."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import random
from gm_jax.implicit import games, gan, remedies, style
from gm_jax.networks.style import Generator
from tests.implicit import players
from tests.networks.tools import noisy

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)


def paying(remedy, generator):
  """`(variables, key, z) -> (losses [B], variables after)`, of what the generator pays for the remedy alone."""
  *_, pay = remedy(gan.GAN(generator, *[None] * 5)).pays
  ask = nn.apply(lambda generator, key, z: pay(generator, key, z, True), generator, mutable=["path_length_0", "latent_stats"])

  def paid(variables, key, z):
    losses, written = ask(variables, key, z)
    return losses, {**variables, **written}

  return jax.jit(paid)


def remembering(variables, mean=0.0, steps=0):
  return {**variables, "path_length_0": {"mean": jnp.float32(mean), "steps": jnp.int32(steps)}}


# A linear generator.


class Product(nn.Module):
  """image = A w, A of size [4, 3]."""

  @nn.compact
  def __call__(self, styles, key):
    matrix = self.param("A", nn.initializers.normal(1), (4, 3))
    return (styles[:, 0] @ matrix.T).reshape(-1, 2, 2, 1)


class Linear(Generator):
  """w = z and image = A w."""

  def setup(self):
    self.mapped = lambda z, label: z
    self.synthesis = Product()
    self.mean = self.variable("latent_stats", "mean", jnp.zeros, (3,))

  @property
  def num_styles(self):
    return 1


LINEAR = Linear((2, 2, 1), mixing=0)
Z = RNG.normal(size=(8, 3)).astype(np.float32)


def of_matrix(matrix):
  return {"params": {"synthesis": {"A": jnp.asarray(matrix, jnp.float32)}}, "latent_stats": {"mean": jnp.zeros(3)}}


def paths(matrix, key):
  """|A' y| by hand: the third key that the generator splits off is that of y, whose deviation is 1 / sqrt(2 * 2)."""
  y = np.asarray(random.normal(jax.random.split(key, 3)[2], 8, (2, 2, 1)), np.float64).reshape(8, 4) / 2
  return np.linalg.norm(y @ matrix, axis=1)


def test_paths_of_a_linear_generator_are_paid_exactly():
  matrix = RNG.normal(size=(4, 3))
  paid = paying(style.path_length(weight=3.0, every=1, decay=0.25), LINEAR)
  variables, mean = remembering(of_matrix(matrix), 0.5), 0.5
  for key in jax.random.split(KEY, 3):
    losses, variables = paid(variables, key, Z)
    lengths = paths(matrix, key)
    mean += 0.25 * (lengths.mean() - mean)
    np.testing.assert_allclose(losses, 3 * (lengths - mean) ** 2, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variables["path_length_0"]["mean"], mean, rtol=1e-5)
  np.testing.assert_array_equal(variables["latent_stats"]["mean"], np.zeros(3), "what only paths were made from is dropped")


def test_what_is_paid_turns_a_matrix_into_a_rotation():
  """The least of E (|A' y| - a)^2: all singular values a E r / E r^2, where (2 r)^2 is chi square with 3 degrees of freedom."""
  paid = paying(style.path_length(weight=1.0, every=1, decay=0.0), LINEAR)
  total = lambda params, rest, key: paid({**rest, "params": params}, key, jnp.zeros((64, 3)))[0].mean()
  rest = remembering(of_matrix(np.zeros((4, 3))), mean=2.0)

  def descend(params, key):
    gradient = jax.grad(total)(params, rest, key)
    return jax.tree.map(lambda leaf, slope: leaf - 0.2 * slope, params, gradient), None

  start = np.linalg.qr(RNG.normal(size=(4, 3)))[0] * [4.0, 1.0, 0.25]
  run = jax.jit(lambda params, keys: jax.lax.scan(descend, params, keys)[0])
  end = run(of_matrix(start)["params"], jax.random.split(KEY, 300))
  values = np.linalg.svd(end["synthesis"]["A"], compute_uv=False)
  np.testing.assert_allclose(values, 2.0 * np.sqrt(2 / np.pi) / 0.75, rtol=0.15)


# A generator whose paths are what they should be.


class Straight(nn.Module):
  """All images are theta, and the path of example i has the length theta * lengths[i]."""

  lengths: tuple = (1.0, 2.0, 3.0, 2.0)

  def setup(self):
    self.theta = self.param("theta", nn.initializers.constant(2.0), (1, 1, 1, 1))

  def __call__(self, z, train):
    return jnp.broadcast_to(self.theta, (len(z), 1, 1, 1))

  def path_lengths(self, key, z, train):
    return self.theta[0, 0, 0] * jnp.array(self.lengths)


def test_nothing_is_paid_where_all_lengths_are_the_mean_one():
  theta, same = {"params": {"theta": jnp.full((1, 1, 1, 1), 2.0)}}, Straight((1.5,) * 4)
  paid = paying(style.path_length(every=1), same)
  cost = lambda variables: paid(variables, KEY, Z[:4])[0].sum()
  for mean, expected in ((3.0, 0.0), (0.0, 4 * 2.0 * (3.0 - 0.03) ** 2)):
    np.testing.assert_allclose(cost(remembering(theta, mean)), expected, rtol=1e-6)
  assert not any(jax.tree.leaves(jax.grad(lambda params: cost(remembering({"params": params}, 3.0)))(theta["params"])))


def test_paid_now_and_then_it_is_the_plain_price_on_average():
  theta, totals = {"params": {"theta": jnp.full((1, 1, 1, 1), 2.0)}}, []
  for every in (1, 3):
    paid, variables = paying(style.path_length(weight=0.5, every=every, decay=0.0), Straight()), remembering(theta, 3.0)
    losses = []
    for _ in range(6):
      one, variables = paid(variables, KEY, Z[:4])
      losses.append(one)
    assert int(variables["path_length_0"]["steps"]) == 6
    totals.append(np.mean(losses, 0))
  np.testing.assert_allclose(totals[0], 0.5 * (2 * np.array([1, 2, 3, 2]) - 3.0) ** 2, rtol=1e-6)
  np.testing.assert_allclose(totals[1], totals[0], rtol=1e-6)
  np.testing.assert_array_equal(np.any(losses, 1), np.arange(6) % 3 == 0)


# In a game.


def follow(*remedies, steps, optimizer, **options):
  """What theta and the memory of paths are after 1, 2, ... steps of a game in which the generator's D is its theta."""
  model = players.duel(games.wgan(np.inf), optimizer, *remedies, generator=Straight(), **options)
  states, _ = players.walk(model, {"image": players.points(np.zeros(4))}, steps)
  return states.generator.params["theta"].reshape(steps), states.generator.stats


@pytest.mark.parametrize("n_critic", [1, 2])
def test_the_mean_runs_at_the_generators_own_steps(n_critic):
  _, stats = follow(style.path_length(every=2, decay=0.5), steps=8, optimizer=optax.sgd(0.0), n_critic=n_critic)
  mean, means, counts = 0.0, [], []
  for step in range(8):
    played = step // n_critic  # the generator's steps before this one, which is its own at the last of n_critic
    if step % n_critic == n_critic - 1 and played % 2 == 0:
      mean += 0.5 * (4.0 - mean)  # theta = 2 times the mean of 1, 2, 3, 2
    means.append(mean)
    counts.append((step + 1) // n_critic)
  np.testing.assert_allclose(stats["path_length_0"]["mean"], means)
  np.testing.assert_array_equal(stats["path_length_0"]["steps"], counts)


def test_the_generator_descends_the_game_and_the_price():
  """Steps of plain descent by hand.  The mean is a constant to the gradient."""
  twice = style.path_length(weight=0.5, every=2, decay=0.5), style.path_length(weight=0.1, every=1, decay=1.0)
  thetas, stats = follow(*twice, remedies.two_learning_rates(critic=0.0), steps=4, optimizer=optax.sgd(0.1))
  theta, mean, lengths = 2.0, 0.0, np.array([1.0, 2.0, 3.0, 2.0])
  for step in range(4):
    slope = -1.0  # of -D
    if step % 2 == 0:
      mean += 0.5 * (2 * theta - mean)
      slope += 2 * 0.5 * (2 * (theta * lengths - mean) * lengths).mean()
    last, slope = 2 * theta, slope + 0.1 * (2 * (theta * lengths - 2 * theta) * lengths).mean()
    theta -= 0.1 * slope
    np.testing.assert_allclose(thetas[step], theta, rtol=1e-5)
    np.testing.assert_allclose([stats[f"path_length_{i}"]["mean"][step] for i in range(2)], [mean, last], rtol=1e-5)


def test_a_price_of_zero_changes_nothing():
  """Neither keys nor parameters of the game itself."""
  free = follow(style.path_length(weight=0.0), steps=5, optimizer=optax.adam(0.1))[0]
  np.testing.assert_array_equal(free, follow(steps=5, optimizer=optax.adam(0.1))[0])
  assert np.ptp(free) > 0.1


# The style-based generator itself.

STYLED = Generator((4, 4, 1), (2,), width=3, mapping=1)


def test_its_price_has_the_gradient_of_small_differences():
  z = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)
  variables = noisy(lambda key, z: STYLED.init({"params": key, "dropout": key}, z, True), z, size=0.5)

  def priced(decay):
    paid = paying(style.path_length(decay=decay), STYLED)

    def cost(params, mean):
      losses, after = paid({**remembering(variables, mean), "params": params}, KEY, z)
      return losses.mean(), after

    return jax.jit(jax.value_and_grad(cost, has_aux=True))

  held, params = priced(decay=0.0), variables["params"]
  _, gradient = held(params, 1.0)
  norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(gradient)))
  moved = lambda step: jax.tree.map(lambda leaf, slope: leaf + step / norm * slope, params, gradient)
  np.testing.assert_allclose((held(moved(1e-3), 1.0)[0][0] - held(moved(-1e-3), 1.0)[0][0]) / 2e-3, norm, rtol=0.03)
  # A mean that moves on the way has the gradient of one that was there before.
  (_, after), going = priced(decay=0.3)(params, 1.0)
  there = after["path_length_0"]["mean"]
  assert abs(there - 1.0) > 0.01
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), held(params, there)[1], going)
  np.testing.assert_array_equal(after["latent_stats"]["mean"], variables["latent_stats"]["mean"])


def test_refuses_what_has_no_paths():
  with pytest.raises(ValueError, match="path_lengths; Dot has none"):
    players.duel(games.hinge(), optax.sgd(0.1), style.path_length(), generator=players.Dot())
  for wrong in ({"every": 0}, {"weight": -1.0}, {"decay": 1.5}):
    with pytest.raises(ValueError, match="at least 0, at least 1, and 0 to 1"):
      style.path_length(**wrong)
