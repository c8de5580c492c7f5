"""Neighbours of consistency models: how many levels the papers have when, and two points of one way, as often as they say."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.score import neighbours, noise

LEAST, LARGEST = 0.01, 20.0


def test_levels_grow_as_the_papers_say():
  twice = neighbours.doubling(800)
  at = jnp.arange(0, 1000, 50)
  expected = np.minimum(10 * 2 ** (np.asarray(at) // 100), 1280) + 1
  np.testing.assert_array_equal(twice(at), expected)
  root = neighbours.growing(1000, 2, 150)
  steps = np.array([0, 1, 10, 250, 500, 999, 1000, 5000])
  k = np.minimum(steps / 1000, 1)
  expected = np.ceil(np.sqrt(k * (151**2 - 2**2) + 2**2) - 1 - 1e-9) + 1
  np.testing.assert_array_equal(root(jnp.asarray(steps)), expected)
  assert (root(jnp.int32(0)), root(jnp.int32(10**6))) == (2, 151)
  assert neighbours.fixed(7)(jnp.int32(3)) == 7
  with pytest.raises(UserError, match="two levels"):
    neighbours.fixed(1)


def test_neighbours_are_one_image_with_one_noise():
  schedule, num = noise.karras(LEAST, LARGEST), 2**13
  make = neighbours.with_the_same_noise(schedule, neighbours.fixed(9), neighbours.lognormal(schedule, -0.5, 1.5))
  x_0 = jnp.asarray(np.random.default_rng(0).normal(0.3, 0.5, (num, 1, 1, 2)), jnp.float32)
  pair = jax.jit(lambda key: make(key, None, x_0, None, jnp.int32(0)))(jax.random.key(1))
  eps = lambda x, log_snr: (x - noise.like(noise.alpha(log_snr), x) * x_0) / noise.like(noise.sigma(log_snr), x)
  noises = eps(pair.x, pair.log_snr), eps(pair.cleaner, pair.cleaner_log_snr)
  np.testing.assert_allclose(*noises, atol=1e-3)
  table = schedule.log_snr(np.arange(9) / 8)
  index = np.abs(np.asarray(pair.cleaner_log_snr)[:, None] - table[:-1]).argmin(1)
  np.testing.assert_allclose(pair.cleaner_log_snr, table[index], atol=1e-4)
  np.testing.assert_allclose(pair.log_snr, table[index + 1], atol=1e-4)
  np.testing.assert_allclose(pair.weight, 1 / np.diff(noise.ratio(table))[index], rtol=1e-3)
  # How often: by the normal law of log level, cut off at both ends.
  bins = np.diff([math.erf((level + 0.5) / 1.5 / math.sqrt(2)) for level in np.log(noise.ratio(table))])
  np.testing.assert_allclose(np.bincount(index, minlength=8) / num, bins / bins.sum(), atol=3 / num**0.5 / 8)
