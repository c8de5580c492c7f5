"""Many models behind the interface of one: each learns from its share of the data what it would learn alone."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import images, parallel, testing
from gm_jax.errors import UserError
from gm_jax.implicit import games, gan, many, remedies
from gm_jax.networks.players import FlatCritic, FlatGenerator

NUM = 3


def make(*chosen):
  optimizer = optax.adam(1e-2, b1=0.5, eps=1e-5)
  players = FlatGenerator((8,), (1, 1, 2), output=lambda x: x), FlatCritic((8,))
  options = dict(num_latents=2, n_critic=2, decay=0.9, pixels=images.POINTS, remedies=chosen)
  return gan.gan(*players, games.non_saturating(), optimizer, optimizer, **options)


def batch_of(step, num):
  return {"image": np.random.default_rng(step).normal(size=(num, 1, 1, 2)).astype(np.float32)}


def test_each_model_learns_from_its_share_what_it_would_learn_alone():
  """With packs, since what two points have to do with each other is lost if they are dealt out wrongly."""
  one = make(remedies.packing(2))
  model = many.as_one(one, NUM)
  share = lambda batch, i: {name: rows[i::NUM] for name, rows in batch.items()}
  init, step, alone = jax.jit(one.init), jax.jit(model.step), jax.jit(one.step)
  state = jax.jit(model.init)(jax.random.key(0), batch_of(0, 8 * NUM))
  apart = [init(jax.random.fold_in(jax.random.key(0), i), share(batch_of(0, 8 * NUM), i)) for i in range(NUM)]
  for index in range(1, 5):
    batch, key = batch_of(index, 8 * NUM), jax.random.key(index)
    state, metrics = step(key, state, batch)
    results = [alone(jax.random.fold_in(key, i), apart[i], share(batch, i)) for i in range(NUM)]
    apart, losses = [state for state, _ in results], [metrics["loss"] for _, metrics in results]
    np.testing.assert_allclose([metrics["loss"], metrics["loss_std"]], [np.mean(losses), np.std(losses)], rtol=1e-3)
  for i in range(NUM):
    chex.assert_trees_all_close(many.pick(state, i), apart[i], rtol=1e-4, atol=1e-5)

  # Samples are the first model's, and scores are means.
  key, real = jax.random.key(9), batch_of(9, 5)
  first = lambda i: jax.random.fold_in(key, i)
  np.testing.assert_allclose(model.sample(key, state, 4), one.sample(first(0), apart[0], 4), rtol=1e-3, atol=1e-4)
  scores = [one.evaluate(first(i), apart[i], real)["critic"] for i in range(NUM)]
  np.testing.assert_allclose(model.evaluate(key, state, real)["critic"], np.mean(scores, 0), rtol=1e-3, atol=1e-4)
  assert np.ptp(scores, 0).min() > 1e-3, "no two of them are the same model"


def test_the_contract_holds_for_all_of_them_together():
  model, batch = many.as_one(make(), NUM), jax.tree.map(jnp.asarray, batch_of(0, 8 * NUM))
  testing.check_contract(model, batch, "critic")


def test_the_share_of_each_is_the_same_on_any_layout():
  batches = [batch_of(step, 16 * NUM) for step in range(2)]
  strategies = [parallel.single(), parallel.dp(), parallel.pmap()]
  testing.check_strategies_agree(many.as_one(make(), NUM), batches, strategies)


def test_a_batch_that_cannot_be_dealt_out_is_refused():
  with pytest.raises(UserError, match="a batch of 8 cannot be dealt out to 3 models"):
    jax.eval_shape(many.as_one(make(), NUM).init, jax.random.key(0), batch_of(0, 8))
