"""Batch norm: flax's numbers in one piece, the same numbers in eight; group norm by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import rows
from gm_jax.networks.norm import BatchNorm, group_norm
from tests.networks.tools import assert_equal, noisy

X = 3 + 2 * jax.random.normal(jax.random.key(0), (16, 4, 4, 3))


def learn(layer, variables, x, **arguments):
  """Output, moved statistics, and the gradient by parameters and input of a mean over the batch."""

  def loss(params, x):
    y, stats = layer.apply({**variables, "params": params}, x, mutable=["batch_stats"], **arguments)
    return jnp.sin(y).mean(), (y, stats["batch_stats"])

  (_, (y, stats)), (d_params, d_x) = jax.value_and_grad(loss, (0, 1), has_aux=True)(variables["params"], x)
  return {"y": y, "stats": stats, "d_params": d_params, "d_x": d_x}


@pytest.mark.parametrize("arguments", [{}, {"momentum": 0.7, "epsilon": 0.1}, {"use_scale": False}])
def test_batch_norm_is_flaxs(arguments):
  ours = BatchNorm(**arguments)
  theirs = nn.BatchNorm(**{"momentum": 0.9, "use_fast_variance": False, **arguments})
  variables = noisy(lambda key, x: theirs.init(key, x, use_running_average=False), X, size=0.1)
  assert jax.tree.map(jnp.shape, ours.init(jax.random.key(1), X, True)) == jax.tree.map(jnp.shape, variables)
  for train in (True, False):
    assert_equal(learn(ours, variables, X, train=train), learn(theirs, variables, X, use_running_average=not train))


def test_eight_devices_share_one_batch():
  layer = BatchNorm()
  variables = noisy(lambda key, x: layer.init(key, x, True), X, size=0.1)

  def on_device(variables, x):
    with rows.view(axis="data"):
      result = learn(layer, variables, x, train=True)
      return {**result, "d_params": rows.mean(result["d_params"])}

  pieces = jax.pmap(on_device, "data", in_axes=(None, 0))(variables, X.reshape(8, 2, *X.shape[1:]))
  whole = learn(layer, variables, X, train=True)
  assert_equal(pieces["y"].reshape(X.shape), whole["y"])
  assert_equal(pieces["d_x"].reshape(X.shape) / 8, whole["d_x"])  # a device's loss is a mean over an eighth
  for device in range(8):
    for name in ("stats", "d_params"):
      assert_equal(jax.tree.map(lambda leaf, device=device: leaf[device], pieces[name]), whole[name])


def test_a_mean_far_from_zero_costs_no_digits():
  """E[x^2] - E[x]^2 would leave a variance of 0, or below."""
  x = 1e4 + jax.random.normal(jax.random.key(0), (512, 2))
  exact = np.asarray(x, np.float64)
  expected = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
  y, _ = BatchNorm().init_with_output(jax.random.key(1), x, True)
  np.testing.assert_allclose(y, expected, atol=2e-3)


def test_half_precision_keeps_full_statistics():
  x = X.astype(jnp.bfloat16)
  layer = BatchNorm()
  y, changed = layer.apply(layer.init(jax.random.key(1), x, True), x, True, mutable=["batch_stats"])
  assert y.dtype == jnp.bfloat16
  assert_equal(changed["batch_stats"]["mean"], 0.1 * x.astype(jnp.float32).mean((0, 1, 2)))


class _Group(nn.Module):
  @nn.compact
  def __call__(self, x):
    return group_norm(x)


@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (12, 4), (9, 1)])
def test_group_norm_by_hand(channels, groups):
  x = np.asarray(100 + jax.random.normal(jax.random.key(0), (3, 4, 5, channels)), np.float64)
  parts = x.reshape(3, 20, groups, -1)
  expected = (parts - parts.mean((1, 3), keepdims=True)) / np.sqrt(parts.var((1, 3), keepdims=True) + 1e-6)
  y, _ = _Group().init_with_output(jax.random.key(1), jnp.asarray(x, jnp.float32))
  np.testing.assert_allclose(y, expected.reshape(x.shape), atol=1e-3)
