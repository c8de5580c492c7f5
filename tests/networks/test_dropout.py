"""Dropout: what it keeps, how often, and that example i loses the same wherever it is computed."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import rows
from gm_jax.networks.dropout import Dropout

X = 1 + jax.random.uniform(jax.random.key(0), (16, 5, 5, 40))


def drop(x, rate=0.3, train=True, key=1):
  return Dropout(rate).apply({}, x, train, rngs={"dropout": jax.random.key(key)})


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_keeps_and_scales_as_often_as_it_should(rate):
  y = np.asarray(drop(X, rate))
  kept = y != 0
  np.testing.assert_allclose(y[kept], np.asarray(X)[kept] / (1 - rate), rtol=1e-6)
  deviation = np.sqrt(rate * (1 - rate) / X.size)
  assert abs(kept.mean() - (1 - rate)) < 5 * deviation
  # Independently per entry: neighbours along any axis agree as often as chance has it.
  for axis in range(4):
    agree = np.mean(kept == np.roll(kept, 1, axis))
    assert abs(agree - (rate**2 + (1 - rate) ** 2)) < 5 * np.sqrt(0.5 / X.size)


def test_does_nothing_when_it_should_not():
  np.testing.assert_array_equal(Dropout(0.3).apply({}, X, False), X)
  np.testing.assert_array_equal(Dropout(0.0).apply({}, X, True), X)


def test_keys_and_layers_differ():
  class Two(nn.Module):
    @nn.compact
    def __call__(self, x):
      return Dropout(0.5)(x, True), Dropout(0.5)(x, True)

  first, second = Two().apply({}, X, rngs={"dropout": jax.random.key(1)})
  assert not np.array_equal(first, second)
  assert not np.array_equal(drop(X, key=1), drop(X, key=2))
  np.testing.assert_array_equal(drop(X, key=1), drop(X, key=1))


def test_an_example_loses_the_same_entries_however_the_batch_is_cut():
  whole = drop(X)
  for start, stop in ((0, 1), (3, 10), (15, 16)):
    with rows.view(first=start):
      np.testing.assert_array_equal(drop(X[start:stop]), whole[start:stop])

  def on_device(x):
    with rows.view(axis="data"):
      return drop(x)

  pieces = jax.pmap(on_device, "data")(X.reshape(8, 2, *X.shape[1:]))
  np.testing.assert_array_equal(pieces.reshape(X.shape), whole)


def test_gradient_passes_where_the_value_does():
  gradient = jax.grad(lambda x: drop(x).sum())(X)
  np.testing.assert_allclose(gradient, jnp.where(drop(X) != 0, 1 / 0.7, 0), rtol=1e-6)
