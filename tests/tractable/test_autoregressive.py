"""Exact likelihoods by enumeration, draws against the law, and fast drawing against slow."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from gm_jax import images, testing
from gm_jax.networks import image_lstm, image_transformer, pixelcnn, pixelcnnpp, pixelrnn
from gm_jax.tractable import autoregressive as ar

BINARY = (3, 3, 1)
COLOUR = (1, 2, 3)


def plain(output, channels):
  return pixelcnn.PixelCNN(output.width(channels), 4 * channels, 1), pixelcnn.cached()


def gated(output, channels):
  return pixelcnn.GatedPixelCNN(output.width(channels), channels, 4 * channels, 1), pixelcnn.gated_cached()


def blind(output, channels):
  """No channel is told of another of its own pixel: the output sees to that."""
  return pixelcnn.PixelCNN(output.width(channels), 12, 1, groups=1), pixelcnn.cached()


def gated_blind(output, channels):
  return pixelcnn.GatedPixelCNN(output.width(channels), 1, 12, 1), pixelcnn.gated_cached()


def coarse_and_fine(output, channels):
  return pixelcnnpp.PixelCNNPP(output.width(channels), 4, resolutions=2), pixelcnnpp.cached()


def row_lstm(output, channels):
  return recurrent(output, image_lstm.RowLSTM, channels)


def diagonal(output, channels):
  return recurrent(output, image_lstm.DiagonalBiLSTM, channels)


def recurrent(output, layer, channels):
  return pixelrnn.PixelRNN(output.width(channels), layer, channels, 4 * channels, 1), pixelrnn.cached()


def transformer(output, channels):
  size = dict(features=8, heads=2, layers=2, reach=1)
  return image_transformer.ImageTransformer(output.width(channels), **size), image_transformer.cached()


KINDS = {
  "plain binary": (plain, ar.bernoulli(), BINARY, 2),
  "gated binary": (gated, ar.bernoulli(), BINARY, 2),
  "plain colour": (plain, ar.categorical(3), COLOUR, 3),
  "mixture colour": (blind, ar.logistic_mixture(2, 3), COLOUR, 3),
  "gated mixture colour": (gated_blind, ar.logistic_mixture(2, 3), COLOUR, 3),
  "gated colour": (gated, ar.categorical(3), COLOUR, 3),
  "coarse and fine binary": (coarse_and_fine, ar.bernoulli(), BINARY, 2),
  "row binary": (row_lstm, ar.bernoulli(), BINARY, 2),
  "diagonal binary": (diagonal, ar.bernoulli(), BINARY, 2),
  "transformer binary": (transformer, ar.bernoulli(), BINARY, 2),
  "transformer colour": (transformer, ar.categorical(3), COLOUR, 3),
}
kinds = pytest.mark.parametrize("kind", KINDS)


@functools.cache
def made(kind):
  """(model, network, variables, output, scan): at random parameters, far from uniform."""
  make, output, shape, levels = KINDS[kind]
  network, scan = make(output, shape[-1])
  model = ar.autoregressive(network, output, optax.adam(1e-3), shape, scan=scan)
  state = jax.jit(model.init)(jax.random.key(0), {"image": images.from_levels(testing.all_states(shape, levels)[:4], levels)})
  rng = np.random.default_rng(3)
  noise = 0.15 if "mixture" in kind else 0.5  # logistics narrow exponentially
  noisy = jax.tree.map(lambda leaf: np.float32(leaf + noise * rng.normal(size=leaf.shape)), state.average.variables)
  state = state._replace(average=state.average._replace(variables=noisy))
  return model, state, network, noisy, output, scan


@functools.cache
def every(kind):
  _, _, shape, levels = KINDS[kind]
  return testing.all_states(shape, levels), np.asarray(images.from_levels(testing.all_states(shape, levels), levels))


@functools.cache
def probabilities(kind):
  """Of every image, by `evaluate`: float64 [N]."""
  model, state, *_ = made(kind)
  nll = jax.jit(model.evaluate)(jax.random.key(0), state, {"image": every(kind)[1]})["nll"]
  return np.exp(-np.asarray(nll, np.float64))


@kinds
def test_sums_to_one_over_all_images(kind):
  assert abs(probabilities(kind).sum() - 1) < 1e-4


@kinds
def test_draws_follow_the_law_however_they_are_drawn(kind):
  """Frequencies of all images against their probabilities; and whole passes give the very same images."""
  model, state, network, variables, output, scan = made(kind)
  x, pictures = every(kind)
  expected = probabilities(kind)
  num = 30_000
  drawn = np.asarray(jax.jit(model.sample, static_argnums=2)(jax.random.key(1), state, num))
  levels = KINDS[kind][3]
  code = lambda image: np.asarray(images.to_levels(image, levels)).reshape(len(image), -1) @ levels ** np.arange(image[0].size)
  seen = np.bincount(code(drawn), minlength=len(x))[code(pictures)]
  likely = num * expected > 5
  rest = seen[~likely].sum(), num * expected[~likely].sum()
  chi_square = ((seen - num * expected)[likely] ** 2 / (num * expected[likely])).sum()
  chi_square += (rest[0] - rest[1]) ** 2 / max(rest[1], 1)
  degrees = likely.sum()
  assert abs(chi_square - degrees) < 5 * math.sqrt(2 * degrees)

  slow = ar.autoregressive(network, output, optax.adam(1e-3), KINDS[kind][2])
  same = np.asarray(jax.jit(slow.sample, static_argnums=2)(jax.random.key(1), state, 500)) == drawn[:500]
  assert same.all((1, 2, 3)).mean() > 0.99  # float ties aside


@kinds
def test_a_completion_keeps_what_is_known_and_draws_the_rest_given_it(kind):
  """All images that begin alike: frequencies of their completions against conditional probabilities by enumeration."""
  model, state, network, variables, output, scan = made(kind)
  x, pictures = every(kind)
  num_known = 1 if kind.endswith("colour") else 6
  probs = probabilities(kind)
  given = pictures[np.argsort(probs)[-2]]  # a likely one, so that all that begin so are
  known = np.arange(given[..., 0].size).reshape(given.shape[:2]) < num_known
  alike = (pictures == given)[:, known].all((1, 2))
  num = 20_000
  batch = jnp.where(known[None, ..., None], given[None], 77).astype(jnp.uint8).repeat(num, 0)  # 77 is not looked at
  complete = jax.jit(lambda batch: ar.complete(network, variables, output, scan, jax.random.key(2), batch, num_known))
  drawn = np.asarray(complete(batch))
  assert (drawn[:, known] == given[known]).all()
  for image, p in zip(pictures[alike], probs[alike] / probs[alike].sum()):
    share = (drawn == image).all((1, 2, 3)).mean()
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / num) + 1e-3

  hole = jax.jit(lambda rows: ar.log_probs(network, variables, output, rows))(pictures[alike])
  hole = np.asarray(hole)[:, ~known].sum(1)
  np.testing.assert_allclose(hole, np.log(probs[alike] / probs[alike].sum()), rtol=1e-4, atol=1e-4)


def test_logistic_mixtures_are_the_formula():
  """A pixel of three channels by hand: one component at a time, means moved by the true values of earlier channels."""
  rng = np.random.default_rng(0)
  components, levels = 3, 256
  output = ar.logistic_mixture(components, levels)
  outputs = rng.normal(size=(4, 1, 1, output.width(3))).astype(np.float32)
  pixel = np.array([[0, 255, 17], [255, 0, 0], [128, 127, 1], [254, 3, 255]], np.uint8)
  got = output.log_prob(outputs, pixel.reshape(4, 1, 1, 3))[:, 0, 0]
  for row in range(4):
    logits, *rest = outputs[row, 0, 0].astype(np.float64).reshape(-1, components)
    means, log_scales, moves = rest[:3], rest[3:6], np.tanh(rest[6:]).reshape(3, 3, components)
    x, total = pixel[row] / 127.5 - 1, 0
    for k in range(components):
      p = np.exp(logits[k]) / np.exp(logits).sum()
      for c in range(3):
        mean = means[c][k] + sum(moves[c, b, k] * x[b] for b in range(c))
        law = stats.logistic(mean, np.exp(log_scales[c][k]))
        above, below = pixel[row, c] == 255, pixel[row, c] == 0
        p *= (1.0 if above else law.cdf(x[c] + 1 / 255)) - (0.0 if below else law.cdf(x[c] - 1 / 255))
      total += p
    np.testing.assert_allclose(got[row], np.log(total), rtol=2e-4)


def test_logistic_mixtures_go_level_by_level_to_the_same_place():
  """The product of the conditionals, each of which sums to one over 256 levels, is the probability of the pixel."""
  output = ar.logistic_mixture(3)
  outputs = np.random.default_rng(1).normal(size=(5, output.width(3))).astype(np.float32)
  pixel = np.random.default_rng(2).integers(0, 256, (5, 3)).astype(np.uint8)
  whole = output.log_prob(outputs[:, None, None], pixel[:, None, None])[:, 0, 0]
  parts = [output.conditional(outputs, jnp.asarray(pixel), channel) for channel in range(3)]
  for part in parts:
    np.testing.assert_allclose(jnp.exp(part).sum(1), 1, rtol=1e-4)
  np.testing.assert_allclose(sum(part[np.arange(5), pixel[:, c]] for c, part in enumerate(parts)), whole, rtol=1e-4)


def test_a_low_temperature_draws_the_likeliest_pixel_each_time():
  _, _, network, variables, output, scan = made("gated binary")
  blank = jnp.zeros((4, *BINARY), jnp.uint8)
  cold = jax.jit(lambda blank: ar.complete(network, variables, output, scan, jax.random.key(0), blank, 0, None, 1e-4))(blank)
  outputs = network.apply(variables, output.read(cold), train=False)
  np.testing.assert_array_equal(cold > 0, outputs > 0)
  assert (cold == cold[:1]).all()


@pytest.mark.parametrize("name", ["plain", "gated"])
def test_labels_matter_where_the_network_is_conditional(name):
  network, scan = {
    "plain": (pixelcnn.PixelCNN(1, 4, 1, num_classes=2), pixelcnn.cached()),
    "gated": (pixelcnn.GatedPixelCNN(1, 1, 4, 1, num_classes=2), pixelcnn.gated_cached()),
  }[name]
  model = ar.autoregressive(network, ar.bernoulli(), optax.adam(3e-2), BINARY, scan=scan, num_classes=2, decay=0.9)
  image = np.zeros((16, *BINARY), np.uint8)
  image[8:] = 255
  batch = {"image": image, "label": np.arange(16) // 8}
  state, step = jax.jit(model.init)(jax.random.key(0), batch), jax.jit(model.step)
  for index in range(150):
    state, _ = step(jax.random.key(index), state, batch)
  evaluate = jax.jit(model.evaluate)
  assert evaluate(jax.random.key(0), state, batch)["nll"].max() < 0.5
  assert evaluate(jax.random.key(0), state, {**batch, "label": 1 - batch["label"]})["nll"].min() > 2
  sample = jax.jit(model.sample, static_argnums=2)
  drawn = sample(jax.random.key(1), state, 10, jnp.arange(10) % 2)
  assert ((drawn > 0).mean((1, 2, 3)).round() == jnp.arange(10) % 2).mean() > 0.8
  of_all = (sample(jax.random.key(1), state, 200) > 0).mean((1, 2, 3)).round()  # without labels: of either class
  assert 0.3 < of_all.mean() < 0.7
