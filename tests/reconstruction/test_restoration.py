"""A restorer learns what can be known of the lost part, keeps what it was shown, and starts from images that it has seen."""

import jax
import numpy as np
import optax

from gm_jax import data, images
from gm_jax.networks.residual import ResidualNet
from gm_jax.reconstruction import corruptions, restoration

SHAPE = (8, 8, 1)
MODULE = restoration.Restorer(ResidualNet(12, (1, 2)), num_kept=5)
BATCH = {"image": data.digits("train").arrays["image"][:64]}


def model(corrupt, **options):
  return restoration.restoration(MODULE, optax.adam(5e-3), corrupt, decay=0.9, **options)


def test_at_the_start_it_gives_back_what_it_was_shown():
  state = jax.jit(model(corruptions.gaussian(0.1)).init)(jax.random.key(0), BATCH)
  np.testing.assert_array_equal(restoration.restore(MODULE, state, images.to_unit(BATCH["image"])), BATCH["image"])


def test_what_can_be_known_is_restored():
  """Noise is taken away: the error falls well below that of the corrupted image, which is the noise's variance."""
  chosen = model(corruptions.gaussian(0.5))
  state, step = jax.jit(chosen.init)(jax.random.key(0), BATCH), jax.jit(chosen.step)
  score = lambda state: float(chosen.evaluate(jax.random.key(9), state, BATCH)["reconstruction"].mean())
  assert abs(score(state) - 0.25) < 0.02
  for index in range(150):
    state, _ = step(jax.random.key(index), state, BATCH)
  assert score(state) < 0.08


def test_samples_begin_at_images_that_it_keeps():
  """A chain of no passes is those images; they are the first of the first batch and stay so."""
  chosen = model(corruptions.gaussian(0.1), passes=0)
  state, step = jax.jit(chosen.init)(jax.random.key(0), BATCH), jax.jit(chosen.step)
  state, _ = step(jax.random.key(1), state, {"image": BATCH["image"][::-1]})
  drawn = np.asarray(chosen.sample(jax.random.key(2), state, 100))
  kept = BATCH["image"][:5]
  which = [(drawn == image).all((1, 2, 3)) for image in kept]
  assert np.any(which, 0).all()
  assert all(hits.any() for hits in which)
  moved = np.asarray(model(corruptions.gaussian(0.1), passes=3).sample(jax.random.key(2), state, 100))
  assert (moved != drawn).any((1, 2, 3)).all()


def test_a_batch_smaller_than_what_is_kept_is_kept_several_times():
  state = model(corruptions.gaussian(0.1)).init(jax.random.key(0), {"image": BATCH["image"][:2]})
  np.testing.assert_array_equal(state.net.stats["kept"]["images"], BATCH["image"][[0, 1, 0, 1, 0]])
