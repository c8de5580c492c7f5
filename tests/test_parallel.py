"""One program, any layout: the same numbers on one device and on eight, sharded or mapped, whole or in pieces."""

import jax
import numpy as np
import pytest

from gm_jax import parallel, sampling, testing
from gm_jax.errors import UserError
from tests import models


def strategies():
  return [parallel.single(), parallel.dp(), parallel.fsdp(min_bytes=0), parallel.pmap()]


@pytest.mark.parametrize("name", ["vae-bernoulli", "vqvae", "gan", "began", "ddpm", "mixture-gaussian", "pixelcnn"])
def test_strategies_agree(name):
  """The same state after 5 steps: one device, eight by sharded jit with and without sharded parameters, eight by pmap."""
  assert jax.device_count() == 8
  member = models.MEMBERS[name]
  testing.check_strategies_agree(member.make(), [member.batch(step) for step in range(5)], strategies())


@pytest.fixture(scope="module")
def trained():
  member = models.MEMBERS["vae-bernoulli"]
  model = member.make()
  return model, jax.jit(model.init)(jax.random.key(0), member.batch(0))


def test_a_state_is_born_the_same_everywhere_and_where_it_belongs(trained):
  model, _ = trained
  batch = models.binary(0)
  states = [strategy.init(model.init, 3, batch) for strategy in strategies()]
  for strategy, state in zip(strategies(), states):
    for ours, theirs, sharding in zip(*map(jax.tree.leaves, (state, states[0], strategy.shardings(state)))):
      np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
      assert ours.sharding.is_equivalent_to(sharding, ours.ndim)
    abstract = strategy.abstract_state(model.init, batch)
    assert [leaf.shape for leaf in jax.tree.leaves(abstract)] == [leaf.shape for leaf in jax.tree.leaves(state)]


def test_fully_sharded_means_no_device_holds_a_large_parameter_whole(trained):
  model, _ = trained
  state = parallel.fsdp(min_bytes=1024).init(model.init, 0, models.binary(0))
  for leaf in jax.tree.leaves(state):
    cut = leaf.nbytes >= 1024 and any(size % 8 == 0 for size in leaf.shape)
    assert leaf.addressable_shards[0].data.nbytes == (leaf.nbytes // 8 if cut else leaf.nbytes)


@pytest.mark.parametrize("name", ["vae-bernoulli", "gan", "ddpm"])
def test_image_i_is_the_same_image_in_any_batch_on_any_number_of_devices(name):
  member = models.MEMBERS[name]
  model = member.make()
  state = jax.jit(model.init)(jax.random.key(0), member.batch(0))
  whole = sampling.draw(model, state, seed=5, num=64, batch_size=64).astype(int)
  assert len(np.unique(whole.reshape(64, -1), axis=0)) == 64
  for batch_size in (1, 7):
    pieces = sampling.draw(model, state, seed=5, num=64 if batch_size > 1 else 5, batch_size=batch_size).astype(int)
    assert np.abs(pieces - whole[: len(pieces)]).max() <= 1  # a level of grey for the rounding of another order of sums
  for strategy in strategies()[1:]:
    placed = jax.device_put(state, strategy.shardings(state))
    assert np.abs(sampling.draw(model, placed, seed=5, num=64, batch_size=64).astype(int) - whole).max() <= 1
  assert (sampling.draw(model, state, seed=6, num=64).astype(int) != whole).any()


def test_a_batch_that_cannot_be_cut_is_named():
  with pytest.raises(UserError, match="batch size 12 cannot be cut over 8 devices"):
    parallel.dp().local_rows(12)


def test_gradients_travel_in_few_collectives(trained):
  """Data parallelism costs one all-reduce of all gradients, or a few, not one for each of them, and nothing is gathered."""
  model, state = trained
  strategy = parallel.dp()
  batch = strategy.place_batch(models.binary(0))
  state = jax.device_put(state, strategy.shardings(state))
  text = strategy.step(model.step).lower(np.uint32(0), np.int32(0), state, batch).compile().as_text()
  assert 1 <= text.count(" all-reduce(") + text.count(" all-reduce-start(") <= 4
  assert " all-gather(" not in text
