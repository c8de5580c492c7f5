"""A decoder for each kind, one encoder for both."""

import jax
import numpy as np
import optax

from gm_jax import data
from gm_jax.networks.flat import FlatDecoder, FlatEncoder
from gm_jax.reconstruction import corruptions, two_domains

SHAPE = (8, 8, 1)
MODULE = two_domains.TwoDomains(FlatEncoder((64,)), [FlatDecoder((64,), SHAPE), FlatDecoder((64,), SHAPE)], 10)
MODEL = two_domains.two_domains(MODULE, optax.adam(3e-3), disguise=corruptions.negative(0.5), decay=0.9)


def batch():
  """Digits as they are, and the same negative."""
  image = data.digits("train").arrays["image"][:300]
  return {"image": np.concatenate([image, 255 - image]), "label": np.repeat(np.arange(2, dtype=np.int32), 300)}


def trained(steps=400):
  state, step = jax.jit(MODEL.init)(jax.random.key(0), batch()), jax.jit(MODEL.step)
  for index in range(steps):
    state, _ = step(jax.random.key(index), state, batch())
  return state


def test_a_decoder_learns_from_its_own_kind_alone():
  one = {"image": batch()["image"][:8], "label": np.zeros(8, np.int32)}
  state = jax.jit(MODEL.init)(jax.random.key(0), one)
  after, _ = jax.jit(MODEL.step)(jax.random.key(0), state, one)
  moved = lambda name: sum(
    float(abs(new - old).sum())
    for new, old in zip(jax.tree.leaves(after.net.params[name]), jax.tree.leaves(state.net.params[name]))
  )
  assert moved("decoders_0") > 0
  assert moved("encoder") > 0
  assert moved("decoders_1") == 0


def test_kinds_are_swapped():
  """An image of one kind comes out in the manner of the other: what was dark is light, for negatives."""
  state = trained()
  image = batch()["image"]
  swapped = np.asarray(two_domains.swap(MODULE, state, image[:300], np.ones(300, np.int32)), np.float64)
  same = np.asarray(two_domains.swap(MODULE, state, image[:300], np.zeros(300, np.int32)), np.float64)
  squares = lambda a, b: np.square(a - b).mean()
  one, other = (half.astype(np.float64) for half in np.split(image, 2))
  assert squares(same, one) < 0.35 * squares(one.mean(0)[None], one)
  # The very image in the other manner, and not just some image of the other kind.
  assert squares(swapped, other) < 0.5 * squares(other.mean(0)[None], other)
  assert squares(swapped, other) < 2 * squares(same, one)


def test_samples_are_of_the_kind_that_was_asked_for():
  state = trained(200)
  sample = jax.jit(MODEL.sample, static_argnums=2)
  light = lambda *condition: np.asarray(sample(jax.random.key(0), state, 40, *condition)).mean((1, 2, 3))
  assert light(np.zeros(40, np.int32)).max() < light(np.ones(40, np.int32)).min()
  assert 0.2 < (light() > 128).mean() < 0.8
