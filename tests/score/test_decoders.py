"""What decoders say of levels: probabilities that sum to one, by Bayes' rule."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax import images
from gm_jax.score import decoders, noise
from gm_jax.score.noise import alpha, sigma


@pytest.mark.parametrize("decoder", [decoders.levels(), decoders.discretized()])
@pytest.mark.parametrize("level", [1e-4, 1e-3, 4e-3, 0.03, 1.0, 10.0])
def test_decoders_sum_to_one_over_the_levels(decoder, level):
  every = images.to_symmetric(jnp.arange(256, dtype=jnp.uint8)).reshape(256, 1, 1, 1)
  for y in (-1.0, -0.7031, 0.002, 0.99, 1.0, 1.2):
    log_snr = jnp.float32(noise.from_ratio(level))
    x = jnp.full((256, 1, 1, 1), y) * alpha(log_snr)
    log_prob = decoder.log_prob(lambda x, at: x / alpha(at), every, x, log_snr)
    np.testing.assert_allclose(np.exp(np.asarray(log_prob, np.float64)).sum(), 1, atol=1e-5)


def test_levels_are_told_by_the_noise():
  """p(level | x) by Bayes' rule in float64."""
  values = np.arange(256) / 127.5 - 1
  log_snr = np.float32(11.0)
  a, s = (function(np.float64(log_snr)) for function in (alpha, sigma))
  x = a * np.array([-0.51, 0.3, 0.999])
  log_joint = stats.norm.logpdf(x[:, None], a * values, s)
  expected = (log_joint - np.logaddexp.reduce(log_joint, 1, keepdims=True))[[0, 1, 2], [60, 166, 254]]
  x_0 = images.to_symmetric(jnp.array([60, 166, 254], jnp.uint8))
  shaped = lambda array: jnp.asarray(array, jnp.float32).reshape(3, 1, 1, 1)
  found = decoders.levels().log_prob(None, shaped(x_0), shaped(x), jnp.float32(log_snr))
  np.testing.assert_allclose(found, expected, rtol=1e-3)
