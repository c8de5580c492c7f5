"""Bayes' rule against the discriminants of known Gaussians, and K densities in one model against K models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from gm_jax import images, rows
from gm_jax.approximate import vae
from gm_jax.core import GenerativeModel
from gm_jax.errors import UserError
from gm_jax.tasks import classification as bayes
from gm_jax.tractable import mixture as mix
from tests import models

MEANS = np.array([[1.0, 0.0], [-1.0, 0.5], [0.0, -2.0]])
COVARIANCES = np.array([[[1.0, 0.4], [0.4, 0.5]], [[0.3, 0.0], [0.0, 2.0]], [[1.0, -0.6], [-0.6, 1.0]]])
LOG_PRIOR = np.log([0.5, 0.2, 0.3])


def gaussians(means, covariances):
  """The measure of one known Gaussian per class on points [B, 1, 1, 2]."""
  means, precisions = jnp.asarray(means, jnp.float32), jnp.asarray(np.linalg.inv(covariances), jnp.float32)
  log_dets = jnp.asarray(np.linalg.slogdet(2 * np.pi * np.asarray(covariances))[1], jnp.float32)

  def measure(key, state, batch):
    del key, state
    label = batch["label"]
    deviation = batch["image"].reshape(-1, 2) - means[label]
    return {"nll": 0.5 * (jnp.einsum("bi,bij,bj->b", deviation, precisions[label], deviation) + log_dets[label])}

  return measure


def points(num=200, seed=0):
  return {"image": np.random.default_rng(seed).normal(size=(num, 1, 1, 2)).astype(np.float32) * 2}


def posterior_of(measure, log_prior, batch):
  log_probs = bayes.class_log_probs(measure, jax.random.key(0), None, batch, len(log_prior))
  return np.asarray(bayes.posterior(jnp.asarray(log_prior, jnp.float32), log_probs))


def test_with_one_covariance_for_all_the_log_odds_are_linear():
  """Linear discriminant analysis: log p(a | x) / p(b | x) = w.x + c, w = S^-1 (m_a - m_b)."""
  covariance = COVARIANCES[0]
  p = posterior_of(gaussians(MEANS, [covariance] * 3), LOG_PRIOR, points()).astype(np.float64)
  x = points()["image"].reshape(-1, 2).astype(np.float64)
  precision = np.linalg.inv(covariance)
  constant = LOG_PRIOR - 0.5 * np.einsum("ki,ij,kj->k", MEANS, precision, MEANS)
  np.testing.assert_allclose(p, special.softmax(x @ precision @ MEANS.T + constant, axis=1), atol=2e-5)


def test_with_a_covariance_each_it_is_quadratic_discriminant_analysis():
  p = posterior_of(gaussians(MEANS, COVARIANCES), LOG_PRIOR, points())
  x = points()["image"].reshape(-1, 2)
  joint = [np.exp(prior) * stats.multivariate_normal(*law).pdf(x) for prior, *law in zip(LOG_PRIOR, MEANS, COVARIANCES)]
  np.testing.assert_allclose(p, (joint / np.sum(joint, axis=0)).T, atol=2e-5)


def test_classes_that_look_alike_are_told_by_the_prior_alone():
  alike = gaussians(MEANS[[0, 0]], COVARIANCES[[0, 0]])
  np.testing.assert_array_equal(posterior_of(alike, np.log([0.5, 0.5]), points()), 0.5)
  np.testing.assert_allclose(posterior_of(alike, np.log([0.9, 0.1]), points())[:, 0], 0.9, rtol=1e-5)


def test_a_posterior_that_underflows_has_a_finite_logarithm():
  log_posterior = np.asarray(bayes.log_posterior(jnp.log(jnp.full(2, 0.5)), jnp.array([[0.0, -3000.0]])))
  np.testing.assert_allclose(log_posterior, [[0.0, -3000.0]], atol=1e-6)


def test_the_marginal_is_the_mixture_of_the_classes():
  measure = bayes.marginal(gaussians(MEANS, COVARIANCES), LOG_PRIOR.astype(np.float32))
  nll = measure(jax.random.key(0), None, points())["nll"]
  x = points()["image"].reshape(-1, 2)
  law = sum(np.exp(prior) * stats.multivariate_normal(*law).pdf(x) for prior, *law in zip(LOG_PRIOR, MEANS, COVARIANCES))
  np.testing.assert_allclose(nll, -np.log(law), rtol=1e-5, atol=1e-5)


def test_bounds_serve_and_models_without_a_likelihood_are_named():
  bound = lambda key, state, batch: {"distortion": jnp.zeros(3), "nll_bound": batch["label"] * 1.0}
  batch = {"image": np.zeros((3, 1, 1, 2))}
  np.testing.assert_array_equal(bayes.class_log_probs(bound, None, None, batch, 4), -np.tile(np.arange(4.0), (3, 1)))
  assert [*bayes.marginal(bound, np.log([0.5, 0.5], dtype=np.float32))(None, None, batch)] == ["nll_bound"]
  with pytest.raises(UserError, match="nll or nll_bound; this model reports critic"):
    bayes.likelihood_of({"critic": 0})


# One density per class.

CLASSES = 3


def grey(step, num=24):
  """Noisy squares whose size is the label, interleaved."""
  rng = np.random.default_rng(step)
  label = np.arange(num, dtype=np.int32) % CLASSES
  image = rng.integers(0, 60, (num, 4, 4, 1))
  for row, side in enumerate(label + 1):
    image[row, :side, :side] += 150
  return {"image": image.astype(np.uint8), "label": label}


def make_vae():
  module = vae.VAE(models.FlatEncoder((8,)), models.FlatDecoder((8,), (4, 4, 1)), vae.bernoulli(), num_latents=2)
  return vae.vae(module, models.optax.adam(1e-2))


KINDS = {
  "gaussian": lambda: mix.mixture(mix.full_gaussian(pixels=images.DEQUANTIZED), 1, share=0.05),
  "mixture": lambda: mix.mixture(mix.bernoulli(), 2, share=0.05, step_size=mix.decreasing()),
  "vae": make_vae,
}


def fitted(model, steps=3):
  state = jax.jit(model.init)(jax.random.key(0), grey(0))
  for step in range(steps):
    state, metrics = jax.jit(model.step)(jax.random.key(step), state, grey(step))
  return state, metrics


@pytest.mark.parametrize("kind", KINDS)
def test_the_states_are_those_of_models_trained_apart(kind):
  model = KINDS[kind]()
  state, metrics = fitted(bayes.class_conditional(model, CLASSES))
  apart = []
  for label in range(CLASSES):
    mine = lambda step: {name: array[label::CLASSES] for name, array in grey(step).items()}  # noqa: B023
    key = lambda seed: jax.random.split(jax.random.key(seed), CLASSES)[label]  # noqa: B023
    alone = jax.jit(model.init)(key(0), mine(0))
    for step in range(3):
      alone, measured = jax.jit(model.step)(key(step), alone, mine(step))
    apart.append(measured)
    for ours, theirs in zip(jax.tree.leaves(state.classes), jax.tree.leaves(alone)):
      np.testing.assert_allclose(ours[label], theirs, rtol=1e-5, atol=1e-6)
  for name, value in metrics.items():
    np.testing.assert_allclose(value, np.mean([one[name] for one in apart]), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_is_scored_by_the_density_of_its_label(kind):
  model = KINDS[kind]()
  whole = bayes.class_conditional(model, CLASSES)
  state, _ = fitted(whole)
  batch = {**grey(9), "label": np.array([0, 0, 2, 2, 0, 2] * 4)}
  scores = jax.jit(whole.evaluate)(jax.random.key(3), state, batch)
  for label in (0, 2):
    one = jax.tree.map(lambda leaf: leaf[label], state.classes)  # noqa: B023
    alone = jax.jit(model.evaluate)(jax.random.key(3), one, {"image": batch["image"]})
    assert scores.keys() == alone.keys()
    for name in scores:
      mine = batch["label"] == label
      np.testing.assert_allclose(scores[name][mine], alone[name][mine], rtol=1e-5, atol=1e-5)


def test_each_image_is_drawn_from_its_label_and_does_not_depend_on_the_others():
  whole = bayes.class_conditional(KINDS["gaussian"](), CLASSES)
  state, _ = fitted(whole)
  draw = jax.jit(whole.sample, static_argnums=2)
  labels = np.array([2, 0, 1, 1, 2, 0, 0, 2])
  pictures = np.asarray(draw(jax.random.key(1), state, 8, labels)).astype(int)
  for first, stop in ((0, 3), (3, 8), (5, 6)):
    with rows.view(first):
      part = jax.jit(lambda labels: whole.sample(jax.random.key(1), state, len(labels), labels))(labels[first:stop])
    assert np.abs(np.asarray(part).astype(int) - pictures[first:stop]).max() <= 1
  means = np.asarray(state.classes.mean).reshape(CLASSES, 1, 4, 4, 1)
  many = np.asarray(draw(jax.random.key(2), state, 300, np.arange(300) % CLASSES))
  nearest = ((many[None] / 256 - means) ** 2).sum((2, 3, 4)).argmin(0)
  assert (nearest == np.arange(300) % CLASSES).mean() > 0.95
  unasked = np.asarray(draw(jax.random.key(2), state, 300))
  shares = np.bincount(((unasked[None] / 256 - means) ** 2).sum((2, 3, 4)).argmin(0), minlength=CLASSES) / 300
  np.testing.assert_allclose(shares, 1 / CLASSES, atol=4.5 * np.sqrt(2 / 9 / 300))


def test_a_class_that_no_row_asks_for_costs_nothing():
  calls = []

  def evaluate(key, state, batch):
    jax.debug.callback(lambda state: calls.append(int(state)), state)
    return {"nll": state * jnp.ones(len(batch["image"]))}

  model = GenerativeModel(lambda key, batch: jnp.zeros(()), None, None, evaluate)
  whole, state = bayes.class_conditional(model, 5), bayes.State(jnp.arange(5.0))
  scores = jax.jit(whole.evaluate)(jax.random.key(0), state, {"image": np.zeros(4), "label": np.array([3, 1, 1, 3])})
  jax.effects_barrier()
  assert sorted(calls) == [1, 3]
  np.testing.assert_array_equal(scores["nll"], [3, 1, 1, 3])
  calls.clear()
  jax.jit(lambda: bayes.class_log_probs(whole.evaluate, jax.random.key(0), state, {"image": np.zeros(4)}, 5))()
  jax.effects_barrier()
  assert sorted(calls) == [0, 1, 2, 3, 4]


def test_a_label_of_no_class_scores_nan():
  whole = bayes.class_conditional(KINDS["gaussian"](), CLASSES)
  state, _ = fitted(whole)
  batch = {**grey(0), "label": np.array([0, 1, 3] * 8)}
  nll = np.asarray(jax.jit(whole.evaluate)(jax.random.key(0), state, batch)["nll"])
  np.testing.assert_array_equal(np.isnan(nll), batch["label"] == 3)


def test_batches_that_are_not_interleaved_are_not_learnt_from_in_silence():
  whole = bayes.class_conditional(KINDS["gaussian"](), CLASSES)
  state, metrics = fitted(whole)
  assert np.isfinite(metrics["nll"])
  wrong = {**grey(0), "label": np.sort(grey(0)["label"])}
  assert np.isnan(jax.jit(whole.step)(jax.random.key(0), state, wrong)[1]["nll"])
  with pytest.raises(UserError, match="23 rows are not a multiple of 3 classes"):
    whole.step(jax.random.key(0), state, {name: array[:23] for name, array in grey(0).items()})
  with pytest.raises(UserError, match="the batch has image"):
    whole.init(jax.random.key(0), {"image": grey(0)["image"]})


# Grades.


def test_the_calibration_error_of_a_calibrated_classifier_is_noise_and_of_a_boaster_is_its_boast():
  rng = np.random.default_rng(0)
  p = rng.dirichlet(np.ones(4), 40_000)
  labels = (rng.uniform(size=(40_000, 1)) > p.cumsum(1)).sum(1)
  assert bayes.grade(np.log(p), labels)["calibration_error"] < 0.015
  sure = np.log(np.eye(4)[rng.integers(0, 4, 40_000)] + 1e-9)
  np.testing.assert_allclose(bayes.grade(sure, labels)["calibration_error"], 0.75, atol=0.01)


def test_grades_by_hand():
  p = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.35, 0.65]])
  report = bayes.grade(np.log(p), [0, 1, 1, 0], num_bins=2)
  np.testing.assert_array_equal(report["correct"], [1, 0, 1, 0])
  np.testing.assert_allclose(report["log_loss"], -np.log([0.9, 0.4, 0.8, 0.35]))
  np.testing.assert_array_equal(report["confusion"], [[1, 1], [1, 1]])
  assert report["calibration_error"] == pytest.approx(abs((0.9 + 0.6 + 0.8 + 0.65) / 4 - 0.5))  # all in the upper bin
  confusion = bayes.grade(np.log([[0.1, 0.2, 0.7]]), [1])["confusion"]
  assert confusion[1, 2] == confusion.sum() == 1
