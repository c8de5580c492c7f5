"""Who sees whom, by the Jacobian; and a network pixel by pixel against the same network on the whole image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks import causal, pixelcnn

HEIGHT, WIDTH = 5, 4
LABEL = jnp.array([0, 2, 1])


def pixel_cnn(channels, blocks=1, **options):
  return pixelcnn.PixelCNN(2 * channels, 6 * channels, blocks, num_classes=3, rate=0.5, **options)


def gated(channels, blocks=1, **options):
  return pixelcnn.GatedPixelCNN(2 * channels, channels, 6 * channels, blocks, num_classes=3, rate=0.5, **options)


NETWORKS = {"plain": (pixel_cnn, pixelcnn.cached), "gated": (gated, pixelcnn.gated_cached)}
networks = pytest.mark.parametrize("name", NETWORKS)
colours = pytest.mark.parametrize("channels", [1, 3])


def picture(channels, seed=0, num=3):
  return np.random.default_rng(seed).normal(size=(num, HEIGHT, WIDTH, channels)).astype(np.float32)


def random_variables(network, x):
  """Initial parameters, biases included, moved off zero: no connection is missing by chance."""
  variables = jax.jit(lambda x: network.init(jax.random.key(1), x, train=False, label=LABEL))(x)
  rng = np.random.default_rng(3)
  return jax.tree.map(lambda leaf: np.float32(leaf + 0.1 * rng.normal(size=leaf.shape)), variables)


def sees(network, variables, x, train):
  """[outputs' (row, column, channel), inputs' (row, column, channel)] -> how strongly, over all images of the batch."""
  channels = x.shape[-1]
  run = lambda x: network.apply(variables, x, train=train, label=LABEL, rngs={"dropout": jax.random.key(4)})
  jacobian = jax.jit(jax.jacrev(run))(x)  # [B, H, W, P, B, H, W, C]
  size = HEIGHT * WIDTH * channels
  jacobian = jnp.abs(jacobian).reshape(len(x), HEIGHT, WIDTH, channels, -1, len(x), size).sum(4)
  jacobian = np.array(jacobian.reshape(len(x), size, len(x), size))
  same = np.arange(len(x))
  own = jacobian[same, :, same].copy()
  jacobian[same, :, same] = 0
  return own, jacobian.max()


@networks
@colours
@pytest.mark.parametrize("train", [False, True], ids=["evaluating", "training"])
def test_no_output_sees_what_comes_after_it_or_another_image(name, channels, train):
  x = picture(channels)
  network = NETWORKS[name][0](channels)
  own, others = sees(network, random_variables(network, x), x, train)
  assert np.all(np.triu(own) == 0)
  assert others == 0
  if not train:  # dropout may cut the only way
    size = HEIGHT * WIDTH * channels
    inside_row = [d for d in range(1, size) if d % (WIDTH * channels)]
    assert all(own[:, d, d - 1].sum() > 0 for d in inside_row)


@colours
def test_gated_stacks_see_all_that_comes_before(channels):
  x = picture(channels)
  network = gated(channels, blocks=4)
  own, _ = sees(network, random_variables(network, x), x, False)
  below = np.tril_indices(own.shape[1], -1)
  assert np.all(own.sum(0)[below] > 0)


def test_the_plain_stack_has_a_blind_spot():
  """What the gated network is for: to the right above, beyond a diagonal, the plain one never looks."""
  x = picture(1)
  network = pixel_cnn(1, blocks=1, first_reach=1)
  own, _ = sees(network, random_variables(network, x), x, False)
  last = own.sum(0)[np.ravel_multi_index((4, 0), (HEIGHT, WIDTH))].reshape(HEIGHT, WIDTH)
  assert last[3, 1] > 0
  assert last[3, 3] == 0


@networks
@pytest.mark.parametrize(("channels", "reaches"), [(1, (3, 1)), (3, (1, 2))], ids=["grey", "colour"])
def test_pixel_by_pixel_is_the_whole_image(name, channels, reaches):
  """At each pixel, with only what comes before it filled in, the remembered activations give the whole pass's outputs."""
  make, scan_of = NETWORKS[name]
  x = picture(channels)
  network = make(channels, first_reach=reaches[0], reach=reaches[1])
  variables, scan = random_variables(network, x), scan_of()
  whole = jax.jit(lambda x: network.apply(variables, x, train=False, label=LABEL))(x)

  @jax.jit
  def pixel(memory, seen, row, column):
    return scan.pixel(network, variables, memory, seen, LABEL, row, column)

  line = jax.jit(lambda memory, seen, row: scan.row(network, variables, memory, seen, LABEL, row))
  memory, flat = scan.begin(network, variables, jnp.zeros_like(x), LABEL), x.reshape(len(x), -1)
  for row in range(HEIGHT):
    for column in range(WIDTH):
      for channel in range(channels):
        known = (row * WIDTH + column) * channels + channel
        seen = jnp.where(jnp.arange(flat.shape[1])[None] < known, flat, 99.0).reshape(x.shape)  # what follows is not looked at
        if column == channel == 0:
          memory = line(memory, seen, row)
        outputs, memory = pixel(memory, seen, row, column)
        part = slice(2 * channel, 2 * channel + 2)
        np.testing.assert_allclose(outputs[:, part], whole[:, row, column, part], rtol=1e-4, atol=1e-5)


def test_groups_see_those_before_them():
  for strict in (False, True):
    layer = causal.Pixelwise(9, groups=3, strict=strict)
    x = jnp.ones((1, 1, 1, 6))
    jacobian = jax.jacobian(lambda x, layer=layer: layer.apply(layer.init(jax.random.key(0), x), x))(x)
    jacobian = np.asarray(jacobian).reshape(3, 3, 3, 2)  # [group, 3, group, 2]
    connected = np.abs(jacobian).sum((1, 3)) > 0
    np.testing.assert_array_equal(connected, np.tril(np.ones((3, 3), bool), -1 if strict else 0))


def test_features_that_cannot_be_shared_are_refused():
  with pytest.raises(ValueError, match="3 groups"):
    causal.Pixelwise(8, groups=3).init(jax.random.key(0), jnp.ones((1, 1, 1, 6)))
