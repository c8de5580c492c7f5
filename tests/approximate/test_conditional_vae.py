"""A conditional VAE against quadrature for each label, and its samples against what was asked for."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from gm_jax import testing
from gm_jax.approximate import importance, priors, vae
from gm_jax.approximate.conditional_vae import ConditionalVAE
from gm_jax.networks.flat import FlatDecoder, FlatEncoder

CLASSES = 3


def make(prior=None, objective=None):
  networks = FlatEncoder((16,), nn.tanh), FlatDecoder((16,), (2, 3, 1), nn.tanh)
  prior = prior or priors.StandardNormal()
  module = ConditionalVAE(*networks, vae.bernoulli(), num_latents=1, prior=prior, num_classes=CLASSES, hidden=16)
  return module, vae.vae(module, optax.adam(1e-2), objective=objective, decay=0.9)


def striped(num: int):
  """Class k has bright pixels in column k, noise elsewhere, and brightness that varies from image to image."""
  generator = np.random.default_rng(0)
  label = np.arange(num) % CLASSES
  probability = np.where(np.arange(3)[None, None, :, None] == label[:, None, None, None], 0.9, 0.15)
  probability = probability * np.where(generator.random((num, 1, 1, 1)) < 0.5, 1.0, 0.3)
  return {"image": (generator.random((num, 2, 3, 1)) < probability) * np.uint8(255), "label": label.astype(np.int32)}


@functools.cache
def trained():
  module, model = make()
  batch = striped(120)
  state = jax.jit(model.init)(jax.random.key(0), batch)
  step = lambda state, index: model.step(jax.random.fold_in(jax.random.key(1), index), state, batch)
  state, _ = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(300)))(state)
  return module, model, state, batch


def log_prob_by_quadrature(images, label):
  """log p(x | label) on a fine grid of z, [B], in float64."""
  module, _, state, _ = trained()
  z = np.linspace(-9, 9, 2001)
  decode = lambda vae: vae.decode(jnp.asarray(z[:, None], jnp.float32), False, jnp.full(len(z), label))
  logits = np.asarray(nn.apply(decode, module)(state.average.variables), np.float64).reshape(len(z), -1)
  x = (np.asarray(images).reshape(len(images), -1) > 127).astype(np.float64)
  joint = x @ logits.T - np.logaddexp(0, logits).sum(1) + stats.norm.logpdf(z)
  return np.log(np.trapezoid(np.exp(joint), z, axis=1))


@pytest.mark.parametrize("label", range(CLASSES))
def test_the_likelihood_is_of_the_label(label):
  """Of every image there is: evidence and bound under each label, against the integral; all images together are one."""
  module, model, state, _ = trained()
  x = testing.all_states((2, 3, 1))
  batch = {"image": (x * 255).astype(np.uint8), "label": np.full(len(x), label, np.int32)}
  truth = log_prob_by_quadrature(batch["image"], label)
  np.testing.assert_allclose(np.exp(truth).sum(), 1, rtol=1e-6)
  estimate = vae.evidence(module, jax.random.key(2), state, batch, num_samples=1000, chunk=250)
  # Weighed by how likely they are: of images unlike all that it was trained on, q knows little.
  off = np.abs(np.asarray(estimate.log_prob) - truth)
  assert (np.exp(truth) * off).sum() < 0.05
  assert abs(np.exp(np.asarray(estimate.log_prob, np.float64)).sum() - 1) < 0.05
  keys = jax.random.split(jax.random.key(3), 300)
  bounds = np.asarray(jax.jit(jax.vmap(lambda key: model.evaluate(key, state, batch)["nll_bound"]))(keys), np.float64)
  assert (-bounds.mean(0) < truth + 4.5 * bounds.std(0) / np.sqrt(len(keys))).all()


def test_bayes_rule_over_labels_reads_the_stripes():
  _, model, state, batch = trained()
  score = jax.jit(model.evaluate)
  keys = [jax.random.key(index) for index in range(5)]
  under = lambda label: np.mean([score(key, state, {**batch, "label": np.full(120, label)})["nll_bound"] for key in keys], 0)
  guess = np.argmin([under(label) for label in range(CLASSES)], 0)
  bright = batch["image"].reshape(120, -1).sum(1) > 255  # two pixels at least: the others say little
  assert (guess == batch["label"])[bright].mean() > 0.85


def test_samples_are_of_the_label_that_was_asked_for_and_of_any_otherwise():
  module, model, state, _ = trained()
  label = np.repeat(np.arange(CLASSES), 500)
  sample = jax.jit(model.sample, static_argnums=2)
  brightness = np.asarray(sample(jax.random.key(4), state, 1500, label), float).mean((1, 3)).reshape(CLASSES, 500, 3).mean(1)
  np.testing.assert_array_equal(brightness.argmax(1), np.arange(CLASSES))
  columns = np.asarray(sample(jax.random.key(5), state, 1500), float).mean((1, 3)).mean(0)
  np.testing.assert_allclose(columns, brightness.mean(0), rtol=0.1)
  z = jnp.zeros((CLASSES, 1))
  decoded = np.asarray(vae.decode(module, state, z, np.arange(CLASSES)), float).mean((1, 3))
  np.testing.assert_array_equal(decoded.argmax(1), np.arange(CLASSES))


def test_the_posterior_is_of_image_and_label():
  module, _, state, batch = trained()
  codes = [vae.encode(module, jax.random.key(0), state, batch["image"], np.full(120, label))[0] for label in range(CLASSES)]
  assert all(float(jnp.abs(a - b).mean()) > 1e-2 for a, b in zip(codes, codes[1:]))


@pytest.mark.parametrize("objective", [importance.iwae(3), importance.piwae(2, 2)], ids=["iwae", "piwae"])
def test_it_trains_by_other_bounds_and_priors(objective):
  """The label goes along with the draws: the wrong one costs more, after training by several draws with a VampPrior."""
  _, model = make(priors.VampPrior(4, (2, 3, 1)), objective)
  batch = striped(60)
  state = jax.jit(model.init)(jax.random.key(0), batch)
  step = lambda state, index: model.step(jax.random.fold_in(jax.random.key(1), index), state, batch)
  state, _ = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(150)))(state)
  score = lambda label: jax.jit(model.evaluate)(jax.random.key(2), state, {**batch, "label": label})["nll_bound"].mean()
  assert score((batch["label"] + 1) % CLASSES) > score(batch["label"]) + 0.3


def test_without_labels_it_says_so():
  _, model = make()
  with pytest.raises(ValueError, match="a conditional VAE needs labels"):
    jax.eval_shape(model.init, jax.random.key(0), {"image": striped(6)["image"]})
