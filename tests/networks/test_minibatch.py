"""Layers that compare examples: loops in numpy, and the same on eight devices as on one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import rows
from gm_jax.networks.minibatch import MinibatchCritic, MinibatchDiscrimination, append_deviation, deviation
from gm_jax.networks.players import FlatCritic
from tests.networks.tools import assert_all_used, assert_equal, noisy

X = np.random.default_rng(0).normal(size=(32, 3, 2, 4)).astype(np.float32)
LAYER = MinibatchDiscrimination(kernels=3, dim=2)

GROUPS = {
  (8, 4): [[0, 1, 2, 3], [4, 5, 6, 7]],
  (6, 4): [[0, 1, 2], [3, 4, 5]],
  (7, 4): [[0, 1, 2, 3], [4, 5, 6]],
  (3, 4): [[0, 1, 2]],
  (4, 1): [[0], [1], [2], [3]],
  (5, None): [[0, 1, 2, 3, 4]],
}


@pytest.mark.parametrize(("num", "group"), GROUPS)
def test_deviation_is_that_of_the_group_averaged_over_features(num, group):
  expected = np.zeros(num)
  for members in GROUPS[num, group]:
    deviations = [np.std(X[members, i, j, c].astype(np.float64)) for i in range(3) for j in range(2) for c in range(4)]
    expected[members] = np.mean(deviations)
  np.testing.assert_allclose(deviation(X[:num], group), expected, rtol=1e-5, atol=1.1e-4)  # sqrt(1e-8) where all is alike
  y = append_deviation(jnp.asarray(X[:num]), group)
  np.testing.assert_array_equal(y[..., :-1], X[:num])
  np.testing.assert_allclose(y[..., -1], np.broadcast_to(expected[:, None, None], (num, 3, 2)), rtol=1e-5, atol=1.1e-4)


@pytest.mark.parametrize("group", [4, None])
def test_identical_examples_do_not_deviate_and_have_a_gradient(group):
  x = jnp.broadcast_to(100 + jnp.asarray(X[:1]), (8, 3, 2, 4))
  value, gradient = jax.value_and_grad(lambda x: deviation(x, group).sum())(x)
  np.testing.assert_allclose(value / 8, 1e-4, rtol=0.2)
  assert jnp.isfinite(gradient).all()


def test_nothing_leaks_from_group_to_group():
  leak = jax.jit(jax.jacobian(lambda x: deviation(x, 4)))(X[:12])
  strength = np.abs(leak).sum((2, 3, 4))  # [of, to]
  np.testing.assert_array_equal(strength > 0, np.kron(np.eye(3), np.ones((4, 4))) > 0)


def by_loop(matrices):
  """o(x_i)_k = sum_j exp(-|M_ik - M_jk|_1), one pair at a time."""
  num, kernels, _ = matrices.shape
  out = np.zeros((num, kernels))
  for i in range(num):
    for j in range(num):
      for k in range(kernels):
        out[i, k] += np.exp(-sum(abs(a - b) for a, b in zip(matrices[i, k], matrices[j, k])))
  return out


def test_discrimination_by_loop():
  f = X[:6, 0, 0]
  params = noisy(LAYER.init, f)
  matrices = f.astype(np.float64) @ np.asarray(params["params"]["Dense_0"]["kernel"], np.float64)
  np.testing.assert_allclose(LAYER.apply(params, f), by_loop(matrices.reshape(6, 3, 2)), rtol=1e-5)


def test_the_same_image_six_times_is_as_close_as_can_be():
  f = jnp.broadcast_to(X[:1, 0, 0], (6, 4))
  np.testing.assert_allclose(LAYER.apply(noisy(LAYER.init, f), f), 6)


def test_critic_is_one_linear_layer_on_features_and_closeness():
  critic = MinibatchCritic(FlatCritic((5,)), kernels=3, dim=2)
  params = noisy(lambda key, x: critic.init(key, x, True), X[:6])
  logits, features = critic.apply(params, X[:6], True, method="judge")
  inner, plain = FlatCritic((5,)).apply({"params": params["params"]["critic"]}, X[:6], True, method="judge")
  closeness = LAYER.apply({"params": params["params"]["MinibatchDiscrimination_0"]}, plain)
  assert_equal(features, np.concatenate([plain, closeness], -1))
  assert_equal(logits - inner, closeness @ params["params"]["Dense_0"]["kernel"][:, 0])
  assert_all_used(jax.grad(lambda params: jnp.sin(critic.apply(params, X[:6], True)).sum())(params))
  # A batch of one image is told from a batch of many, image by image.
  alone = critic.apply(params, jnp.broadcast_to(X[:1], (6, 3, 2, 4)), True)
  assert np.abs(alone - logits)[0] > 1e-2


@pytest.mark.parametrize("mixing", [lambda x: deviation(x, 4), lambda x: deviation(x, None), "discrimination"])
def test_eight_devices_share_one_batch(mixing):
  x = X.reshape(32, -1)
  params = noisy(LAYER.init, x)
  apply = (lambda params, x: LAYER.apply(params, x)) if mixing == "discrimination" else lambda params, x: mixing(x)

  def learn(params, x):
    def loss(params, x):
      y = apply(params, x)
      return jnp.sin(3 * y).mean(), y

    (_, y), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
    return y, *gradients

  def on_device(params, x):
    with rows.view(first=5, axis="data"):
      y, d_params, d_x = learn(params, x)
      return y, rows.mean(d_params), d_x

  y, d_params, d_x = jax.pmap(on_device, "data", in_axes=(None, 0))(params, x.reshape(8, 4, -1))
  whole = jax.jit(learn)(params, x)
  assert_equal(y.reshape(whole[0].shape), whole[0])
  assert_equal(d_x.reshape(x.shape) / 8, whole[2])  # a device's loss is a mean over an eighth
  for device in range(8):
    assert_equal(jax.tree.map(lambda leaf, device=device: leaf[device], d_params), whole[1])
