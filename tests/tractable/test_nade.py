"""NADE: one running activation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.tractable import flat
from gm_jax.tractable.nade import NADE, complete, nade
from tests.networks.tools import assert_equal, noisy
from tests.tractable import pixels

NETWORK = NADE(9, num_hidden=5, chunk=4)  # chunks that do not divide the image


@pytest.fixture(scope="module")
def variables():
  return noisy(NETWORK.init, pixels.X[:1], True, size=1.0)


@pytest.fixture(scope="module")
def log_probs(variables):
  return flat.pixel_log_probs(NETWORK.apply(variables, pixels.X, False), pixels.X).sum(1)


def naive(params, x):
  """Every hidden layer from the beginning, O(D^2 H): logits [B, D]."""
  hidden = lambda d: nn.sigmoid(params["bias_hidden"][None] + x[:, :d] @ params["weight_in"][:d])
  return jnp.stack([hidden(d) @ params["weight_out"][d] + params["bias_out"][d] for d in range(x.shape[1])], 1)


@pytest.mark.parametrize("chunk", [1, 3, 4, 9, 20])
def test_the_walk_equals_the_naive_form_and_so_do_its_gradients(variables, chunk):
  x = pixels.X[::11]
  walk = lambda params: NADE(9, 5, chunk=chunk).apply({"params": params}, x, True)
  np.testing.assert_allclose(walk(variables["params"]), naive(variables["params"], x), rtol=1e-5, atol=1e-5)
  loss = lambda logits: lambda params: (flat.pixel_log_probs(logits(params), x) * jnp.arange(1.0, 10)[None]).sum()
  ours = jax.grad(loss(walk))(variables["params"])
  assert_equal(ours, jax.grad(loss(lambda params: naive(params, x)))(variables["params"]), 1e-5)


def test_logits_see_the_pixels_before_and_no_others(variables):
  pixels.assert_causal(lambda x: NETWORK.apply(variables, x, True), pixels.X[3:400:150], np.arange(9))


def test_probabilities_of_all_images_sum_to_one(log_probs):
  np.testing.assert_allclose(jnp.exp(log_probs).sum(), 1, rtol=1e-5)


def test_drawn_logits_are_those_of_the_finished_image(variables):
  pixels.assert_drawn_logits(NETWORK, variables)


def test_samples_follow_the_law(variables, log_probs):
  pictures = complete(NETWORK, variables, jax.random.key(1), np.zeros((20_000, *pixels.SHAPE), np.uint8), 0)
  pixels.assert_law(pictures, log_probs)


def test_memory_of_a_gradient_is_far_below_that_of_all_hidden_layers():
  num, side, hidden = 64, 20, 256
  network = NADE(side * side, hidden, chunk=side)
  model = nade(network, optax.sgd(1e-3), (side, side, 1))
  batch = {"image": jax.ShapeDtypeStruct((num, side, side, 1), jnp.uint8)}
  state = jax.eval_shape(model.init, jax.random.key(0), batch)
  held = jax.jit(model.step).lower(jax.random.key(0), state, batch).compile().memory_analysis().temp_size_in_bytes
  all_layers = 4 * num * side**2 * hidden
  assert held < all_layers / 2, held / all_layers
