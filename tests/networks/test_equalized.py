"""Equalised learning rate: unit activations at the start, and one relative step for all weights."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.networks.equalized import HE, EqualConv, EqualDense, he, leaky, pixel_norm
from tests.networks.tools import assert_equal, noisy

X = jax.random.normal(jax.random.key(0), (3, 7, 6, 5))


@pytest.mark.parametrize("pace", [1.0, 0.01])
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 900), (900, 300)])
def test_dense_layer_keeps_the_variance_at_any_width(inputs, outputs, pace):
  x = jax.random.normal(jax.random.key(1), (200, inputs))
  y, _ = jax.jit(EqualDense(outputs, gain=1.0, pace=pace).init_with_output)(jax.random.key(2), x)
  assert abs(np.var(y) - 1) < 5 * np.sqrt(2 / (inputs * min(outputs, 200)))
  rectified, _ = jax.jit(EqualDense(outputs, pace=pace).init_with_output)(jax.random.key(2), x)
  # Half of the power passes, a 25th of the other half leaks.
  assert abs(jnp.square(leaky(rectified)).mean() - (1 + 0.04)) < 0.2


@pytest.mark.parametrize(("channels", "size"), [(2, 1), (40, 3)])
def test_convolution_keeps_the_variance_at_any_width(channels, size):
  x = jax.random.normal(jax.random.key(1), (2, 12, 12, channels))
  y, _ = jax.jit(EqualConv(200, size, gain=1.0, padding="VALID").init_with_output)(jax.random.key(2), x)
  assert abs(np.var(y) - 1) < 5 * np.sqrt(2 / (channels * size**2 * 100))


def test_adam_moves_every_layer_by_the_same_share_of_itself():
  """A step of 0.01 is a hundredth of every weight's deviation; with a pace, of that share.  Of plain layers it is not."""

  class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
      h = EqualConv(3, 3, name="narrow")(x)
      h = EqualConv(50, 3, name="wide")(h)
      h = EqualDense(4, name="dense")(h.reshape(len(h), -1))
      return EqualDense(4, pace=0.1, name="slow")(h)

  params = Net().init(jax.random.key(3), X)["params"]
  optimizer = optax.adam(0.01, eps=0.0)
  gradient = jax.jit(jax.grad(lambda params: jnp.square(Net().apply({"params": params}, X)).sum()))(params)
  updates, _ = optimizer.update(gradient, optimizer.init(params))
  for name, pace in (("narrow", 1.0), ("wide", 1.0), ("dense", 1.0), ("slow", 0.1)):
    stored, step = params[name]["kernel"], updates[name]["kernel"]
    effective, moved = he(stored, pace), jnp.abs(he(step, pace))
    expected = 0.01 * pace * HE / np.sqrt(stored[..., 0].size) / HE  # of all weights of a layer alike
    np.testing.assert_allclose(moved, expected, rtol=1e-4)
    assert abs(moved.mean() / effective.std() - 0.01 * pace) < 0.3 * 0.01 * pace, name


def test_layers_by_hand():
  layer = EqualConv(4, 3, gain=0.7, stride=2)
  params = noisy(layer.init, X)["params"]
  plain = nn.Conv(4, (3, 3), (2, 2))
  expected = plain.apply({"params": {**params, "kernel": params["kernel"] * 0.7 / np.sqrt(3 * 3 * 5)}}, X)
  assert_equal(layer.apply({"params": params}, X), expected)
  x = X[:, 0, 0]
  layer = EqualDense(4, gain=0.7, pace=0.1, bias=2.0)
  params = noisy(layer.init, x)["params"]
  expected = 0.1 * (x @ params["kernel"] * 0.7 / np.sqrt(5) + params["bias"][None])
  assert_equal(layer.apply({"params": params}, x), expected)
  new = layer.init(jax.random.key(0), x)["params"]
  np.testing.assert_allclose(layer.apply({"params": new}, 0 * x), 2.0, rtol=1e-6)  # a start at 2 is at 2 at any pace


def test_pixel_norm_leaves_each_pixel_with_unit_mean_square():
  x = X * jnp.arange(1, 7.0)[None, None, :, None] ** 3
  y = pixel_norm(x)
  np.testing.assert_allclose(jnp.square(y).mean(-1), 1, rtol=1e-4)
  np.testing.assert_allclose(y / x, jnp.broadcast_to((y / x)[..., :1], y.shape), rtol=1e-4)  # directions stay
  np.testing.assert_array_equal(pixel_norm(0 * x), 0 * x)
  assert jnp.isfinite(jax.grad(lambda x: pixel_norm(x).sum())(0 * X)).all()
