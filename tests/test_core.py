"""The interface on a net small enough to differentiate by hand."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import core, rows

RNG = np.random.default_rng(0)
BATCH = {"image": RNG.normal(size=(8, 1, 1, 3)).astype(np.float32)}


class Line(nn.Module):
  """x -> w . x, with everything that a state can hold: statistics, a counter, dropout, a sown value."""

  rate: float = 0.0

  @nn.compact
  def __call__(self, x, train: bool):
    x = x.reshape(len(x), -1)
    w = self.param("w", nn.initializers.ones, (x.shape[1],))
    ready = self.has_variable("stats", "mean")
    mean = self.variable("stats", "mean", lambda: jnp.zeros(x.shape[1]))
    count = self.variable("stats", "count", lambda: jnp.zeros((), jnp.int32))
    if train and ready:
      mean.value = 0.9 * mean.value + 0.1 * x.mean(0)
      count.value = count.value + 1
    self.sow("intermediates", "input", x)
    return nn.Dropout(self.rate, deterministic=not train)(x @ w)


def squares(net, key, batch, train):
  """(w . x)^2 / 2, whose gradient is (w . x) x."""
  del key
  y = net(batch["image"], train)
  return y**2 / 2, {"y": y}


def draw(net, key, num, condition=None):
  del condition
  return net(jax.random.normal(key, (num, 1, 1, 3)), train=False).reshape(num, 1, 1, 1)


def model(**options):
  return core.from_objective(Line(), squares, draw, optax.sgd(0.1), reports="nll", **options)


X = BATCH["image"].reshape(8, 3)


def test_descend_follows_the_gradient_of_the_mean_loss():
  player = core.begin(Line(), squares, optax.sgd(0.1), jax.random.key(0), BATCH)
  np.testing.assert_array_equal(player.params["w"], np.ones(3))
  after, metrics = core.descend(Line(), squares, optax.sgd(0.1), player, jax.random.key(1), BATCH)
  y = X.sum(1)
  np.testing.assert_allclose(after.params["w"], 1 - 0.1 * (y[:, None] * X).mean(0), rtol=1e-5)
  np.testing.assert_allclose(metrics["loss"], (y**2 / 2).mean(), rtol=1e-5)
  np.testing.assert_allclose(metrics["y"], y.mean(), rtol=1e-4, atol=1e-6)
  # A batch that repeats itself has the same mean, so the same step: nothing is summed by mistake.
  twice = {"image": np.concatenate([BATCH["image"]] * 2)}
  again, _ = core.descend(Line(), squares, optax.sgd(0.1), player, jax.random.key(1), twice)
  chex.assert_trees_all_close(again, after, rtol=1e-5)


def test_begin_starts_and_descend_carries_every_collection():
  """Initialising is not a step of learning: statistics start where they start, then follow the batches."""
  player = core.begin(Line(), squares, optax.sgd(0.0), jax.random.key(0), BATCH)
  assert set(player.stats) == {"stats"}  # what a layer sows is not memory
  np.testing.assert_array_equal(player.stats["stats"]["mean"], np.zeros(3))
  for step in range(1, 4):
    player, _ = core.descend(Line(), squares, optax.sgd(0.0), player, jax.random.key(step), BATCH)
    np.testing.assert_allclose(player.stats["stats"]["mean"], (1 - 0.9**step) * X.mean(0), rtol=1e-5, atol=1e-7)
    assert int(player.stats["stats"]["count"]) == step
  assert set(player.stats) == {"stats"}


def test_descend_leaves_other_players_alone():
  """Another player's variables are an argument: used, not moved, not differentiated into."""
  me = core.begin(Line(), squares, optax.adam(0.1), jax.random.key(0), BATCH)
  other = jax.tree.map(jnp.copy, me)

  def against(net, key, batch, variables, train):
    del key
    return (net(batch["image"], train) - Line().apply(variables, batch["image"], False)) ** 2 + 1, {}

  start = me._replace(params={"w": 2 * jnp.ones(3)})
  moved, _ = core.descend(Line(), against, optax.adam(0.1), start, jax.random.key(1), BATCH, other.variables)
  assert not np.array_equal(moved.params["w"], 2 * np.ones(3))
  chex.assert_trees_all_equal(other, me)


def test_the_objectives_key_and_dropouts_key_are_not_one_key():
  """Nor is either of them the key that came in; and the same key gives the same two."""
  seen = {}

  class Spy(nn.Module):
    @nn.compact
    def __call__(self, x):
      seen["dropout"] = jax.random.key_data(self.make_rng("dropout"))
      return x.sum((1, 2, 3)) * self.param("w", nn.initializers.ones, ())

  def objective(net, key, batch, train):
    seen["objective"] = jax.random.key_data(key)
    return net(batch["image"]), {}

  for call in (
    lambda key: core.begin(Spy(), objective, optax.sgd(0.1), key, BATCH),
    lambda key: core.run(Spy(), objective, {"params": {"w": jnp.ones(())}}, key, BATCH, train=True),
  ):
    call(jax.random.key(5))
    first = dict(seen)
    call(jax.random.key(5))
    chex.assert_trees_all_equal(first, seen)
    assert not np.array_equal(first["objective"], jax.random.key_data(jax.random.key(5)))
    # Flax folds the layer's path into its stream, so the layer is asked what it would see if the stream were that one.
    for shared in (jax.random.wrap_key_data(first["objective"]), jax.random.key(5)):
      Spy().apply({"params": {"w": jnp.ones(())}}, BATCH["image"], rngs={"dropout": shared})
      assert not np.array_equal(first["dropout"], seen["dropout"])


def constant_player(value):
  tree = lambda: jnp.full((2,), value, jnp.float32)
  return core.Trainable({"w": tree()}, {"stats": {"mean": tree(), "count": jnp.int32(value)}}, ())


@pytest.mark.parametrize("decay", [0.999, 0.5])
def test_the_average_of_a_constant_has_a_closed_form(decay):
  """It starts at 0 and sees 1 ever after: what is left of the start is the product of the decays."""
  average = core.begin_average(constant_player(0.0))
  left = 1.0
  for t in range(60):
    average = core.update_average(average, constant_player(1.0), decay)
    left *= min(decay, (1 + t) / (10 + t))
    np.testing.assert_allclose(average.variables["params"]["w"], 1 - left, rtol=1e-5)
    np.testing.assert_allclose(average.variables["stats"]["mean"], 1 - left, rtol=1e-5)
  assert int(average.updates) == 60
  assert left < 1e-6  # the start of training is forgotten


def test_the_average_is_the_weighted_sum_of_what_it_saw():
  """And integers are taken over, not averaged."""
  values = RNG.normal(size=20)
  average, weights = core.begin_average(constant_player(3.0)), np.ones(1)
  for t, value in enumerate(values):
    player = constant_player(value)
    player.stats["stats"]["count"] = jnp.int32(7 * t)
    average = core.update_average(average, player, 0.9)
    kept = min(0.9, (1 + t) / (10 + t))
    weights = np.append(kept * weights, 1 - kept)
    assert int(average.variables["stats"]["count"]) == 7 * t
  np.testing.assert_allclose(weights.sum(), 1)
  np.testing.assert_allclose(average.variables["params"]["w"], weights @ np.append(3.0, values), rtol=1e-5)


def test_the_average_of_half_precision_keeps_its_type():
  half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf, constant_player(1.0))
  average = core.update_average(core.begin_average(half), half, 0.9)
  chex.assert_trees_all_equal_dtypes(average.variables, half.variables)


def test_no_buffer_is_in_the_state_twice():
  """Else the loop could not donate it."""
  state = model().init(jax.random.key(0), BATCH)
  pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
  assert len(set(pointers)) == len(pointers)


def test_sample_and_evaluate_read_the_average():
  """Evaluated by hand at the average's weights, not at the net's."""
  ours = model(decay=0.9)
  state = ours.init(jax.random.key(0), BATCH)
  for step in range(5):
    state, _ = ours.step(jax.random.key(step), state, BATCH)
  w = np.asarray(state.average.variables["params"]["w"])
  assert not np.allclose(w, state.net.params["w"], atol=1e-3)
  scores = ours.evaluate(jax.random.key(0), state, BATCH)
  np.testing.assert_allclose(scores["nll"], (X @ w) ** 2 / 2, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(scores["y"], X @ w, rtol=1e-4, atol=1e-6)
  noise = np.asarray(jax.random.normal(jax.random.key(9), (4, 1, 1, 3))).reshape(4, 3)
  np.testing.assert_allclose(ours.sample(jax.random.key(9), state, 4).ravel(), noise @ w, rtol=1e-4, atol=1e-6)


def test_evaluate_draws_no_dropout_and_moves_no_statistics():
  dropped = core.from_objective(Line(rate=0.5), squares, draw, optax.sgd(0.1), reports="nll")
  state = dropped.init(jax.random.key(0), BATCH)
  before = jax.tree.map(np.asarray, state)
  chex.assert_trees_all_equal(*(dropped.evaluate(jax.random.key(seed), state, BATCH) for seed in (1, 2)))
  chex.assert_trees_all_equal(before, jax.tree.map(np.asarray, state))
  losses = [float(dropped.step(jax.random.key(seed), state, BATCH)[1]["loss"]) for seed in (1, 2)]
  assert losses[0] != losses[1]  # but a step does draw it


class TestCompiled(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True)
  def test_a_step_means_the_same_compiled_or_not(self):
    ours = model()
    state = self.variant(ours.init)(jax.random.key(0), BATCH)
    state, metrics = self.variant(ours.step)(jax.random.key(1), state, BATCH)
    y = X.sum(1)
    np.testing.assert_allclose(state.net.params["w"], 1 - 0.1 * (y[:, None] * X).mean(0), rtol=1e-5)
    np.testing.assert_allclose(state.average.variables["params"]["w"], 1 - 0.9 * 0.1 * (y[:, None] * X).mean(0), rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], (y**2 / 2).mean(), rtol=1e-5)


def test_means_are_those_of_the_whole_batch_when_it_is_cut():
  """Under pmap: gradients, statistics, metrics and `global_mean` see all eight rows, and every device agrees."""
  ours = model()
  state = ours.init(jax.random.key(0), BATCH)
  whole = ours.step(jax.random.key(1), state, BATCH)

  def on_device(batch):
    with rows.view(axis="data"):
      return ours.step(jax.random.key(1), state, batch), core.global_mean(batch["image"].mean(0))

  cut, mean = jax.pmap(on_device, "data")({"image": BATCH["image"][:, None]})
  for device in range(8):
    chex.assert_trees_all_close(jax.tree.map(lambda leaf, d=device: leaf[d], cut), whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean[device], BATCH["image"].mean(0), rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(core.global_mean(jnp.arange(3)), np.arange(3))


def test_sums_are_those_of_the_whole_batch_when_it_is_cut():
  def on_device(rows_here):
    with rows.view(axis="data"):
      return core.global_sum({"count": rows_here.sum(0), "total": rows_here.astype(jnp.float32).sum(0)})

  numbers = jnp.arange(24).reshape(8, 3)
  cut = jax.pmap(on_device, "data")(numbers[:, None])
  for device in range(8):
    chex.assert_trees_all_equal(jax.tree.map(lambda leaf, d=device: leaf[d], cut), core.global_sum(whole_sums(numbers)))


def whole_sums(numbers):
  return {"count": numbers.sum(0), "total": numbers.astype(jnp.float32).sum(0)}
