"""Guidance against Gaussians, for which every guess is affine and every product of densities is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.unet import UNet
from gm_jax.score import diffusion, grids, guidance, noise, parameterizations, solvers
from tests.networks.tools import noisy

CLASSES, DIMS = 3, 4
RNG = np.random.default_rng(0)
MEANS = jnp.asarray(RNG.normal(size=(CLASSES + 1, DIMS)), jnp.float32)  # the last: without a label
STDS = jnp.asarray(RNG.uniform(0.2, 1.5, (CLASSES + 1, DIMS)), jnp.float32)
X = jnp.asarray(RNG.normal(size=(6, DIMS)), jnp.float32)
LABEL = jnp.asarray([0, 1, 2, 2, 1, 0])
LEVELS = (-8.0, -2.0, 0.0, 3.0, 9.0)
each_level = pytest.mark.parametrize("log_snr", LEVELS)

PARAMETERIZATIONS = {
  "noise": parameterizations.noise(),
  "image": parameterizations.image(),
  "velocity": parameterizations.velocity(),
  "flow": parameterizations.flow(),
  "score": parameterizations.score(),
  "karras": parameterizations.karras(0.7),
}


def gaussian(x, log_snr, label=None):
  """The best guess for N(MEANS[label], STDS[label]^2)."""
  label = jnp.full(len(x), CLASSES) if label is None else label
  mean, variance = MEANS[label], STDS[label] ** 2
  a, s = (noise.like(function(jnp.asarray(log_snr, jnp.float32)), x) for function in (noise.alpha, noise.sigma))
  return mean + a * variance / (a**2 * variance + s**2) * (x - a * mean)


def counted(denoise):
  """The denoiser, and how often it was called, with which labels."""
  calls = []

  def spy(x, log_snr, label=None):
    calls.append(label)
    return denoise(x, log_snr, label)

  return spy, calls


# Without a classifier.


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@each_level
def test_guesses_of_anything_are_guided_to_the_same_image(name, log_snr):
  chosen, level = PARAMETERIZATIONS[name], jnp.float32(log_snr)
  at = lambda function: noise.like(function(level), X)
  output = lambda guess: (guess - at(chosen.skip) * X) / at(chosen.out)  # what the network must have said
  without, toward = output(gaussian(X, level)), output(gaussian(X, level, LABEL))
  expected = chosen.image(X, without + 2.5 * (toward - without), level)
  found = guidance.classifier_free(2.5, CLASSES)(gaussian)(X, level, LABEL)
  size = float(jnp.abs(at(chosen.out)).max() * jnp.abs(toward).max()) + 1
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * size)


def test_scale_1_is_the_conditional_model_and_0_the_unconditional_one_at_one_evaluation():
  for scale, label in ((1, LABEL), (0, None)):
    spy, calls = counted(gaussian)
    guided = guidance.classifier_free(scale, CLASSES)(spy)(X, 0.5, LABEL)
    np.testing.assert_array_equal(guided, gaussian(X, 0.5, label))
    assert len(calls) == 1
  for label, evaluations in ((LABEL, 2), (None, 1)):
    spy, calls = counted(gaussian)
    found = guidance.classifier_free(3.0, CLASSES)(spy)(X, 0.5, label)
    assert len(calls) == evaluations
  np.testing.assert_array_equal(found, gaussian(X, 0.5))


def test_the_label_that_means_none_is_the_last_row_and_hides_the_label():
  network = UNet((4,), blocks=1, attention=(), heads=1, groups=1, num_classes=CLASSES)
  module = diffusion.Denoiser(network, parameterizations.velocity(), CLASSES)
  x = jnp.asarray(RNG.normal(size=(6, 4, 4, 1)), jnp.float32)
  variables = noisy(module.init, x, 0.5, LABEL)
  denoise = jax.jit(lambda x, log_snr, label=None: module.apply(variables, x, log_snr, label))
  conditional = denoise(x, 0.5, LABEL)
  without = guidance.classifier_free(0, CLASSES)(denoise)
  np.testing.assert_array_equal(without(x, 0.5, LABEL), without(x, 0.5, 2 - LABEL))
  np.testing.assert_allclose(without(x, 0.5, LABEL), denoise(x, 0.5, None), atol=1e-6)
  for label in range(CLASSES):  # no class is mistaken for none
    assert np.abs(denoise(x, 0.5, jnp.full(6, label)) - denoise(x, 0.5, None)).max() > 1e-3
  assert np.abs(conditional - denoise(x, 0.5, 2 - LABEL)).max() > 1e-3


@pytest.mark.parametrize("make", [lambda steps: grids.karras(steps), lambda steps: grids.in_log_snr(12.0, -9.0, steps)])
@pytest.mark.parametrize("num_steps", [7, 40])
def test_an_interval_is_of_log_snr_whatever_the_grid(make, num_steps):
  low, high = -3.0, 2.0
  guided = guidance.classifier_free(3.0, CLASSES, (low, high))(gaussian)
  everywhere = guidance.classifier_free(3.0, CLASSES)(gaussian)
  visited = make(num_steps)[:-1].astype(np.float32)
  some = (visited >= low) & (visited <= high)
  assert some.any()
  assert not some.all()
  found = jax.jit(lambda level: guided(X, level, LABEL))
  for level, inside in zip(visited, some):
    expected = (everywhere if inside else gaussian)(X, level, LABEL)
    np.testing.assert_allclose(found(level), expected, rtol=1e-5, atol=1e-5)
  own = jnp.resize(jnp.asarray([-4.0, 0.0, 4.0]), 6)  # a level for each
  expected = jnp.where((own == 0.0)[:, None], everywhere(X, own, LABEL), gaussian(X, own, LABEL))
  np.testing.assert_allclose(guided(X, own, LABEL), expected, rtol=1e-6)


def test_outside_the_interval_the_unconditional_model_is_not_asked():
  """By what would be NaN if it were used, inside one compiled loop."""
  asked = []

  def denoise(x, log_snr, label=None):
    jax.debug.callback(lambda label: asked.append(int(label)), label[0])
    return gaussian(x, log_snr, label)

  method = solvers.DDIM()(grids.in_log_snr(8.0, -8.0, 8))
  sampler = diffusion.Sampler(method, (guidance.classifier_free(2.0, CLASSES, (-4.0, 4.0)),))
  jax.block_until_ready(jax.jit(lambda key: sampler(denoise, key, 2, (DIMS,), LABEL[1:3]))(jax.random.key(0)))
  jax.effects_barrier()
  inside = int(((method.log_snr >= -4) & (method.log_snr <= 4)).sum())
  assert (asked.count(1), asked.count(CLASSES)) == (8, inside)
  assert 0 < inside < 8


def test_brought_back_to_the_contrast_of_the_conditional_model():
  guided = lambda rescale: guidance.classifier_free(6.0, CLASSES, rescale=rescale)(gaussian)(X, 1.0, LABEL)
  std = lambda x: np.asarray(x, np.float64).std(1)
  plain, whole = guided(0.0), guided(1.0)
  np.testing.assert_array_equal(plain, guidance.classifier_free(6.0, CLASSES)(gaussian)(X, 1.0, LABEL))
  np.testing.assert_allclose(std(whole), std(gaussian(X, 1.0, LABEL)), rtol=1e-5)
  np.testing.assert_allclose(guided(0.7), 0.7 * np.asarray(whole) + 0.3 * np.asarray(plain), rtol=1e-5, atol=1e-6)
  assert np.abs(std(plain) / std(whole) - 1).min() > 0.05
  same = guidance.classifier_free(1.0, CLASSES, rescale=0.7)(gaussian)
  np.testing.assert_array_equal(same(X, 1.0, LABEL), gaussian(X, 1.0, LABEL))


def test_away_from_a_worse_model():
  """On Gaussians that share a mean and differ in width, guiding is linear; the worse one is asked for the same label."""
  worse, calls = counted(lambda x, log_snr, label=None: 0.5 * gaussian(x, log_snr, label))
  guided = guidance.autoguidance(worse, 1.5)(gaussian)(X, 0.0, LABEL)
  np.testing.assert_allclose(guided, 1.25 * gaussian(X, 0.0, LABEL), rtol=1e-5)
  assert calls[0] is LABEL
  np.testing.assert_array_equal(guidance.autoguidance(worse, 1)(gaussian)(X, 0.0, LABEL), gaussian(X, 0.0, LABEL))
  assert len(calls) == 1


# By a classifier.


def log_density(x, log_snr, label):
  """Of noisy images of a class, [B]."""
  a, s = noise.alpha(log_snr), noise.sigma(log_snr)
  variance = a**2 * STDS[label] ** 2 + s**2
  return (-((x - a * MEANS[label]) ** 2) / (2 * variance) - jnp.log(variance) / 2).sum(1)


def of_classes(x, log_snr):
  """log p(class | x) for classes alike, [B, CLASSES]."""
  each = [log_density(x, log_snr, jnp.full(len(x), label)) for label in range(CLASSES)]
  return jax.nn.log_softmax(jnp.stack(each, 1), axis=1)


def mixture(x, log_snr, label=None):
  """The best guess for the mixture of the classes."""
  del label
  share = jnp.exp(of_classes(x, log_snr))
  return sum(share[:, label, None] * gaussian(x, log_snr, jnp.full(len(x), label)) for label in range(CLASSES))


@each_level
def test_a_right_classifier_makes_an_unconditional_model_conditional(log_snr):
  right = lambda x, log_snr, label: jnp.take_along_axis(of_classes(x, log_snr), label[:, None], 1)[:, 0]
  level = jnp.float32(log_snr)
  x = noise.diffuse(MEANS[LABEL], level, X)
  found = jax.jit(guidance.classifier(right)(mixture))(x, level, LABEL)
  np.testing.assert_allclose(found, gaussian(x, level, LABEL), rtol=0, atol=3e-4)
  if log_snr < 3:
    assert np.abs(found - mixture(x, level)).max() > 0.05


@each_level
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_any_scale_is_the_product_of_gaussians(log_snr, scale):
  """y is x_0 with noise: guided so much, x_0 is as likely as if y had been seen `scale` times, where x itself tells nothing."""
  y, variance = jnp.float32([1.0, -2.0, 0.5, 0.0]), 0.6
  level = jnp.float32(log_snr)
  unlabelled = lambda x, log_snr, label=None: gaussian(x, log_snr)
  s2 = STDS[CLASSES] ** 2

  def log_prob(x, log_snr, label):
    unknown = s2 * noise.sigma(log_snr) ** 2 / (noise.alpha(log_snr) ** 2 * s2 + noise.sigma(log_snr) ** 2)
    return (-((y[None] - unlabelled(x, log_snr)) ** 2) / (2 * (variance + unknown[None]))).sum(1)

  found = guidance.classifier(log_prob, scale)(unlabelled)(X, level, None)
  s2, mean, x, y = (np.asarray(value, np.float64) for value in (s2, MEANS[CLASSES], X, y))
  snr, a = np.exp(log_snr), noise.alpha(np.float64(log_snr))
  precision = 1 / s2 + snr  # of x_0 given x
  centre = (mean / s2 + snr * x / a) / precision
  weight = 1 / (variance + 1 / precision)  # of y given x
  np.testing.assert_allclose(found, centre + scale * weight / precision * (y - centre), rtol=0, atol=2e-3 / min(1, a))
  if scale == 1:
    np.testing.assert_allclose(found, (precision * centre + y / variance) / (precision + 1 / variance), atol=2e-3 / min(1, a))


def test_a_classifier_says_nothing_where_nothing_is_left_of_the_image():
  slope = lambda x, log_snr, label: noise.alpha(log_snr) * x.sum(1)
  found = guidance.classifier(slope, 5.0)(gaussian)(X, -np.inf, LABEL)
  np.testing.assert_array_equal(found, gaussian(X, -np.inf, LABEL))


# What guesses are made to be.


def test_a_threshold_cuts_and_divides_only_what_is_too_bright():
  guess = jnp.asarray([np.linspace(-1, 1, 9), np.linspace(-3, 2, 9), np.linspace(-0.2, 0.1, 9)], jnp.float32)
  found = np.asarray(guidance.dynamic_threshold(75.0)(lambda *_: guess)(None, None))
  np.testing.assert_array_equal(found[[0, 2]], guess[jnp.asarray([0, 2])])
  reach = np.percentile(np.abs(guess[1]), 75.0)
  assert reach > 1
  np.testing.assert_allclose(found[1], np.clip(guess[1], -reach, reach) / reach, rtol=1e-6)
  np.testing.assert_array_equal(guidance.clipped()(lambda *_: guess)(None, None), np.clip(guess, -1, 1))


def test_replaced_pixels_and_the_noise_that_follows():
  """The last step ends on the guess: what was replaced is exactly there; the rest is drawn as without it, pixel by pixel."""
  known = jnp.asarray(RNG.random((2, DIMS)) < 0.5)
  x_0 = jnp.asarray(RNG.normal(size=(2, DIMS)), jnp.float32)
  method = solvers.Ancestral()(grids.in_log_snr(9.0, -9.0, 20))
  draw = lambda *transforms: diffusion.Sampler(method, transforms)(gaussian, jax.random.key(3), 2, (DIMS,))
  found, free = draw(guidance.replacement(known, x_0)), draw()
  np.testing.assert_array_equal(found[known], x_0[known])
  np.testing.assert_array_equal(found[~known], free[~known])


def test_a_consistent_guess_is_the_nearest_that_was_measured():
  mean = lambda x: x.reshape(len(x), 2, 2).mean(2)
  back = lambda y: jnp.repeat(y, 2, 1)
  wanted = jnp.asarray(RNG.normal(size=(6, 2)), jnp.float32)
  found = guidance.consistent(mean, back, wanted)(gaussian)(X, 0.0, LABEL)
  np.testing.assert_allclose(mean(found), wanted, atol=1e-6)
  moved = (found - gaussian(X, 0.0, LABEL)).reshape(6, 2, 2)
  np.testing.assert_allclose(moved[..., 0], moved[..., 1], atol=1e-6)  # along what is measured, and no further


def test_any_order_will_do():
  """Every transform takes every other's denoiser; a projection that comes last has the last word."""
  unlike = lambda x, log_snr, label=None: 0.5 * gaussian(x, log_snr, label)
  transforms = (
    guidance.classifier_free(3.0, CLASSES, (-1.0, 9.0), rescale=0.5),
    guidance.autoguidance(unlike, 2.0),
    guidance.classifier(log_density, 0.1),
    guidance.dynamic_threshold(),
  )
  method = solvers.DDIM()(grids.in_log_snr(4.0, -4.0, 3))
  found = set()
  for order in (transforms, transforms[::-1], transforms[2:] + transforms[:2]):
    sampler = diffusion.Sampler(method, (*order, guidance.clipped(-0.5, 0.5)))
    x_0 = jax.jit(lambda key, sampler=sampler: sampler(gaussian, key, 2, (DIMS,), LABEL[:2]))(jax.random.key(0))
    assert np.abs(x_0).max() <= 0.5
    found.add(np.asarray(x_0).round(4).tobytes())
  assert len(found) > 1
