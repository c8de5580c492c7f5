"""Checks of any causal network: who sees whom, by the Jacobian; and pixel by pixel against the whole image."""

import jax
import jax.numpy as jnp
import numpy as np

HEIGHT, WIDTH = 5, 4
LABEL = jnp.array([0, 2, 1])


def picture(channels, seed=0, num=3, size=(HEIGHT, WIDTH)):
  return np.random.default_rng(seed).normal(size=(num, *size, channels)).astype(np.float32)


def random_variables(network, x):
  """Initial parameters, biases included, moved off zero: no connection is missing by chance."""
  variables = jax.jit(lambda x: network.init(jax.random.key(1), x, train=False, label=LABEL))(x)
  rng = np.random.default_rng(3)
  return jax.tree.map(lambda leaf: np.float32(leaf + 0.1 * rng.normal(size=leaf.shape)), variables)


def sees(network, variables, x, train):
  """[outputs' (row, column, channel), inputs' (row, column, channel)] -> how strongly, over all images of the batch."""
  _, height, width, channels = x.shape
  run = lambda x: network.apply(variables, x, train=train, label=LABEL, rngs={"dropout": jax.random.key(4)})
  jacobian = jax.jit(jax.jacrev(run))(x)  # [B, H, W, P, B, H, W, C]
  size = height * width * channels
  jacobian = jnp.abs(jacobian).reshape(len(x), height, width, channels, -1, len(x), size).sum(4)
  jacobian = np.array(jacobian.reshape(len(x), size, len(x), size))
  same = np.arange(len(x))
  own = jacobian[same, :, same].copy()
  jacobian[same, :, same] = 0
  return own, jacobian.max()


def check_order(network, channels, train):
  """No output sees what comes after it, or another image; and each sees what comes just before it."""
  x = picture(channels)
  own, others = sees(network, random_variables(network, x), x, train)
  assert np.all(np.triu(own) == 0)
  assert others == 0
  if not train:  # dropout may cut the only way
    size = HEIGHT * WIDTH * channels
    inside_row = [d for d in range(1, size) if d % (WIDTH * channels)]
    assert all(own[:, d, d - 1].sum() > 0 for d in inside_row)


def check_pixel_by_pixel(network, scan, channels, size=(HEIGHT, WIDTH)):
  """At each pixel, with only what comes before it filled in, the remembered activations give the whole pass's outputs."""
  x, (height, width) = picture(channels, size=size), size
  variables = random_variables(network, x)
  whole = jax.jit(lambda x: network.apply(variables, x, train=False, label=LABEL))(x)

  @jax.jit
  def pixel(memory, seen, row, column):
    return scan.pixel(network, variables, memory, seen, LABEL, row, column)

  line = jax.jit(lambda memory, seen, row: scan.row(network, variables, memory, seen, LABEL, row))
  memory, flat = scan.begin(network, variables, jnp.zeros_like(x), LABEL), x.reshape(len(x), -1)
  for row in range(height):
    for column in range(width):
      for channel in range(channels):
        known = (row * width + column) * channels + channel
        seen = jnp.where(jnp.arange(flat.shape[1])[None] < known, flat, 99.0).reshape(x.shape)  # what follows is not looked at
        if column == channel == 0:
          memory = line(memory, seen, row)
        outputs, memory = pixel(memory, seen, row, column)
        part = slice(2 * channel, 2 * channel + 2)
        np.testing.assert_allclose(outputs[:, part], whole[:, row, column, part], rtol=1e-4, atol=1e-5)
