"""FVSBN: logistic regressions in a row."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.tractable import flat
from gm_jax.tractable import fvsbn as module
from gm_jax.tractable.fvsbn import FVSBN, complete, fvsbn
from tests.networks.tools import noisy
from tests.tractable import pixels

NETWORK = FVSBN(9)


@pytest.fixture(scope="module")
def variables():
  return noisy(NETWORK.init, pixels.X[:1], True, size=1.0)


@pytest.fixture(scope="module")
def log_probs(variables):
  return flat.pixel_log_probs(NETWORK.apply(variables, pixels.X, False), pixels.X).sum(1)


def test_logits_see_the_pixels_before_and_no_others(variables):
  pixels.assert_causal(lambda x: NETWORK.apply(variables, x, True), pixels.X[3:400:150], np.arange(9))


def test_probabilities_of_all_images_sum_to_one(log_probs):
  np.testing.assert_allclose(jnp.exp(log_probs).sum(), 1, rtol=1e-5)


def test_each_pixel_is_a_logistic_regression_on_those_before(variables):
  weight, bias = np.asarray(variables["params"]["weight"]), np.asarray(variables["params"]["bias"])
  x = np.asarray(pixels.X[300])
  naive = [bias[d] + sum(weight[j, d] * x[j] for j in range(d)) for d in range(9)]
  np.testing.assert_allclose(NETWORK.apply(variables, pixels.X[300:301], False)[0], naive, rtol=1e-5, atol=1e-6)


def test_drawn_logits_are_those_of_the_finished_image(variables):
  pixels.assert_drawn_logits(NETWORK, variables)


def test_samples_follow_the_law(variables, log_probs):
  pictures = complete(NETWORK, variables, jax.random.key(1), np.zeros((20_000, *pixels.SHAPE), np.uint8), 0)
  pixels.assert_law(pictures, log_probs)


def test_a_prefix_is_completed_by_the_conditional_law(variables, log_probs):
  known = np.arange(9) < 4
  start = pixels.PICTURES[0b101100110]
  behind = 255 - start  # what lies behind the prefix is not looked at
  given = np.where(known.reshape(pixels.SHAPE), start, behind)
  pictures = complete(NETWORK, variables, jax.random.key(2), np.tile(given[None], (10_000, 1, 1, 1)), 4)
  exact = pixels.conditional(log_probs, known, pixels.X[0b101100110])
  with np.errstate(divide="ignore"):
    pixels.assert_law(pictures, np.log(exact))
  hole = module.log_probs(NETWORK, variables, pixels.PICTURES).reshape(512, 9)[:, ~known].sum(1)
  fits = exact > 0
  np.testing.assert_allclose(np.exp(hole[fits]), exact[fits], rtol=1e-4)


def test_evaluate_is_minus_the_log_probability_of_the_average():
  model = fvsbn(optax.sgd(0.5), pixels.SHAPE)
  batch = {"image": pixels.PICTURES[::7]}
  state = model.init(jax.random.key(0), batch)
  for step in range(3):
    state, _ = model.step(jax.random.key(step), state, batch)
  nll = model.evaluate(jax.random.key(0), state, {"image": pixels.PICTURES})["nll"]
  logits = NETWORK.apply(state.average.variables, pixels.X, False)
  p = np.asarray(nn.sigmoid(logits), np.float64)
  x = np.asarray(pixels.X)
  np.testing.assert_allclose(nll, -np.log(np.where(x > 0, p, 1 - p)).sum(1), rtol=1e-4)
  np.testing.assert_allclose(np.exp(-np.asarray(nll)).sum(), 1, rtol=1e-5)


def test_training_finds_the_law_it_can_represent(variables, log_probs):
  """The objective is concave: ascent on the whole law ends at the network that drew it."""
  weights = np.exp(np.asarray(log_probs, np.float64))
  counts = np.random.default_rng(0).multinomial(4096, weights)
  batch = {"image": np.repeat(pixels.PICTURES, counts, 0)}
  model = fvsbn(optax.adam(0.1), pixels.SHAPE, decay=0.0)
  state, step = jax.jit(model.init)(jax.random.key(0), batch), jax.jit(model.step)
  for index in range(150):
    state, _ = step(jax.random.key(index), state, batch)
  found = -model.evaluate(jax.random.key(0), state, {"image": pixels.PICTURES})["nll"]
  divergence = (weights * (np.asarray(log_probs) - np.asarray(found))).sum()
  # With P parameters and N examples, twice N times the divergence is chi-square with P degrees of freedom.
  assert 0 <= divergence < 75 / (2 * 4096), divergence
