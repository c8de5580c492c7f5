"""What a network is asked for: every kind in every gauge is there and back, at any noise, in float32 against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.score import noise, parameterizations, weights
from gm_jax.score.noise import alpha, sigma
from gm_jax.score.parameterizations import level_number

GAUGES = {"VP": noise.variance_preserving, "VE": noise.variance_exploding, "RF": noise.rectified_flow}
KINDS = {
  "noise": parameterizations.noise,
  "image": parameterizations.image,
  "velocity": parameterizations.velocity,
  "flow": parameterizations.flow,
  "score": parameterizations.score,
}
ALL = {f"{kind}, {name}": make(gauge) for kind, make in KINDS.items() for name, gauge in GAUGES.items()}
ALL |= {"karras": parameterizations.karras(), "karras 2": parameterizations.karras(2.0)}
each = pytest.mark.parametrize("name", ALL)
LEVELS = np.linspace(-20, 20, 41)
rng = np.random.default_rng(0)
IMAGE, NOISE = rng.normal(size=(2, len(LEVELS), 4))
NOISY = alpha(LEVELS)[:, None] * IMAGE + sigma(LEVELS)[:, None] * NOISE


def truth(name):
  """The target as the papers write it, in float64."""
  a, s = alpha(LEVELS)[:, None], sigma(LEVELS)[:, None]
  if name.startswith("karras"):
    std, level = 2.0 if name == "karras 2" else 0.5, s / a
    y = NOISY / a  # their equation 8: (y_0 - c_skip (y_0 + n)) / c_out
    return (IMAGE - std**2 / (level**2 + std**2) * y) * np.sqrt(level**2 + std**2) / (level * std)
  kind = name.split(",")[0]
  return {"noise": NOISE, "image": IMAGE, "velocity": a * NOISE - s * IMAGE, "flow": NOISE - IMAGE, "score": -NOISE}[kind]


@each
def test_there_and_back(name):
  """float32 on the device: the target is the paper's, and D of x and the target is the image again, to the digits of x."""
  chosen = ALL[name]
  levels, image, eps = (jnp.asarray(array, jnp.float32) for array in (LEVELS, IMAGE, NOISE))
  target = jax.jit(chosen.target)(image, eps, levels)
  np.testing.assert_allclose(target, truth(name), rtol=1e-4, atol=1e-5)
  again = jax.jit(chosen.image)(noise.diffuse(image, levels, eps), target, levels)
  # Where skip and out are large, x's last digit is the image's first: 1 / alpha is 22026 at -20.
  tolerance = 1e-6 * (np.abs(chosen.skip(levels)) + np.abs(chosen.out(levels)) + 1)
  assert np.all(np.abs(again - image) <= 4 * tolerance[:, None])


@each
def test_an_error_of_the_output_is_out_times_that_of_the_image(name):
  """out^2 |F - target|^2 = |D - x_0|^2, whatever F says."""
  chosen, wrong = ALL[name], jnp.asarray(rng.normal(size=IMAGE.shape), jnp.float32)
  levels, image, eps = (jnp.asarray(array, jnp.float32) for array in (LEVELS, IMAGE, NOISE))
  output = chosen.target(image, eps, levels) + wrong
  error = np.asarray(chosen.image(noise.diffuse(image, levels, eps), output, levels) - image)
  expected = np.asarray(chosen.out(levels))[:, None] * np.asarray(wrong)
  scale = np.abs(np.asarray(chosen.skip(levels)) + 1)[:, None] + np.abs(expected)
  assert np.all(np.abs(error - expected) < 1e-5 * scale)


@each
def test_inputs_are_in_the_networks_unit(name):
  """inp x is what the paper's network sees."""
  chosen = ALL[name]
  a, s = alpha(LEVELS), sigma(LEVELS)
  if name.startswith("karras"):
    std = 2.0 if name == "karras 2" else 0.5
    expected = 1 / np.sqrt((s / a) ** 2 + std**2) / a  # c_in of y = x / alpha
  else:
    expected = {"VP": np.ones_like(a), "VE": 1 / a, "RF": 1 / (a + s)}[name.split(", ")[1]]
  np.testing.assert_allclose(chosen.inp(jnp.asarray(LEVELS, jnp.float32)), expected, rtol=2e-5)


@pytest.mark.parametrize("std", [0.5, 2.0])
def test_karras_has_unit_inputs_targets_and_loss(std):
  """Data N(0, std^2): F sees and wants variance 1, the best F is 0, and its weighted loss is 1 at every level."""
  chosen, levels = parameterizations.karras(std), jnp.asarray(LEVELS, jnp.float32)
  a, s = alpha(LEVELS), sigma(LEVELS)
  one = np.ones_like(LEVELS)
  np.testing.assert_allclose(chosen.inp(levels) ** 2 * ((a * std) ** 2 + s**2), one, rtol=1e-5)
  target = np.asarray(chosen.of_image(levels)) ** 2 * std**2 + np.asarray(chosen.of_noise(levels)) ** 2
  np.testing.assert_allclose(target, one, rtol=1e-5)
  # Of F and x the covariance is nought: nothing linear is left to guess.
  covariance = chosen.of_image(levels) * a * std**2 + chosen.of_noise(levels) * s
  np.testing.assert_allclose(covariance, 0 * one, atol=1e-5)
  np.testing.assert_allclose(weights.karras(std)(levels) * chosen.out(levels) ** 2 * target, one, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in ALL if ALL[name].bottomless and "VE" not in name])
def test_nothing_but_noise_and_the_image_itself_are_finite(name):
  """Where `bottomless` says so, D is defined at -inf, and everything is at +inf."""
  ends, image = jnp.array([-jnp.inf, jnp.inf]), jnp.full((2, 3), 0.7)
  eps = jnp.full((2, 3), -0.4)
  chosen = ALL[name]
  x = noise.diffuse(image, ends, eps)
  np.testing.assert_array_equal(x, jnp.stack([eps[0], image[0]]))
  target = chosen.target(image, eps, ends)
  assert np.isfinite(target).all()
  assert np.isfinite(noise.like(chosen.inp(ends), x) * x).all()
  np.testing.assert_allclose(chosen.image(x, target, ends), image, rtol=1e-6)


def test_bottomless_is_said_of_the_right_kinds():
  """What divides by alpha is not: a guess of the noise tells nothing of the image where x is all noise."""
  for name, chosen in ALL.items():
    finite = np.isfinite([chosen.skip(jnp.float32(-jnp.inf)), chosen.out(jnp.float32(-jnp.inf))]).all()
    assert chosen.bottomless == finite, name


def test_level_number_tells_levels_apart():
  """Evenly from 0 at +20 to 1000 at -20, and no further."""
  levels = jnp.array([jnp.inf, 20.0, 0.0, -20.0, -jnp.inf])
  np.testing.assert_allclose(level_number(levels), [0, 0, 500, 1000, 1000])
  near = level_number(jnp.linspace(-15, 15, 30001))
  assert np.all(np.diff(near) < 0)
