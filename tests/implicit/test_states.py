"""What a GAN with remedies remembers: the same on any layout, all of it saved, and the same for many seeds as for one."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import checkpoint, images, parallel, testing
from gm_jax.implicit import began, games, gan, many, remedies
from gm_jax.networks.began import AutoencodingCritic
from gm_jax.networks.conditional import ConditionalCritic, ConditionalGenerator
from gm_jax.networks.flat import FlatDecoder, FlatEncoder
from gm_jax.networks.norm import BatchNorm
from gm_jax.networks.players import FlatCritic, FlatGenerator


class NormedGenerator(nn.Module):
  @nn.compact
  def __call__(self, z, train):
    h = nn.relu(BatchNorm()(nn.Dense(8, use_bias=False)(z), train))
    return jnp.tanh(nn.Dense(16)(h)).reshape(len(z), 4, 4, 1)


def optimizer(rate=1e-2):
  # At Adam's own eps the rounding noise of a vanishing gradient is a full step, in another direction on each layout.
  return optax.adam(rate, b1=0.5, eps=1e-5, eps_root=1e-8)


def make(game, *chosen, generator=None, critic=None, num_classes=None):
  players = generator or FlatGenerator((8,), (4, 4, 1)), critic or FlatCritic((8,))
  options = dict(num_latents=3, num_classes=num_classes, decay=0.9, remedies=chosen)
  return gan.gan(*players, game, optimizer(), optimizer(), **options)


def make_packed():
  seen = remedies.instance_noise(optax.linear_schedule(0.5, 0.0, 10)), remedies.packing(2), remedies.spectral_normalization()
  turns = remedies.two_learning_rates(2.0), remedies.alternation(2, 2), remedies.historical_averaging(0.1)
  return make(games.hinge(), *seen, *turns, remedies.recomputed_statistics(32), generator=NormedGenerator())


def make_matched():
  wants = remedies.minibatch_discrimination(3, 2), remedies.feature_matching(adversarial=1.0), remedies.unrolled(2)
  return make(games.non_saturating(), *wants)


def make_began():
  critic = AutoencodingCritic(FlatEncoder((4,)), FlatDecoder((8,), (4, 4, 1)))
  # At this gamma the controller is far from its rest, so that k moves at every step and reaches neither end.
  return make(began.began(gamma=2.0, rate=0.05), remedies.historical_averaging(0.1), critic=critic)


def make_conditional():
  generator, critic = FlatGenerator((8,), (4, 4, 1)), FlatCritic((8,))
  told = {"generator": ConditionalGenerator(generator, 5), "critic": ConditionalCritic(critic, 5), "num_classes": 5}
  return make(games.r1(games.dragan(), every=2), **told)


MODELS = {"packed": make_packed, "matched": make_matched, "began": make_began, "conditional": make_conditional}


def batch_of(step):
  generator = np.random.default_rng(step)
  image = generator.integers(0, 256, (16, 4, 4, 1), dtype=np.uint8)
  image[:, :2] //= 8
  return {"image": image, "label": generator.integers(0, 5, 16).astype(np.int32)}


@pytest.mark.parametrize("name", MODELS)
def test_strategies_agree(name):
  strategies = [parallel.single(), parallel.dp(), parallel.pmap()]
  testing.check_strategies_agree(MODELS[name](), [batch_of(step) for step in range(3)], strategies)


@pytest.mark.parametrize("name", MODELS)
def test_the_contract_and_a_resumed_run(name, tmp_path):
  model = MODELS[name]()
  step = jax.jit(model.step)
  state = jax.jit(model.init)(jax.random.key(0), batch_of(0))
  testing.check_step_keeps_structure(model, state, batch_of(0))
  testing.check_evaluate(model, state, batch_of(0), "critic")
  testing.check_sample(model, state, batch_of(0)["image"])

  def advance(state, first, last):
    for index in range(first, last):
      state, metrics = step(jax.random.key(index), state, batch_of(index))
      assert all(np.isfinite(value) for value in metrics.values()), metrics
    return state

  middle = advance(state, 0, 3)
  checkpoint.save(tmp_path, 3, middle)
  _, restored = checkpoint.restore(tmp_path, jax.tree.map(jnp.zeros_like, middle))
  chex.assert_trees_all_equal(advance(middle, 3, 5), advance(restored, 3, 5))
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), middle, advance(middle, 3, 5))
  assert all(any(jax.tree.leaves(getattr(moved, player).params)) for player in ("critic", "generator"))
  remembered = {"packed": "spectral", "began": "began", "conditional": "counters"}.get(name)
  assert remembered is None or any(jax.tree.leaves(moved.critic.stats[remembered]))


def test_a_conditional_gan_says_what_it_lacks_and_its_samples_have_their_labels():
  model = make_conditional()
  with pytest.raises(ValueError, match="a GAN of 5 classes needs labels"):
    jax.eval_shape(model.init, jax.random.key(0), {"image": batch_of(0)["image"]})
  state = jax.jit(model.init)(jax.random.key(0), batch_of(0))
  draw = jax.jit(model.sample, static_argnums=2)
  of_class = [np.asarray(draw(jax.random.key(1), state, 6, np.full(6, label))).astype(int) for label in range(5)]
  assert all((of_class[0] != other).any() for other in of_class[1:]), "the label is seen"
  mixed = np.asarray(draw(jax.random.key(1), state, 6, np.arange(6) % 5)).astype(int)
  expected = np.stack([of_class[i % 5][i] for i in range(6)])
  assert np.abs(mixed - expected).max() <= 1, "and each image is of its own"


# Many seeds at once.


def make_points(n_critic):
  generator = FlatGenerator((8,), (1, 1, 2), output=lambda x: x)
  options = dict(num_latents=2, n_critic=n_critic, decay=0.9, pixels=images.POINTS)
  return gan.gan(generator, FlatCritic((8,)), games.hinge(), optimizer(), optimizer(), **options)


def test_many_seeds_are_as_many_runs():
  one, num = make_points(n_critic=2), 3
  together = many.many(one, num)
  each = many.many(one, num, batch_axis=0, report=many.mean_and_std)
  batch = {"image": np.random.default_rng(0).normal(size=(8, 1, 1, 2)).astype(np.float32)}
  spread = {"image": np.broadcast_to(batch["image"], (num, 8, 1, 1, 2))}
  key = jax.random.key
  seed = lambda index, i: jax.random.fold_in(key(index), i)
  init, step, evaluate, sample = (
    jax.jit(one.init),
    jax.jit(one.step),
    jax.jit(one.evaluate),
    jax.jit(one.sample, static_argnums=2),
  )
  states = jax.jit(together.init)(key(0), batch)
  apart, advance, metrics = [init(seed(0, i), batch) for i in range(num)], jax.jit(together.step), None
  for index in range(1, 4):
    before = states
    states, metrics = advance(key(index), states, batch)
    results = [step(seed(index, i), apart[i], batch) for i in range(num)]
    apart = [state for state, _ in results]
    np.testing.assert_allclose(metrics["loss"], [metrics["loss"] for _, metrics in results], rtol=1e-4)
  for i in range(num):
    chex.assert_trees_all_close(many.pick(states, i), apart[i], rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(states.turn, np.full(num, 3))
  assert len(np.unique(np.asarray(metrics["loss"]))) == num
  # A batch of one's own, and the report that a training loop prints.
  again, report = jax.jit(each.step)(key(3), before, spread)
  chex.assert_trees_all_close(again, states, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(report["loss"], np.mean(metrics["loss"]), rtol=1e-5)
  np.testing.assert_allclose(report["loss_std"], np.std(metrics["loss"]), rtol=1e-3, atol=1e-6)
  drawn, scores = (
    jax.jit(together.sample, static_argnums=2)(key(9), states, 4),
    jax.jit(together.evaluate)(key(9), states, batch),
  )
  for i in range(num):
    np.testing.assert_allclose(drawn[i], sample(seed(9, i), apart[i], 4), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(scores["critic"][i], evaluate(seed(9, i), apart[i], batch)["critic"], rtol=1e-3, atol=1e-4)


def test_many_seeds_play_only_in_their_turn():
  """Who plays is one branch for all seeds: none of them computes both."""
  batch = {"image": jnp.zeros((8, 1, 1, 2))}
  model = many.many(make_points(n_critic=2), 2)
  program = str(jax.make_jaxpr(model.step)(jax.random.key(0), jax.eval_shape(model.init, jax.random.key(0), batch), batch))
  assert "cond[" in program
