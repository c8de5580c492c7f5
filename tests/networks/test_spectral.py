"""Spectral normalisation against numpy's singular values."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks.players import FlatCritic
from gm_jax.networks.spectral import SpectralNorm, spectral_conv, spectral_dense
from tests.networks.tools import assert_equal, noisy

X = jax.random.normal(jax.random.key(0), (3, 4, 5, 2))
ROWS = X.reshape(3, -1)[:, :7]
# A layer, its input, and the same layer without the norm.
LAYERS = {
  "tall": (spectral_dense(3), ROWS, nn.Dense(3)),
  "wide": (spectral_dense(9), ROWS, nn.Dense(9)),
  "conv": (spectral_conv(5, 3), X, nn.Conv(5, (3, 3))),
}


def new(name):
  """A layer away from its start, of large weights: `(apply(variables, train) -> (y, changed), variables)`."""
  layer, x, _ = LAYERS[name]
  variables = noisy(lambda key, x: layer.init(key, x, True), x, size=3.0)
  # One channel larger than the others sets the first singular value apart from the second: the iteration is short.
  params = variables["params"]["layer"]
  params["kernel"] = jnp.concatenate([3 * params["kernel"][..., :1], params["kernel"][..., 1:]], -1)
  return jax.jit(lambda variables, train: layer.apply(variables, x, train, mutable=["spectral"]), static_argnums=1), variables


def largest(kernel):
  return np.linalg.svd(np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1]), compute_uv=False)[0]


def effective(name, y, variables):
  """The kernel that the output was computed with: the layer's own, times some number."""
  _, x, plain = LAYERS[name]
  params = variables["params"]["layer"]
  shift = params["bias"].reshape((1,) * (y.ndim - 1) + (-1,))
  full = plain.apply({"params": {**params, "bias": 0 * params["bias"]}}, x)
  scale = jnp.vdot(y - shift, full) / jnp.vdot(full, full)
  assert_equal(y - shift, scale * full)
  return scale * params["kernel"]


@pytest.mark.parametrize("name", ["tall", "conv"])
def test_training_finds_the_largest_singular_value(name):
  apply, variables = new(name)
  found = []
  for _ in range(12):
    y, vectors = apply(variables, True)
    found.append(largest(effective(name, y, variables)))
    variables = {**variables, **vectors}
  assert found[0] > 1.0005  # a turn from anywhere finds less than there is
  assert found[-1] <= found[0]
  np.testing.assert_allclose(found[-1], 1, rtol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_evaluation_is_exact_at_once_and_changes_nothing(name):
  apply, variables = new(name)
  y, vectors = apply(variables, False)
  np.testing.assert_allclose(largest(effective(name, y, variables)), 1, rtol=1e-5)
  np.testing.assert_array_equal(vectors["spectral"]["kernel"], variables["spectral"]["kernel"])
  np.testing.assert_array_equal(apply({**variables, "spectral": {"kernel": -variables["spectral"]["kernel"]}}, False)[0], y)


def test_each_call_in_training_is_one_turn_of_the_iteration():
  apply, variables = new("conv")
  matrix = np.asarray(variables["params"]["layer"]["kernel"], np.float64).reshape(-1, 5)
  turned = matrix.T @ (matrix @ np.asarray(variables["spectral"]["kernel"], np.float64))
  y, vectors = apply(variables, True)
  np.testing.assert_allclose(vectors["spectral"]["kernel"], turned / np.linalg.norm(turned), rtol=1e-4, atol=1e-5)
  # ... and it is already that of this call.
  u = matrix @ np.asarray(variables["spectral"]["kernel"], np.float64)
  value = (u / np.linalg.norm(u)) @ matrix @ (turned / np.linalg.norm(turned))
  assert_equal(effective("conv", y, variables), matrix.reshape(3, 3, 2, 5) / value)


@pytest.mark.parametrize("train", [True, False])
def test_gradient_goes_through_the_norm(train):
  """At the true vectors: that of sum(c * W / sigma(W)) by central differences of numpy's singular values."""
  layer, x, _ = LAYERS["tall"]
  _, variables = new("tall")
  kernel = np.asarray(variables["params"]["layer"]["kernel"], np.float64)
  v = np.linalg.svd(kernel)[2][0].astype(np.float32)
  spectral = {"spectral": {"kernel": jnp.asarray(v)}}

  def loss(kernel):
    params = {"params": {"layer": {"kernel": kernel, "bias": jnp.zeros(3)}}}
    return jnp.square(layer.apply({**params, **spectral}, x, train, mutable=["spectral"])[0]).sum()

  exact = lambda kernel: np.square(np.asarray(x, np.float64) @ kernel / largest(kernel)).sum()
  expected = np.zeros(kernel.shape)
  for place in np.ndindex(*kernel.shape):
    step = np.zeros(kernel.shape)
    step[place] = 1e-5
    expected[place] = (exact(kernel + step) - exact(kernel - step)) / 2e-5
  gradient = jax.jit(jax.grad(loss))(jnp.asarray(kernel, jnp.float32))
  np.testing.assert_allclose(gradient, expected, atol=1e-4 * np.abs(expected).max())
  np.testing.assert_allclose(np.vdot(gradient, kernel), 0, atol=1e-4)  # a scale of W changes nothing


def test_a_critics_weights_are_all_normalised_and_stored_as_they_are():
  critic = SpectralNorm(FlatCritic((6, 5)))
  start = jax.jit(lambda: critic.init(jax.random.key(1), X, True))()
  inner = jax.jit(lambda: FlatCritic((6, 5)).init(jax.random.key(1), X, True))()
  assert jax.tree.map(jnp.shape, start["params"]["player"]) == jax.tree.map(jnp.shape, inner["params"])
  kernels = {f"FlatEncoder_0.MLP_0.Dense_{i}.kernel" for i in range(2)} | {"Dense_0.kernel"}
  assert set(start["spectral"]) == kernels
  assert largest(start["params"]["player"]["Dense_0"]["kernel"]) != pytest.approx(1, abs=1e-3)

  variables = noisy(lambda key, x: critic.init(key, x, True), X, size=3.0)
  unit = jax.tree.map(lambda leaf: leaf / largest(leaf) if leaf.ndim > 1 else leaf, variables["params"]["player"])
  expected = FlatCritic((6, 5)).apply({"params": unit}, X, False, method="judge")
  assert_equal(critic.apply(variables, X, False, method="judge"), expected, 1e-4)
  np.testing.assert_array_equal(critic.apply(variables, X, False), critic.apply(variables, X, False, method="judge")[0])


def test_critic_is_lipschitz_without_a_penalty():
  critic = SpectralNorm(FlatCritic((6, 5)))
  variables = noisy(lambda key, x: critic.init(key, x, True), X, size=3.0)
  slopes = jax.jit(jax.grad(lambda x: critic.apply(variables, x, False).sum()))(10 * X)
  norms = np.linalg.norm(slopes.reshape(3, -1), axis=1)
  assert norms.max() <= 1 + 1e-5
  assert norms.min() > 0
