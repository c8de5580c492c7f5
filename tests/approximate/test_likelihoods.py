"""Decoders' laws against enumeration: masses that sum to one, and draws that follow them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from gm_jax import images
from gm_jax.approximate import likelihoods

LEVELS = 5
KINDS = {
  "logistic": likelihoods.discretized_logistic(LEVELS),
  "mixture": likelihoods.logistic_mixture(3, LEVELS),
}
kinds = pytest.mark.parametrize("kind", KINDS)
PIXELS = 6  # of 2 channels each, all different


@functools.cache
def outputs(kind):
  """Of a decoder, [1, 2, 3, width]: means in and outside of the range, scales from a third of a bin to all of it."""
  return np.random.default_rng(4).normal(size=(1, 2, 3, 2 * KINDS[kind].channels)).astype(np.float32)


@functools.cache
def masses(kind):
  """Of each level of each pixel's channels, by the definition: float64 [2, 3, 2, LEVELS]."""
  step = 2 / (LEVELS - 1)
  logits, mean, log_scale = np.split(outputs(kind)[0].reshape(2, 3, 2, -1).astype(np.float64), 3, axis=-1)
  weights = np.exp(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
  edges = np.concatenate([[-np.inf], -1 + step * (np.arange(LEVELS - 1) + 0.5), [np.inf]])
  cumulative = expit((edges - mean[..., None]) / np.exp(log_scale)[..., None])
  return (weights[..., None] * np.diff(cumulative)).sum(-2)


@kinds
def test_mass_of_an_image_is_the_product_of_its_levels(kind):
  likelihood, expected = KINDS[kind], masses(kind)
  np.testing.assert_allclose(expected.sum(-1), 1, rtol=1e-12)
  levels = np.random.default_rng(0).integers(0, LEVELS, (200, 2, 3, 2))
  x = likelihood.observe(jax.random.key(0), images.from_levels(levels, LEVELS))
  out = jnp.broadcast_to(outputs(kind), (200, *outputs(kind).shape[1:]))
  found = jax.jit(likelihood.log_prob)(out, x)
  each = np.take_along_axis(np.broadcast_to(expected, (200, *expected.shape)), levels[..., None], -1)
  np.testing.assert_allclose(found, np.log(each).sum((1, 2, 3, 4)), rtol=1e-4)


@kinds
def test_draws_follow_the_masses(kind):
  likelihood, num = KINDS[kind], 20_000
  drawn = jax.jit(likelihood.sample)(jax.random.key(1), jnp.broadcast_to(outputs(kind), (num, *outputs(kind).shape[1:])))
  levels = np.asarray(images.to_levels(drawn, LEVELS))
  seen = np.stack([(levels == level).sum(0) for level in range(LEVELS)], -1)
  expected = num * masses(kind)
  for one, theirs in zip(seen.reshape(-1, LEVELS), expected.reshape(-1, LEVELS)):
    common = theirs > 5
    one, theirs = (np.append(a[common], a[~common].sum() + 1e-9) for a in (one, theirs))
    assert stats.chisquare(one, theirs * one.sum() / theirs.sum()).pvalue > 1e-5


def test_the_mean_image_is_the_mean_of_the_draws_where_the_tails_are_short():
  likelihood = likelihoods.logistic_mixture(2)
  rng = np.random.default_rng(2)
  logits, mean = rng.normal(size=(2, 1, 2, 2, 1, 2))
  mean = 0.3 * np.tanh(mean)
  parts = np.concatenate([logits, mean, np.full_like(mean, -4.0)], -1).reshape(1, 2, 2, 6).astype(np.float32)
  drawn = jax.jit(likelihood.sample)(jax.random.key(3), jnp.broadcast_to(parts, (20_000, 2, 2, 6)))
  np.testing.assert_allclose(np.asarray(drawn, np.float64).mean(0), likelihood.mean(parts)[0], atol=1.5)


def test_gradients_are_finite_at_the_edges_and_at_the_narrowest_scale():
  likelihood = likelihoods.logistic_mixture(2)
  x = likelihood.observe(jax.random.key(0), np.array([0, 1, 128, 254, 255], np.uint8).reshape(1, 1, 5, 1))
  for log_scale in (-9.0, -7.0, 2.0):
    out = np.zeros((1, 1, 5, 6), np.float32)
    out[..., 4:] = log_scale
    gradient = jax.grad(lambda out, x=x: likelihood.log_prob(out, x).sum())(jnp.asarray(out))
    assert bool(jnp.isfinite(gradient).all())
    assert bool(jnp.abs(gradient[..., 2:4]).max() > 0)  # means are drawn to what was seen


def test_more_levels_share_the_mass_of_fewer():
  """Nats are of the image: a smooth law over 256 levels costs log(256 / 16) a pixel more than over 16."""
  fine, coarse = likelihoods.discretized_logistic(256), likelihoods.discretized_logistic(16)
  pixels = images.from_levels(np.array([5, 7, 8, 10]).reshape(4, 1, 1, 1), 16)
  out = jnp.broadcast_to(jnp.array([0.0, 0.05, -1.0]), (4, 1, 1, 3))
  nats = [likelihood.log_prob(out, likelihood.observe(None, pixels)) for likelihood in (coarse, fine)]
  np.testing.assert_allclose(nats[0] - nats[1], np.log(255 / 15), atol=0.01)
