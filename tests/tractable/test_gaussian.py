"""Closed forms against numpy in float64 and scipy; probabilistic PCA against the eigenvectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax import data, images
from gm_jax.tractable import gaussian as g

DIMS = 12


def points(num, seed=0, dims=DIMS):
  """Correlated, with very unequal scales and far from the origin: float32 [num, 1, 1, dims]."""
  rng = np.random.default_rng(seed)
  shape = (np.eye(dims) + 0.25 * np.random.default_rng(99).normal(size=(dims, dims))) * np.geomspace(1, 0.05, dims)[:, None]
  return (5 + rng.normal(size=(num, dims)) @ shape.T).astype(np.float32)[:, None, None]


def learnt(model, image, steps=1, batches=1, step_seed=0):
  state = jax.jit(model.init)(jax.random.key(0), {"image": image})
  step = jax.jit(model.step)
  for index in range(steps):
    for piece in np.split(image, batches):
      state, metrics = step(jax.random.key(step_seed + index), state, {"image": piece})
  return state, metrics


def nll_of(model, state, image):
  return np.asarray(jax.jit(model.evaluate)(jax.random.key(1), state, {"image": image})["nll"], np.float64)


@pytest.mark.parametrize("batches", [1, 5])
def test_moments_are_numpys_however_the_data_come(batches):
  x = points(1000)
  state, _ = learnt(g.gaussian(images.POINTS), x, batches=batches)
  flat = x.reshape(1000, -1).astype(np.float64)
  np.testing.assert_allclose(state.mean.reshape(-1), flat.mean(0), rtol=1e-6)
  np.testing.assert_allclose(state.covariance, np.cov(flat.T, ddof=0), atol=1e-4, rtol=1e-4)


def test_the_density_is_scipys():
  model = g.gaussian(images.POINTS)
  x, test = points(1000), points(50, 1)
  state, metrics = learnt(model, x)
  flat = x.reshape(1000, -1).astype(np.float64)
  law = stats.multivariate_normal(flat.mean(0), np.cov(flat.T, ddof=0))
  np.testing.assert_allclose(nll_of(model, state, test), -law.logpdf(test.reshape(50, -1)), rtol=1e-4, atol=1e-3)
  np.testing.assert_allclose(metrics["nll"], law.entropy(), atol=1e-3)  # on its own data, exactly the entropy


def test_the_likelihood_is_the_largest():
  """Any other mean or covariance is worse on the training data: the gradient at the fit is zero."""
  x = points(400)
  state, _ = learnt(g.gaussian(images.POINTS), x)
  model = g.gaussian(images.POINTS)
  loss = lambda state: model.evaluate(jax.random.key(0), state, {"image": x})["nll"].mean()
  slopes = jax.grad(lambda mean, covariance: loss(state._replace(mean=mean, covariance=covariance)), (0, 1))(*state[:2])
  assert float(jnp.abs(slopes[0]).max()) < 2e-2
  scale = np.sqrt(np.diag(state.covariance))
  assert float(jnp.abs(slopes[1] * scale[:, None] * scale[None]).max()) < 2e-3


def test_bits_per_dimension_do_not_change_under_a_rotation():
  rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(DIMS, DIMS)))[0]
  model = g.gaussian(images.POINTS)
  bits = []
  for turn in (np.eye(DIMS), rotation):
    train, test = ((points(*args).reshape(-1, DIMS) @ turn).astype(np.float32)[:, None, None] for args in ((1000,), (200, 1)))
    state, _ = learnt(model, train)
    bits.append(float(images.bits_per_dim(nll_of(model, state, test).mean(), DIMS)))
  assert abs(bits[0] - bits[1]) < 1e-4


def test_float32_is_enough_for_digits():
  """Dequantised digits: pixels that are always black have variances 1e-4 of others, and the nll is float64's."""
  train, test = (data.digits(split).arrays["image"] for split in ("train", "test"))
  model = g.gaussian()
  state, _ = learnt(model, train)
  read = lambda image, key: np.asarray(images.dequantize(key, image), np.float64).reshape(len(image), -1)
  x, y = read(train, jax.random.key(0)), read(test, jax.random.key(1))
  law = stats.multivariate_normal(x.mean(0), np.cov(x.T, ddof=0))
  np.testing.assert_allclose(nll_of(model, state, test), 64 * np.log(256) - law.logpdf(y), rtol=1e-4, atol=0.05)


def test_principal_directions_diagonalise():
  covariance = learnt(g.gaussian(images.POINTS), points(500))[0].covariance
  variances, directions = g.principal(covariance)
  assert np.all(np.diff(variances) <= 0)
  np.testing.assert_allclose(directions.T @ directions, np.eye(DIMS), atol=1e-5)
  np.testing.assert_allclose(directions @ np.diag(variances) @ directions.T, covariance, atol=1e-4 * float(variances[0]))


@pytest.mark.parametrize("make", [g.gaussian, lambda pixels: g.low_rank(3, pixels)], ids=["full", "low rank"])
def test_samples_have_the_moments(make):
  model = make(images.POINTS)
  state, _ = learnt(model, points(500), steps=30 if make is not g.gaussian else 1)
  num = 40_000
  x = np.asarray(jax.jit(model.sample, static_argnums=2)(jax.random.key(2), state, num), np.float64).reshape(num, -1)
  if make is g.gaussian:
    covariance = np.asarray(state.covariance)
  else:
    covariance = np.asarray(state.factor @ state.factor.T + g.low_rank_noise(state) * np.eye(DIMS))
  spread = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
  assert np.all(np.abs(x.mean(0) - np.asarray(state.mean).reshape(-1)) < 5 * np.sqrt(np.diag(covariance) / num))
  assert np.all(np.abs(np.cov(x.T) - covariance) < 5 * np.sqrt(2 / num) * spread)


def closed_form(x, rank):
  """Tipping & Bishop, equations 7 and 8: W W^T and sigma^2 from the eigenvectors, in float64."""
  values, vectors = np.linalg.eigh(np.cov(x.T, ddof=0))
  rest = values[:-rank].mean()
  return (vectors[:, -rank:] * (values[-rank:] - rest)) @ vectors[:, -rank:].T, rest


@pytest.mark.parametrize("rank", [1, 4])
def test_em_ends_at_the_eigenvectors(rank):
  x = points(600)
  model = g.low_rank(rank, images.POINTS)
  state, metrics = learnt(model, x, steps=100)
  flat = x.reshape(600, -1).astype(np.float64)
  product, rest = closed_form(flat, rank)
  np.testing.assert_allclose(state.factor @ state.factor.T, product, atol=2e-3 * np.abs(product).max())
  np.testing.assert_allclose(g.low_rank_noise(state), rest, rtol=1e-3)
  law = stats.multivariate_normal(flat.mean(0), product + rest * np.eye(DIMS))
  np.testing.assert_allclose(metrics["nll"], -law.logpdf(flat).mean(), atol=1e-3)


def test_em_for_low_rank_never_lowers_the_likelihood():
  with jax.enable_x64(True):
    x = points(300).astype(np.float64)
    model = g.low_rank(3, images.POINTS)
    state, step = jax.jit(model.init)(jax.random.key(0), {"image": x}), jax.jit(model.step)
    values = [nll_of(model, state, x).mean()]
    for _ in range(30):
      state, _ = step(jax.random.key(0), state, {"image": x})
      values.append(nll_of(model, state, x).mean())
  assert values[0] > values[-1] + 0.1
  assert np.all(np.diff(values) < 1e-9)


def test_codes_are_pcas_when_the_noise_is_small():
  """On data that lie in a plane, the posterior mean spans the first two principal components."""
  rng = np.random.default_rng(0)
  plane = rng.normal(size=(2, DIMS))
  x = (rng.normal(size=(500, 2)) @ plane + 1e-2 * rng.normal(size=(500, DIMS))).astype(np.float32)[:, None, None]
  state, _ = learnt(g.low_rank(2, images.POINTS), x, steps=40)
  codes = np.asarray(g.encode(state, x), np.float64)
  flat = x.reshape(500, -1) - x.reshape(500, -1).mean(0)
  left = np.linalg.svd(flat, full_matrices=False)[0][:, :2]
  rest = codes - left @ (left.T @ codes)
  assert np.abs(rest).max() < 5e-3 * np.abs(codes).max()
  np.testing.assert_allclose(np.cov(codes.T, ddof=0), np.eye(2), atol=2e-2)  # the latents' own law


def test_a_sphere_makes_few_examples_enough():
  """Five examples of twelve dimensions: the shrunk covariance has full rank and the trace of the sample's."""
  x = points(5)
  model = g.gaussian(images.POINTS, g.towards_sphere(0.2))
  state, _ = learnt(model, x)
  shrunk = np.asarray(g.towards_sphere(0.2)(state.covariance), np.float64)
  np.testing.assert_allclose(np.trace(shrunk), np.trace(state.covariance), rtol=1e-5)
  law = stats.multivariate_normal(np.asarray(state.mean, np.float64).reshape(-1), shrunk)
  np.testing.assert_allclose(nll_of(model, state, points(9, 1)), -law.logpdf(points(9, 1).reshape(9, -1)), rtol=1e-3)


@pytest.mark.parametrize("rank", [0, DIMS])
def test_a_rank_that_is_none_is_refused(rank):
  with pytest.raises(ValueError, match=f"rank {rank}"):
    g.low_rank(rank, images.POINTS).init(jax.random.key(0), {"image": points(5)})
