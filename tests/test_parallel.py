"""One program, any layout: the same numbers on one device and on eight, sharded or mapped, whole or in pieces."""

import jax
import numpy as np
import pytest

from gm_jax import parallel, sampling, testing
from gm_jax.errors import UserError
from gm_jax.implicit import many
from tests import models


def strategies():
  return [parallel.single(), parallel.dp(), parallel.fsdp(min_bytes=0), parallel.pmap()]


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


def test_an_ensemble_learns_on_its_own_devices():
  """Eight models or sixteen, one or two on each of eight devices, are what they are in one place."""
  member = models.MEMBERS["vae-bernoulli"]
  for num in (8, 16):
    model = many.as_one(member.make(), num)
    batches = [{name: np.concatenate([leaf] * num) for name, leaf in member.batch(step).items()} for step in range(3)]
    testing.check_strategies_agree(model, batches, [parallel.single(), parallel.ensemble()])
    state = parallel.ensemble().init(model.init, 0, batches[0])
    for leaf in jax.tree.leaves(state):
      counter = leaf.ndim == 1 and np.issubdtype(leaf.dtype, np.integer)
      assert leaf.addressable_shards[0].data.shape == (num if counter else num // 8, *leaf.shape[1:])


@pytest.mark.parametrize("name", ["vae-bernoulli", "lsgan"])
def test_the_models_of_an_ensemble_tell_each_other_nothing(name):
  """Not even whose turn it is among players."""
  member, strategy = models.MEMBERS[name], parallel.ensemble()
  model = many.many(member.make(), 8)
  batch = member.batch(0)
  state = strategy.init(model.init, 0, batch)
  lowered = strategy.step(model.step).lower(np.uint32(0), np.int32(0), state, strategy.place_batch(batch))
  text = lowered.compile().as_text()
  assert not any(word in text for word in (" all-reduce(", " all-gather(", " all-to-all(", " collective-permute("))
  assert strategy.local_rows(12) == (0, 12)  # each device sees the whole batch


def test_models_that_cannot_be_dealt_out_are_all_on_every_device():
  member = models.MEMBERS["vae-bernoulli"]
  model = many.many(member.make(), 3)
  batches = [member.batch(step) for step in range(3)]
  testing.check_strategies_agree(model, batches, [parallel.single(), parallel.ensemble()])


@pytest.mark.parametrize("name", ["gan", "ddpm"])
def test_what_is_drawn_in_a_step_is_cut_like_the_batch(name):
  """Fakes and noise come from no batch: each device could make all of them, and the numbers would be the same."""
  member = models.MEMBERS[name]
  model = member.make()
  state = jax.eval_shape(model.init, jax.random.key(0), member.batch(0))

  def products(strategy):
    laid = jax.tree.map(
      lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), state, strategy.shardings(state)
    )
    batch = strategy.place_batch(member.batch(0))
    return strategy.step(model.step).lower(np.uint32(0), np.int32(0), laid, batch).compile().cost_analysis()["flops"]

  assert products(parallel.dp()) < products(parallel.single()) / 4
