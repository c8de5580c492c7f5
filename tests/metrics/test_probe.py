"""Logistic regression at its optimum, and what it can and cannot read."""

import numpy as np

from gm_jax import data
from gm_jax.metrics import probe

RNG = np.random.default_rng(0)


def test_it_stands_where_the_gradient_vanishes():
  """With its penalty the loss is strictly convex: zero gradient, in float64 by hand, is the one optimum."""
  x, labels, penalty = RNG.normal(size=(200, 3)) * [1, 10, 0.1] + [0, 5, 1], RNG.integers(0, 3, 200), 1e-2
  fitted = probe.fit(x, labels, 3, penalty=penalty)
  z = (x - np.asarray(fitted.mean)) / np.asarray(fitted.scale)
  weights, bias = (np.asarray(array, np.float64) for array in (fitted.weights, fitted.bias))
  logits = z @ weights + bias
  p = np.exp(logits - logits.max(1, keepdims=True))
  residual = p / p.sum(1, keepdims=True) - np.eye(3)[labels]
  np.testing.assert_allclose(z.T @ residual / 200 + 2 * penalty * weights, 0, atol=2e-4)
  np.testing.assert_allclose(residual.mean(0), 0, atol=2e-4)


def test_it_reads_what_is_linear_and_not_what_is_not():
  x = RNG.normal(size=(600, 2))
  halves, quadrants = (x[:, 0] > 0.3).astype(int), ((x[:, 0] > 0) ^ (x[:, 1] > 0)).astype(int)
  score = lambda labels: probe.accuracy((x[:300], labels[:300]), (x[300:], labels[300:]), 2)
  assert score(halves) > 0.97
  assert score(quadrants) < 0.65


def test_scales_and_constant_features_do_not_matter():
  digits = {split: data.digits(split) for split in ("train", "test")}
  sets = [(one.arrays["image"].reshape(len(one), -1).astype(float), one.arrays["label"]) for one in digits.values()]
  plain = probe.accuracy(*sets, 10, penalty=1e-3)
  assert plain > 0.92  # some pixels of the digits are always black
  scales = 10.0 ** RNG.integers(-1, 2, 64)
  scaled = [(x * scales[None] + 3, y) for x, y in sets]
  assert abs(probe.accuracy(*scaled, 10, penalty=1e-3) - plain) < 0.015
