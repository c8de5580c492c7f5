"""Latent space against a linear generator, whose every answer is known, and what holds for any: no image sees another."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.approximate import latents as paths
from gm_jax.errors import UserError
from gm_jax.implicit import latents as laws
from gm_jax.networks import dcgan
from gm_jax.networks.flat import FlatEncoder, Flatten
from gm_jax.tasks import latents

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
SHAPE, Z = (2, 3, 1), 4
A = np.linalg.qr(RNG.normal(size=(6, Z)))[0] @ np.diag([1.0, 1.3, 1.6, 2.0]) @ np.linalg.qr(RNG.normal(size=(Z, Z)))[0]
B = RNG.normal(size=6)
LAW = laws.normal(Z)
REAL = jnp.asarray(RNG.normal(size=(5, *SHAPE)), jnp.float32)  # none of them is an image of the generator


def linear(z):
  """x = A z + b."""
  return (z @ jnp.asarray(A.T, jnp.float32) + jnp.asarray(B, jnp.float32)[None]).reshape(-1, *SHAPE)


def solved(x, penalty=0.0):
  """The minimum of mean (A z + b - x)^2 + penalty mean z^2, [B, Z], by least squares in float64."""
  left = np.concatenate([A / np.sqrt(6), np.sqrt(penalty / Z) * np.eye(Z)])
  right = np.concatenate([(np.asarray(x, np.float64).reshape(-1, 6) - B) / np.sqrt(6), np.zeros((len(x), Z))], 1)
  return np.stack([np.linalg.lstsq(left, row, rcond=None)[0] for row in right])


def curved(seed=0, shape=(8, 8, 1)):
  """A generator of DCGAN's kind, of no training."""
  generator = dcgan.Generator(shape, base=4)
  variables = jax.jit(lambda key, z: generator.init(key, z, train=False))(jax.random.key(seed), jnp.zeros((1, Z)))
  louder = jax.tree.map(lambda leaf: 20 * leaf if leaf.ndim > 1 else leaf, variables["params"])
  return lambda z: generator.apply({**variables, "params": louder}, z, train=False)


# Projection by descent.


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_projection_onto_a_linear_generator_is_least_squares(penalty):
  find = jax.jit(lambda x: latents.project(linear, x, KEY, LAW, restarts=2, penalty=penalty))
  z, errors = find(REAL)
  expected = solved(REAL, penalty)
  np.testing.assert_allclose(z, expected, atol=2e-4)
  left = np.square(expected @ A.T + B - np.asarray(REAL).reshape(-1, 6)).mean(1)
  np.testing.assert_allclose(errors, left, atol=1e-5)  # the penalty is no part of the distance


def test_features_join_pixels_in_the_distance():
  """Features M x with weight w: the least squares of [A; sqrt(w) M A] with each block divided by its own size."""
  m, weight = np.linalg.qr(RNG.normal(size=(6, 3)))[0], 2.0
  features = lambda x: x.reshape(-1, 6) @ jnp.asarray(m, jnp.float32)
  distance = latents.with_features(features, weight)
  z, errors = jax.jit(lambda x: latents.project(linear, x, KEY, LAW, restarts=1, distance=distance))(REAL)
  rows = np.concatenate([np.eye(6) / np.sqrt(6), np.sqrt(weight / 3) * m.T])
  off = np.asarray(REAL, np.float64).reshape(-1, 6) - B
  expected = np.stack([np.linalg.lstsq(rows @ A, rows @ row, rcond=None)[0] for row in off])
  np.testing.assert_allclose(z, expected, atol=2e-4)
  np.testing.assert_allclose(errors, np.square((expected @ A.T - off) @ rows.T).sum(1), atol=1e-5)
  assert np.abs(expected - solved(REAL)).max() > 0.02  # pixels alone have another answer


def test_images_that_a_generator_made_are_made_again():
  decode = curved()
  x = jax.jit(decode)(laws.draw(LAW, jax.random.key(7), 3))
  z, errors = jax.jit(lambda x: latents.project(decode, x, KEY, LAW, restarts=6))(x)
  assert x.std(0).mean() > 0.1  # they differ
  assert float(jnp.abs(jax.jit(decode)(z) - x).max()) < 1e-3
  assert float(errors.max()) < 1e-6


def valleys(z):
  """A point with a false valley at -1, left of 0."""
  height = jnp.where(z[:, 0] > 0, jnp.abs(z[:, 0] - 1), 0.5 + jnp.abs(z[:, 0] + 1))
  return height[:, None]


def test_several_starts_find_what_one_misses():
  x, steps = jnp.zeros((24, 1)), dict(steps=150, learning_rate=0.05)
  error = lambda restarts: np.asarray(
    jax.jit(lambda x: latents.project(valleys, x, KEY, laws.normal(1), restarts=restarts, **steps))(x)[1]
  )
  caught = error(1) > 0.2
  assert 4 < caught.sum() < 20  # a start left of 0 stays there
  assert not (error(12) > 0.2).any()


def test_a_guess_is_a_start_and_nothing_worse_is_returned():
  good = jnp.asarray(solved(REAL), jnp.float32)
  kept, least = latents.project(linear, REAL, KEY, LAW, guess=good, restarts=0, steps=0)
  np.testing.assert_array_equal(kept, good)
  far = dict(steps=3, learning_rate=5.0)  # steps that overshoot
  z, errors = jax.jit(lambda x: latents.project(linear, x, KEY, LAW, guess=good, restarts=2, **far))(REAL)
  np.testing.assert_array_equal(z, good)
  np.testing.assert_allclose(errors, least, rtol=1e-5)
  alone, _ = jax.jit(lambda x, guess: latents.project(linear, x, KEY, LAW, guess=guess, restarts=0))(REAL, good + 1)
  np.testing.assert_allclose(alone, good, atol=2e-4)


def test_a_start_that_leads_nowhere_is_not_chosen():
  decode = lambda z: jnp.where(z > 0, z, jnp.nan)
  z, errors = latents.project(decode, jnp.ones((6, 1)), KEY, laws.normal(1), restarts=8)
  np.testing.assert_allclose(z, 1, atol=1e-3)
  assert np.isfinite(errors).all()


def test_a_projection_starts_somewhere():
  with pytest.raises(UserError, match="0 restarts; take at least 1"):
    latents.project(linear, REAL, KEY, LAW, restarts=0)


class Shelves(nn.Module):
  """x = A z + b, and a constant for each of three labels besides: images of different labels are far apart."""

  @nn.compact
  def __call__(self, z, train, label):
    heights = self.param("heights", nn.initializers.zeros, (3,))
    return linear(z) + heights[label][:, None, None, None]


def test_a_label_is_a_part_of_the_latents():
  told = latents.of_conditional_gan(Shelves(), LAW, 3)
  heights = jnp.asarray([-20.0, 0.0, 20.0])
  state = SimpleNamespace(average=SimpleNamespace(variables={"params": {"heights": heights}}))
  z, label = laws.draw(LAW, jax.random.key(7), 4), jnp.asarray([2, 0, 1, 2])
  x = linear(z) + heights[label][:, None, None, None]
  decode = told.decoder(state)
  found, errors = jax.jit(lambda x: latents.project(decode, x, KEY, told.law, restarts=20))(x)
  np.testing.assert_array_equal(found[:, Z:].argmax(1), label)
  np.testing.assert_allclose(found[:, :Z], z, atol=1e-3)
  assert errors.max() < 1e-6
  way = told.path(found[0], found[1], 6)
  np.testing.assert_allclose(way[:, :Z], paths.around(found[0, :Z], found[1, :Z], 6), atol=1e-6)
  np.testing.assert_array_equal(way[:, Z:].argmax(1), [2, 2, 2, 0, 0, 0])


# No image sees another.


def tasks_of_images(decode):
  """{name: x [B, 8, 8, 1] -> a result for each}."""
  encoder = latents.encoder_for(Flatten(), LAW)
  variables = jax.jit(lambda key, x: encoder.init(key, x, train=False))(KEY, jnp.zeros((1, 8, 8, 1)))
  amounts = jnp.linspace(-1, 1, 3)
  found = lambda x: latents.encode(encoder, variables, x)
  return {
    "project": lambda x: latents.project(decode, x, KEY, LAW, restarts=3, steps=20),
    "encode": found,
    "interpolate": lambda x: latents.decoded(decode, latents.between(found(x), 1 - found(x), 3)),
    "edit": lambda x: latents.decoded(decode, latents.moved(found(x), jnp.ones(Z), amounts)),
  }


@pytest.mark.parametrize("name", ["project", "encode", "interpolate", "edit"])
def test_one_image_or_seven_to_the_last_bit(name):
  optimized = {"xla_backend_optimization_level": 3}  # as users have it; without, other shapes may be summed in another order
  task = jax.jit(tasks_of_images(curved())[name], compiler_options=optimized)
  x = jnp.asarray(RNG.uniform(-1, 1, size=(7, 8, 8, 1)), jnp.float32)
  seven, one, two = (jax.tree.leaves(task(x[:num])) for num in (7, 1, 2))
  for whole, alone, pair in zip(seven, one, two):
    np.testing.assert_array_equal(whole[:1], alone)
    np.testing.assert_array_equal(whole[:2], pair)
  others = jax.tree.leaves(task(jnp.concatenate([x[:1], -x[1:]])))
  for whole, changed in zip(seven, others):
    np.testing.assert_array_equal(whole[0], changed[0])
    assert (whole[1:] != changed[1:]).any()


# The encoder.


@pytest.mark.parametrize("case", ["made", "real"])
def test_a_linear_encoder_becomes_the_pseudo_inverse(case):
  """Of images in the generator's range every left inverse will do; on real ones the nearest, A^+ (x - b), is the only one."""
  real = None if case == "made" else jnp.asarray(RNG.normal(size=(400, *SHAPE)), jnp.float32)
  encoder = latents.encoder_for(Flatten(), LAW)
  learn = lambda key: latents.learn_encoder(encoder, linear, LAW, key, real=real, steps=1500, learning_rate=0.03)
  variables = jax.jit(learn)(KEY)
  z = laws.draw(LAW, jax.random.key(3), 50)
  np.testing.assert_allclose(latents.encode(encoder, variables, linear(z)), z, atol=0.02)
  apart = np.abs(latents.encode(encoder, variables, REAL) - solved(REAL)).max()
  assert apart < 0.02 if case == "real" else apart > 0.1


def test_an_encoder_of_a_curved_generator_knows_its_images():
  decode = curved()
  encoder = latents.encoder_for(FlatEncoder((64,)), LAW)
  variables = jax.jit(lambda key: latents.learn_encoder(encoder, decode, LAW, key, steps=200))(KEY)
  z = laws.draw(LAW, jax.random.key(3), 200)
  x = jax.jit(decode)(z)
  found = latents.encode(encoder, variables, x)
  assert jnp.square(found - z).mean() < 0.25  # the mean, 0, has an error of 1
  assert jnp.square(jax.jit(decode)(found) - x).mean() < 0.25 * x.var(0).mean()


# Ways and directions.


def test_ways_end_at_their_ends_and_noise_stays_noise():
  start, end = (laws.draw(laws.normal(100), jax.random.key(seed), 300) for seed in (1, 2))
  z = latents.between(start, end, 5)
  np.testing.assert_allclose(z[:, 0], start, atol=1e-5)
  np.testing.assert_allclose(z[:, -1], end, atol=1e-5)
  variance = np.square(np.asarray(z, np.float64)).mean((0, 2))
  np.testing.assert_allclose(variance, 1, atol=0.03)  # a straight line has a half in the middle
  straight = latents.between(start, end, 5, paths.straight)
  np.testing.assert_allclose(straight[:, 2], (start + end) / 2, atol=1e-5)


def test_arithmetic_on_a_linear_generator_adds_the_image_of_the_difference():
  with_it, without = (jnp.asarray(RNG.normal(size=(num, Z)), jnp.float32) for num in (30, 20))
  z, amounts = laws.draw(LAW, KEY, 3), jnp.asarray([0.0, 1.0, -0.5])
  made = latents.decoded(linear, latents.moved(z, paths.attribute(with_it, without), amounts))
  shift = A @ (np.asarray(with_it, np.float64).mean(0) - np.asarray(without, np.float64).mean(0))
  for index, amount in enumerate(amounts):
    np.testing.assert_allclose(made[:, index], linear(z) + (float(amount) * shift).reshape(1, *SHAPE), atol=1e-5)


@pytest.mark.parametrize("width", [1.0, 10.0])
def test_the_direction_of_a_linear_property_is_its_own(width):
  """That of the plane's normal, also where latents are of unequal widths and few have the property."""
  widths = np.ones(8)
  widths[0] = width
  z = laws.draw(laws.normal(8), jax.random.key(5), 2000) * jnp.asarray(widths, jnp.float32)[None]
  normal = RNG.normal(size=8) / widths
  height = np.asarray(z, np.float64) @ normal
  found = np.asarray(latents.direction(z, height > 0.8 * height.std()))
  assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
  assert found @ normal / np.linalg.norm(normal) > 0.99


@pytest.mark.parametrize("value", [True, False])
def test_a_property_of_all_or_none_has_no_direction(value):
  with pytest.raises(UserError, match=f"{6 * value} of 6 samples"):
    latents.direction(laws.draw(LAW, KEY, 6), np.full(6, value))
