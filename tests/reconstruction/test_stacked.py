"""Layers are trained one at a time, exactly; then all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import data, images
from gm_jax.reconstruction import corruptions, stacked

SHAPE, STAGE = (8, 8, 1), 5
STACK = stacked.Stack(64, (12, 6, 3))
BATCH = {"image": data.digits("train").arrays["image"][:32]}


def model(**options):
  return stacked.stacked(STACK, optax.adam(1e-2), SHAPE, stage=STAGE, **options)


@pytest.fixture(scope="module")
def states():
  """After every step of three stages and some fine-tuning."""
  state, step = jax.jit(model().init)(jax.random.key(0), BATCH), jax.jit(model().step)
  states = [state]
  for index in range(4 * STAGE):
    states.append(step(jax.random.key(index), states[-1], BATCH)[0])
  return states


def same(a, b):
  return all((np.asarray(x) == np.asarray(y)).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def test_a_stage_moves_its_own_layer_and_leaves_every_other_bit(states):
  for index, (before, after) in enumerate(zip(states, states[1:])):
    stage = index // STAGE
    for layer in range(3):
      moves = stage == 3 or layer == stage
      assert same(before.params[layer], after.params[layer]) != moves, (index, layer)
      assert same(before.opt_states[layer], after.opt_states[layer]) != (layer == stage), (index, layer)
    assert same(before.opt_states[3], after.opt_states[3]) != (stage == 3)


def test_a_stage_is_a_shallow_autoencoder_of_the_codes_below(states):
  """Stage two by hand: the codes of layer one, squared error of what comes back through the activation."""
  state = states[2 * STAGE]
  x = np.asarray(images.to_unit(BATCH["image"])).reshape(32, 64)

  def loss(params):
    h = x
    for below in state.params[:2]:
      h = jax.nn.sigmoid(h @ below["up"]["kernel"] + below["up"]["bias"][None])
    z = jax.nn.sigmoid(h @ params["up"]["kernel"] + params["up"]["bias"][None])
    back = jax.nn.sigmoid(z @ params["down"]["kernel"] + params["down"]["bias"][None])
    return jnp.square(back - h).mean()

  optimizer = optax.adam(1e-2)
  updates, _ = optimizer.update(jax.grad(loss)(state.params[2]), optimizer.init(state.params[2]))
  expected = optax.apply_updates(state.params[2], updates)
  for ours, theirs in zip(jax.tree.leaves(states[2 * STAGE + 1].params[2]), jax.tree.leaves(expected)):
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_the_reconstruction_goes_up_through_all_layers_and_down_again(states):
  params = states[-1].params
  h = np.asarray(images.to_unit(BATCH["image"]), np.float64).reshape(32, 64)
  sigmoid = lambda a: 1 / (1 + np.exp(-a))
  x = h
  for layer in params:
    h = sigmoid(h @ np.asarray(layer["up"]["kernel"]) + np.asarray(layer["up"]["bias"]))
  np.testing.assert_allclose(stacked.encode(STACK, states[-1], BATCH["image"]), h, atol=1e-5)
  for layer in params[:0:-1]:
    h = sigmoid(h @ np.asarray(layer["down"]["kernel"]) + np.asarray(layer["down"]["bias"]))
  logits = h @ np.asarray(params[0]["down"]["kernel"]) + np.asarray(params[0]["down"]["bias"])
  cross_entropy = np.logaddexp(0, logits) - x * logits
  scores = model().evaluate(jax.random.key(0), states[-1], BATCH)["reconstruction"]
  np.testing.assert_allclose(scores, cross_entropy.mean(1), rtol=1e-4)


def test_fine_tuning_goes_on_from_the_layers():
  """With time for it, the whole is better after fine-tuning than before, and better than one that never learnt layers."""
  long = stacked.stacked(STACK, optax.adam(1e-2), SHAPE, stage=100, corrupt=corruptions.masking(0.1))
  state, step = jax.jit(long.init)(jax.random.key(0), BATCH), jax.jit(long.step)
  score = lambda state: float(long.evaluate(jax.random.key(0), state, BATCH)["reconstruction"].mean())
  scores = [score(state)]
  for index in range(600):
    state, metrics = step(jax.random.key(index), state, BATCH)
    if index + 1 in (300, 600):
      scores.append(score(state))
  assert metrics["stage"] == 3
  assert scores[2] < scores[1] < scores[0]
