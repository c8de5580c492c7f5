"""What is true of every model that tells 3 x 3 black and white images pixel by pixel, put to the enumeration of all 512."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from gm_jax import images, testing
from gm_jax.tractable import flat

SHAPE = (3, 3, 1)
ALL = testing.all_states(SHAPE)  # int32 [512, 3, 3, 1]
X = jnp.asarray(ALL.reshape(512, 9), jnp.float32)
PICTURES = np.asarray(ALL * 255, np.uint8)


def index(pictures):
  """Which of the 512 images each one is: [N, 3, 3, 1] -> [N]."""
  bits = np.asarray(images.to_binary(jnp.asarray(pictures)), int).reshape(-1, 9)
  return bits @ (2 ** np.arange(9)[::-1])


def assert_causal(logits, x, order):
  """`logits`, [B, D] -> [B, D], are functions of the pixels before and of their own example, and do look at the pixel just
  before: to the last bit, whole batch at once."""
  jacobian = np.asarray(jax.jacobian(logits)(jnp.asarray(x, jnp.float32)))  # [B, D, B, D]
  num, size = np.shape(x)
  place = np.argsort(order)
  for i in range(num):
    assert not jacobian[i, :, np.arange(num) != i].any()
  own = jacobian[np.arange(num), :, np.arange(num)]  # [B, out, in]
  assert not own[:, place[:, None] <= place[None]].any()
  assert all(own[:, order[t], order[t - 1]].any() for t in range(1, size))  # in some example


def assert_drawn_logits(network, variables):
  """The logits that a sample was drawn by are those of the finished sample."""

  def draw(network, key):
    blank = jnp.zeros((50, 9))
    return flat.pixel_by_pixel(key, network.steps(50), jnp.arange(9), blank, jnp.zeros(blank.shape, bool))

  x, logits = nn.apply(draw, network)(variables, jax.random.key(0))
  assert len(np.unique(x, axis=0)) > 10
  np.testing.assert_allclose(logits, network.apply(variables, x, False), rtol=1e-5, atol=1e-5)


def assert_law(pictures, log_probs):
  """A chi-square test of images [N, 3, 3, 1] against log p of all 512; the rarest are counted together."""
  expected = len(pictures) * np.exp(np.asarray(log_probs, np.float64))
  observed = np.bincount(index(pictures), minlength=512)
  rare = expected < 8
  pool = lambda counts: np.append(counts[~rare], counts[rare].sum())
  observed, expected = pool(observed), pool(expected)
  statistic = ((observed - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
  assert statistic < scipy.stats.chi2.ppf(1 - 1e-4, len(expected) - 1), statistic


def conditional(log_probs, known, values):
  """p(image | its pixels `known` bool [9] are `values` [9]) for all 512 images, by enumeration."""
  fits = (ALL.reshape(512, 9)[:, known] == np.asarray(values)[known][None]).all(1)
  joint = np.where(fits, np.exp(np.asarray(log_probs, np.float64)), 0)
  return joint / joint.sum()
