"""The VAE against its exact values: probabilistic PCA, quadrature over a one-dimensional latent, and enumeration."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from gm_jax import images, testing
from gm_jax.approximate import vae
from gm_jax.core import Average
from gm_jax.networks.flat import FlatDecoder, FlatEncoder
from tests import models


class Identity(nn.Module):
  def __call__(self, x, train):
    return x.reshape(len(x), -1)


class LinearWithNoise(nn.Module):
  """x = W z + b + noise, with one variance for all pixels: the decoder of probabilistic PCA."""

  size: int

  @nn.compact
  def __call__(self, z, train):
    mean = nn.Dense(self.size)(z)
    log_var = jnp.broadcast_to(self.param("log_var", nn.initializers.zeros, (1,)), mean.shape)
    return jnp.concatenate([mean, log_var], -1)[:, None, None, :]


def linear_vae(size=5, num_latents=2):
  # The floor on the log-variance is far away, so that the softplus that keeps it is the identity to rounding.
  likelihood = vae.gaussian(-30.0, images.POINTS)
  return vae.VAE(Identity(), LinearWithNoise(size), likelihood, num_latents)


class VariablesOnly:
  """As much of a state as the functions of a trained VAE read."""

  def __init__(self, variables):
    self.average = Average(variables, jnp.zeros((), jnp.int32))


def ppca_maximum_likelihood(x, num_latents):
  """Closed form of Tipping & Bishop 1999, equations 7 and 8: loadings, noise variance, mean and log-likelihood per point."""
  mean, covariance = x.mean(0), np.cov(x.T, bias=True)
  values, vectors = np.linalg.eigh(covariance)
  values, vectors = values[::-1], vectors[:, ::-1]
  noise = values[num_latents:].mean()
  loadings = vectors[:, :num_latents] * np.sqrt(values[:num_latents] - noise)
  model = loadings @ loadings.T + noise * np.eye(x.shape[1])
  return loadings, noise, mean, stats.multivariate_normal(mean, model).logpdf(x)


def ppca_variables(loadings, noise, mean):
  """The linear VAE that is this probabilistic PCA: its decoder, and the exact posterior as its encoder."""
  inverse = np.linalg.inv(loadings.T @ loadings + noise * np.eye(loadings.shape[1]))  # diagonal: the loadings are orthogonal
  project = inverse @ loadings.T
  params = {
    "decoder": {"Dense_0": {"kernel": loadings.T, "bias": mean}, "log_var": np.array([np.log(noise)])},
    "posterior": {
      "kernel": np.concatenate([project.T, np.zeros_like(project.T)], 1),
      "bias": np.concatenate([-project @ mean, np.log(noise * np.diag(inverse))]),
    },
  }
  return {"params": jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)}


@pytest.fixture(scope="module")
def points():
  generator = np.random.default_rng(0)
  mixing = generator.normal(size=(5, 5)) * np.array([2.0, 1.5, 0.3, 0.2, 0.1])
  return (generator.normal(size=(400, 5)) @ mixing.T + generator.normal(size=5)).astype(np.float32)


def test_linear_vae_with_the_exact_posterior_is_ppca(points):
  loadings, noise, mean, log_likelihood = ppca_maximum_likelihood(points, 2)
  state = VariablesOnly(ppca_variables(loadings, noise, mean))
  batch = {"image": jnp.asarray(points[:50, None, None, :])}
  # p(x, z) / q(z | x) = p(x) for every z, so one sample is exact, and every sample counts.
  estimate = vae.evidence(linear_vae(), jax.random.key(0), state, batch, num_samples=8, chunk=4)
  np.testing.assert_allclose(estimate.log_prob, log_likelihood[:50], atol=2e-4, rtol=1e-4)
  np.testing.assert_allclose(estimate.ess, 8, rtol=1e-3)
  assert float(estimate.stderr.max()) < 1e-2


def test_training_a_linear_vae_reaches_the_likelihood_of_ppca(points):
  best = ppca_maximum_likelihood(points, 2)[3].mean()
  batch = {"image": jnp.asarray(points[:, None, None, :])}
  model = vae.vae(linear_vae(), optax.adam(optax.cosine_decay_schedule(2e-2, 3000)), decay=0.99)
  state = jax.jit(model.init)(jax.random.key(0), batch)
  step = lambda state, index: model.step(jax.random.fold_in(jax.random.key(1), index), state, batch)
  state, _ = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(3000)))(state)
  bound = jax.vmap(lambda key: model.evaluate(key, state, batch)["nll_bound"].mean())(jax.random.split(jax.random.key(2), 50))
  assert abs(-bound.mean() - best) < 0.05
  estimate = vae.evidence(linear_vae(), jax.random.key(3), state, batch, num_samples=100, chunk=50)
  assert abs(estimate.log_prob.mean() - best) < 0.02


@functools.cache
def trained_on_one_latent():
  """A small Bernoulli VAE on 3 x 3 images with a one-dimensional latent, trained until q is good but not exact."""
  module = vae.VAE(FlatEncoder((16,), nn.tanh), FlatDecoder((16,), (3, 3, 1), nn.tanh), vae.bernoulli(), num_latents=1)
  model = vae.vae(module, optax.adam(1e-2), decay=0.9)
  generator = np.random.default_rng(0)
  probability = generator.random((1, 3, 3, 1)) * generator.random((64, 3, 1, 1)) * 2
  batch = {"image": (generator.random((64, 1, 1, 1)) < probability) * np.uint8(255)}
  state = jax.jit(model.init)(jax.random.key(0), batch)
  step = jax.jit(model.step)
  for index in range(150):
    state, _ = step(jax.random.key(index), state, batch)
  return module, model, state, batch


def log_prob_by_quadrature(module, state, image):
  """log of the integral of p(x | z) p(z) dz on a fine grid, [B], in float64."""
  z = np.linspace(-9, 9, 3001)
  decode = lambda z: nn.apply(lambda vae: vae.decode(z, train=False), module)(state.average.variables)
  logits = jax.jit(decode)(jnp.asarray(z[:, None]))
  logits = np.asarray(logits, np.float64).reshape(len(z), -1)
  x = (np.asarray(image).reshape(len(image), -1) > 127).astype(np.float64)
  log_likelihood = x @ logits.T - np.logaddexp(0, logits).sum(1)  # [B, grid]
  log_joint = log_likelihood + stats.norm.logpdf(z)
  return np.log(np.trapezoid(np.exp(log_joint - log_joint.max(1, keepdims=True)), z, axis=1)) + log_joint.max(1)


def test_evidence_meets_quadrature_and_its_error_bar_is_honest():
  module, _, state, batch = trained_on_one_latent()
  truth = log_prob_by_quadrature(module, state, batch["image"])
  estimate = vae.evidence(module, jax.random.key(5), state, batch, num_samples=2000, chunk=250)
  z_scores = (np.asarray(estimate.log_prob) - truth) / np.asarray(estimate.stderr)
  assert np.abs(z_scores).max() < 6
  assert 0.5 < np.sqrt((z_scores**2).mean()) < 1.6
  assert (estimate.ess <= 2000 * 1.001).all()
  assert (estimate.ess >= 1).all()


def test_the_bound_rises_with_samples_from_the_elbo_to_the_evidence():
  module, model, state, batch = trained_on_one_latent()
  truth = log_prob_by_quadrature(module, state, batch["image"]).mean()
  keys = jax.random.split(jax.random.key(6), 100)

  def bound(num_samples):
    chunk = min(num_samples, 20)
    estimate = lambda key: vae.evidence(module, key, state, batch, num_samples, chunk).log_prob.mean()
    return np.asarray(jax.jit(jax.vmap(estimate))(keys))

  elbo = -np.asarray(jax.jit(jax.vmap(lambda key: model.evaluate(key, state, batch)["nll_bound"].mean()))(keys))
  bounds = [bound(num) for num in (1, 4, 20, 60)]
  error = lambda draws: draws.std() / np.sqrt(len(draws))
  assert abs(bounds[0].mean() - elbo.mean()) < 4 * (error(bounds[0]) + error(elbo))  # K = 1 is the ELBO
  for fewer, more in zip(bounds, bounds[1:]):
    assert more.mean() > fewer.mean() - 3 * (error(fewer) + error(more))
  assert bounds[-1].mean() - elbo.mean() > 0.01  # there is something to gain, so the chain above is not empty
  assert abs(bounds[-1].mean() - truth) < 0.02


def test_probabilities_of_all_images_sum_to_one():
  module, _, state, _ = trained_on_one_latent()

  def log_prob(x):
    batch = {"image": (x * 255).astype(np.uint8)}
    return vae.evidence(module, jax.random.key(7), state, batch, num_samples=400, chunk=50).log_prob

  assert abs(testing.total_probability(log_prob, (3, 3, 1)) - 1) < 0.03  # the estimate's own spread is a third of that


def test_beta_is_for_training_alone():
  batch = models.binary(0)
  module = vae.VAE(FlatEncoder((16,)), FlatDecoder((16,), (8, 8, 1)), vae.bernoulli(), num_latents=2)
  plain, weighted = vae.vae(module, optax.sgd(1e-2)), vae.vae(module, optax.sgd(1e-2), beta=4.0)
  state = jax.jit(plain.init)(jax.random.key(0), batch)
  evaluated = [jax.jit(model.evaluate)(jax.random.key(1), state, batch) for model in (plain, weighted)]
  np.testing.assert_array_equal(evaluated[0]["nll_bound"], evaluated[1]["nll_bound"])
  np.testing.assert_allclose(evaluated[0]["nll_bound"], evaluated[0]["distortion"] + evaluated[0]["rate"], rtol=1e-6)
  trained = [jax.jit(model.step)(jax.random.key(1), state, batch)[1] for model in (plain, weighted)]
  np.testing.assert_allclose(trained[1]["loss"] - trained[0]["loss"], 3 * trained[0]["rate"], rtol=1e-4)


def test_an_example_is_scored_alone():
  _, model, state, batch = trained_on_one_latent()
  whole = model.evaluate(jax.random.key(8), state, batch)["nll_bound"]
  part = model.evaluate(jax.random.key(8), state, {"image": batch["image"][:5]})["nll_bound"]
  np.testing.assert_allclose(part, whole[:5], rtol=1e-5)


def test_reparameterized_gradients_are_those_of_the_expectation():
  # E[z^2] = mean^2 + var has gradients 2 mean and var with respect to (mean, log var).
  def expectation(*parameters):
    mean, log_var = (jnp.full((200_000, 1), parameter) for parameter in parameters)
    return (vae.reparameterize(jax.random.key(0), mean, log_var) ** 2).mean()

  gradient = jax.grad(expectation, (0, 1))(0.7, -0.5)
  np.testing.assert_allclose(gradient, (1.4, np.exp(-0.5)), atol=0.02)


def test_ancestral_samples_have_the_means_of_the_decoder():
  module, _, state, _ = trained_on_one_latent()
  draw = lambda sample: nn.apply(sample, module)(state.average.variables, jax.random.key(9), 20_000)
  means, pixels = draw(vae.mean_sample), draw(vae.ancestral_sample)
  assert set(np.unique(pixels)) <= {0, 255}
  np.testing.assert_allclose(pixels.mean(0) / 255, means.mean(0) / 255, atol=0.02)


def test_encode_and_decode_invert_each_other_on_a_trained_model():
  module, _, state, batch = trained_on_one_latent()
  mean, log_var = vae.encode(module, jax.random.key(0), state, batch["image"])
  assert mean.shape == log_var.shape == (64, 1)
  decoded = np.asarray(vae.decode(module, state, mean)) > 127
  constant = (np.asarray(batch["image"]) > 127).mean(0) > 0.5
  pixels = np.asarray(batch["image"]) > 127
  assert (decoded == pixels).mean() > (constant == pixels).mean()  # better than the best image that knows nothing of x


def test_evidence_names_a_bad_number_of_samples():
  module, _, state, batch = trained_on_one_latent()
  with pytest.raises(ValueError, match="30 is not a multiple of chunk 20"):
    vae.evidence(module, jax.random.key(0), state, batch, num_samples=30)
