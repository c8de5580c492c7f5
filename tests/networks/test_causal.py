"""Who sees whom, by the Jacobian; and a network pixel by pixel against the same network on the whole image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.networks import causal, image_transformer, pixelcnn
from tests.networks import causality
from tests.networks.causality import HEIGHT, WIDTH, picture, random_variables, sees


def pixel_cnn(channels, blocks=1, **options):
  return pixelcnn.PixelCNN(2 * channels, 6 * channels, blocks, num_classes=3, rate=0.5, positions=True, **options)


def gated(channels, blocks=1, **options):
  size = dict(groups=channels, features=6 * channels, blocks=blocks)
  return pixelcnn.GatedPixelCNN(2 * channels, **size, num_classes=3, rate=0.5, positions=True, **options)


def transformer(channels, blocks=1, reach=1, **options):
  del options
  size = dict(features=6 * channels, heads=2, layers=blocks, reach=reach)
  return image_transformer.ImageTransformer(2 * channels, **size, first_reach=2, num_classes=3, rate=0.5)


NETWORKS = {
  "plain": (pixel_cnn, pixelcnn.cached),
  "gated": (gated, pixelcnn.gated_cached),
  "transformer": (transformer, image_transformer.cached),
}
networks = pytest.mark.parametrize("name", NETWORKS)
colours = pytest.mark.parametrize("channels", [1, 3])


@networks
@colours
@pytest.mark.parametrize("train", [False, True], ids=["evaluating", "training"])
def test_no_output_sees_what_comes_after_it_or_another_image(name, channels, train):
  causality.check_order(NETWORKS[name][0](channels), channels, train)


@colours
def test_gated_stacks_see_all_that_comes_before(channels):
  x = picture(channels, seed=1)  # with which no output's rectifiers are all shut
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
  make, scan_of = NETWORKS[name]
  causality.check_pixel_by_pixel(make(channels, first_reach=reaches[0], reach=reaches[1]), scan_of(), channels)


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
