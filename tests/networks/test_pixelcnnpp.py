"""PixelCNN++: who sees whom across resolutions, and pixel by pixel against the whole image."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.networks import pixelcnnpp
from tests.networks import causality
from tests.networks.causality import LABEL, picture, sees
from tests.networks.tools import assert_all_used, assert_rows_are_their_own, noisy


def build(channels=1, **options):
  return pixelcnnpp.PixelCNNPP(2 * channels, features=4, num_classes=3, rate=0.5, **options)


def test_one_block_per_resolution_sees_all_that_comes_before_and_nothing_else():
  network, x = build(), picture(1, size=(8, 8))
  own, others = sees(network, noisy(network.init, x, False, LABEL), x, False)
  assert np.all(np.triu(own) == 0)
  assert others == 0
  assert np.all(own.sum(0)[np.tril_indices(64, -1)] > 0)


def test_no_channel_sees_its_own_pixel_nor_an_image_another_with_dropout_at_sides_that_do_not_halve():
  height, width, channels = 5, 7, 2
  network, x = build(channels, resolutions=2), picture(channels, size=(height, width))
  own, others = sees(network, noisy(network.init, x, False, LABEL), x, True)
  pixel = np.arange(height * width).repeat(channels)
  assert np.all(own[:, pixel[:, None] <= pixel[None]] == 0)
  assert others == 0
  assert np.all(own.sum(0)[(pixel[:, None] == pixel[None] + 1) & (pixel[:, None] % width > 0)] > 0)


def test_pixel_by_pixel_is_the_whole_image():
  causality.check_pixel_by_pixel(build(first_reach=1), pixelcnnpp.cached(), 1, size=(5, 6))


def test_halving_is_every_second_pixel_of_the_convolution():
  layer, whole = (kind(3, pixelcnnpp.ROWS, (-1, 1)) for kind in (pixelcnnpp._Halve, pixelcnnpp.CausalConv))
  x = picture(2, size=(5, 8))
  variables = noisy(whole.init, x)
  np.testing.assert_allclose(layer.apply(variables, x), whole.apply(variables, x)[:, ::2, ::2], rtol=1e-5, atol=1e-6)


def test_every_parameter_is_used_and_images_are_their_own():
  network, x = build(resolutions=2, blocks=2), picture(1, size=(3, 4))
  variables = noisy(network.init, x, False, LABEL)
  run = jax.jit(lambda variables, x, label: network.apply(variables, x, train=False, label=label))
  assert_all_used(jax.jit(jax.grad(lambda variables: jnp.square(run(variables, x, LABEL)).sum()))(variables))
  assert_rows_are_their_own(lambda x, label: run(variables, x, label), x, LABEL)
