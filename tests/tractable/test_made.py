"""MADE: one network, many orders, and likelihoods of all of them together."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import rows
from gm_jax.networks import masked
from gm_jax.networks.masked import MaskedMLP
from gm_jax.tractable import flat, made
from gm_jax.tractable.fvsbn import FVSBN
from tests.networks.tools import noisy
from tests.tractable import pixels

NETWORK = MaskedMLP(9, (12, 10), jnp.tanh, direct=True)
ENSEMBLE = made.ensemble(jax.random.key(3), NETWORK, 3)


@pytest.fixture(scope="module")
def variables():
  return noisy(NETWORK.init, pixels.X[:1], masked.raster(9, NETWORK.hidden), False, size=1.0)


@jax.jit
def log_prob(variables, degrees):
  """log p of all 512 images in one order."""
  return flat.pixel_log_probs(NETWORK.apply(variables, pixels.X, degrees, False), pixels.X).sum(1)


known_first = jax.jit(lambda key, known: made.known_first(key, known, NETWORK.hidden))


complete = jax.jit(functools.partial(made.complete, NETWORK))


def member(index):
  return jax.tree.map(lambda leaf: leaf[index], ENSEMBLE)


def evaluated(variables, orders):
  """nll of all 512 images by a model whose average is `variables`."""
  model = made.made(NETWORK, orders, optax.sgd(0.1), pixels.SHAPE)
  batch = {"image": pixels.PICTURES}
  state = jax.eval_shape(model.init, jax.random.key(0), batch)
  state = state._replace(average=state.average._replace(variables=variables))
  return np.asarray(model.evaluate(jax.random.key(0), state, batch)["nll"], np.float64), model, state


@pytest.mark.parametrize("orders", [made.raster(NETWORK), made.several(ENSEMBLE), made.any_order(NETWORK, ENSEMBLE)])
def test_probabilities_of_all_images_sum_to_one(variables, orders):
  np.testing.assert_allclose(np.exp(-evaluated(variables, orders)[0]).sum(), 1, rtol=1e-5)


def test_an_ensemble_is_the_mixture_of_its_orders(variables):
  each = np.stack([np.asarray(log_prob(variables, member(k)), np.float64) for k in range(3)])
  assert np.abs(each[0] - each[1]).max() > 0.1
  nll, _, _ = evaluated(variables, made.several(ENSEMBLE))
  np.testing.assert_allclose(np.exp(-nll), np.exp(each).mean(0), rtol=1e-4)


def test_samples_follow_the_law_of_the_ensemble(variables):
  nll, model, state = evaluated(variables, made.several(ENSEMBLE))
  pixels.assert_law(jax.jit(model.sample, static_argnums=2)(jax.random.key(1), state, 20_000), -nll)


def test_drawn_logits_are_those_of_the_finished_image(variables):
  degrees = known_first(jax.random.key(9), jnp.zeros((40, 9), bool))
  draw = lambda network, key: made._draw(network, key, degrees, jnp.zeros((40, 9)), jnp.zeros((40, 9), bool))
  x, logits = jax.jit(nn.apply(draw, NETWORK))(variables, jax.random.key(0))
  assert len(np.unique(x, axis=0)) > 10
  whole = jax.jit(jax.vmap(lambda x, degrees: NETWORK.apply(variables, x[None], degrees, False)[0]))(x, degrees)
  np.testing.assert_allclose(logits, whole, rtol=1e-5, atol=2e-5)


def test_a_batch_of_training_has_one_order_and_another_key_another():
  """`several`: always one of the ensemble, each of them in turn; `any_order`: never the same; the loss is that order's."""
  keys = jax.random.split(jax.random.key(0), 30)
  several, fresh = made.several(ENSEMBLE), made.any_order(NETWORK, ENSEMBLE)
  which = [next(k for k in range(3) if bool((several.draw(key).inputs == ENSEMBLE.inputs[k]).all())) for key in keys]
  assert set(which) == {0, 1, 2}
  assert len({tuple(np.asarray(fresh.draw(key).inputs)) for key in keys}) == 30

  variables = noisy(NETWORK.init, pixels.X[:1], masked.raster(9, NETWORK.hidden), False)
  model = made.made(NETWORK, several, optax.sgd(0.0), pixels.SHAPE)
  batch = {"image": pixels.PICTURES}
  state = model.init(jax.random.key(0), batch)
  state = state._replace(net=state.net._replace(params=variables["params"]))
  step = jax.jit(model.step)
  losses = [float(step(key, state, batch)[1]["loss"]) for key in keys[:6]]
  exact = [float(-log_prob(variables, member(k)).mean()) for k in range(3)]
  assert all(min(abs(loss - value) for value in exact) < 1e-3 for loss in losses)
  assert len(np.unique(np.round(losses, 2))) > 1


MASKS = {
  "one-pixel": [4],
  "border": [0, 1, 2, 3, 5, 6, 7, 8],
  "nothing": [],
  "checkerboard": [1, 3, 5, 7],
}


@pytest.mark.parametrize("name", MASKS)
def test_the_likelihood_of_a_hole_is_the_conditional_of_its_order(variables, name):
  known = np.isin(np.arange(9), MASKS[name])
  # Row 0 of everything: the same order for all 512 images.
  one = lambda key, picture: made.hole_log_prob(NETWORK, variables, key, picture[None], known.reshape(1, *pixels.SHAPE))[0]
  hole = np.asarray(jax.lax.map(lambda picture: one(jax.random.key(4), picture), pixels.PICTURES), np.float64)
  degrees = known_first(jax.random.split(jax.random.key(4))[0], jnp.asarray(known[None]))
  degrees = jax.tree.map(lambda leaf: leaf[0], degrees)
  assert set(np.asarray(masked.order_of(degrees))[: known.sum()]) == set(MASKS[name])
  joint = log_prob(variables, degrees)
  for value in (0, 137, 511):
    exact = pixels.conditional(joint, known, pixels.X[value])
    fits = exact > 0
    np.testing.assert_allclose(np.exp(hole[fits]), exact[fits], rtol=1e-3)


def test_completions_follow_the_conditional_law_and_keep_what_is_known(variables):
  """Each image has its own order, so the law is the mixture over orders; a few orders are drawn many times."""
  known = np.isin(np.arange(9), [0, 4, 8, 2])
  picture, num = pixels.PICTURES[0b110010011], 6000
  given = np.where(known.reshape(pixels.SHAPE), picture, 255 - picture)
  tile = lambda array: np.tile(np.asarray(array)[None], (num, 1, 1, 1))
  key = jax.random.key(8)
  pictures = complete(variables, key, tile(given), tile(known.reshape(pixels.SHAPE)))
  assert (np.asarray(pictures).reshape(num, 9)[:, known] == picture.reshape(9)[known]).all()
  degrees = known_first(jax.random.split(key)[0], jnp.asarray(np.tile(known, (num, 1))))
  # The law of the draws: the mean over the orders that were used of their conditionals.
  hole = np.flatnonzero((pixels.ALL.reshape(512, 9)[:, known] == np.asarray(pixels.X)[0b110010011, known][None]).all(1))
  logits = lambda degrees: flat.pixel_log_probs(NETWORK.apply(variables, pixels.X[hole], degrees, False), pixels.X[hole])
  each = jax.lax.map(lambda degrees: logits(degrees)[:, ~known].sum(1), degrees)
  np.testing.assert_allclose(np.exp(each).sum(1), 1, rtol=1e-4)
  law = np.zeros(512)
  law[hole] = np.exp(np.asarray(each, np.float64)).mean(0)
  with np.errstate(divide="ignore"):
    pixels.assert_law(pictures, np.log(law))


def test_a_completion_is_a_function_of_its_own_row(variables):
  num = 6
  pictures = pixels.PICTURES[100 : 100 + num]
  known = np.random.default_rng(0).integers(0, 2, pictures.shape).astype(bool)
  key = jax.random.key(0)
  whole = complete(variables, key, pictures, known)
  with rows.view(first=2):
    part = jax.jit(functools.partial(made.complete, NETWORK))(variables, key, pictures[2:4], known[2:4])
  np.testing.assert_array_equal(part, whole[2:4])


def test_without_a_hidden_layer_it_is_an_fvsbn():
  network, other = MaskedMLP(9, ()), FVSBN(9)
  variables = noisy(network.init, pixels.X[:1], masked.raster(9, ()), False)["params"]
  params = {"weight": variables["kernel_0"], "bias": variables["bias_0"]}
  ours = network.apply({"params": variables}, pixels.X, masked.raster(9, ()), False)
  np.testing.assert_allclose(ours, other.apply({"params": params}, pixels.X, True), rtol=1e-5, atol=1e-6)
