"""Networks over codes: causal in the codes, told of a map at every place, and pixel by pixel the same as whole."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.networks import code_pixelcnn, pixelcnn
from tests.networks import causality
from tests.networks.tools import noisy

NUM_CODES, HEIGHT, WIDTH = 4, 4, 6
RNG = np.random.default_rng(0)
ABOVE = RNG.integers(0, 3, (3, HEIGHT // 2, WIDTH // 2))
CODES = RNG.integers(0, NUM_CODES, (3, HEIGHT, WIDTH, 1))


def gated(outputs, **options):
  return pixelcnn.GatedPixelCNN(outputs, features=6, blocks=1, first_reach=2, mapped=True, positions=True, **options)


class Told(nn.Module):
  """Each label's own random map, given to a network that takes maps."""

  network: nn.Module

  @nn.compact
  def __call__(self, x, train, label):
    maps = self.param("maps", nn.initializers.normal(1.0), (3, *x.shape[1:3], 5))
    return self.network(x, train, maps[label])


def test_being_told_of_a_map_leaves_the_order_of_pixels():
  for train in (False, True):
    causality.check_order(Told(gated(2, rate=0.5)), 1, train)


def prior():
  network = gated(NUM_CODES)
  return code_pixelcnn.CodePixelCNN(network, NUM_CODES, 5, code_pixelcnn.CodeReader(3, 4))


def test_codes_pixel_by_pixel_are_the_whole_map():
  """At each place, with only the codes before it filled in, remembered activations give the whole pass's logits."""
  network, scan = prior(), code_pixelcnn.cached()
  variables = noisy(lambda key: network.init(key, CODES, False, ABOVE))
  whole = jax.jit(lambda x: network.apply(variables, x, False, ABOVE))(CODES)
  pixel = jax.jit(lambda memory, seen, row, column: scan.pixel(network, variables, memory, seen, ABOVE, row, column))
  line = jax.jit(lambda memory, seen, row: scan.row(network, variables, memory, seen, ABOVE, row))
  memory = jax.jit(lambda: scan.begin(network, variables, jnp.zeros_like(CODES), ABOVE))()
  place = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1)
  for row in range(HEIGHT):
    for column in range(WIDTH):
      seen = np.where(place < row * WIDTH + column, CODES, NUM_CODES - 1 - CODES)  # what follows is not looked at
      memory = line(memory, seen, row) if column == 0 else memory
      outputs, memory = pixel(memory, seen, row, column)
      np.testing.assert_allclose(outputs, whole[:, row, column], rtol=1e-4, atol=1e-5)


def test_every_code_of_the_map_above_is_heard_below_and_only_by_its_own_image():
  network = prior()
  variables = noisy(lambda key: network.init(key, CODES, False, ABOVE))
  run = jax.jit(lambda above: network.apply(variables, CODES, False, above))
  before = np.asarray(run(ABOVE))
  for row in range(HEIGHT // 2):
    for column in range(WIDTH // 2):
      above = ABOVE.copy()
      above[1, row, column] = (above[1, row, column] + 1) % 3
      change = np.abs(np.asarray(run(above)) - before).sum(-1)  # [B, H, W]
      assert (change[1, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] > 1e-4).all()
      assert (change[[0, 2]] == 0).all()


def test_a_code_is_a_name_and_no_number():
  """Codes with their vectors exchanged, in the image and in the table, are the same to the network."""
  network = prior()
  variables = noisy(lambda key: network.init(key, CODES, False, ABOVE))
  order = np.array([2, 0, 3, 1])
  table = variables["params"]["table"]["embedding"]
  renamed = {**variables["params"], "table": {"embedding": table[order]}}
  run = jax.jit(lambda params, x: network.apply({"params": params}, x, False, ABOVE))
  np.testing.assert_array_equal(run(renamed, np.argsort(order)[CODES]), run(variables["params"], CODES))
