"""What the style-based experiment shows of its latents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import style_mnist
from gm_jax.core import Average, Trainable
from gm_jax.implicit import gan
from tests.networks.tools import noisy

CONFIG = style_mnist.Config(channels=(3, 3, 3, 2), width=4, mapping=1)
ROWS, COLUMNS, PSI = style_mnist.ROWS, style_mnist.COLUMNS, style_mnist.PSI


@pytest.fixture(scope="module")
def state():
  """Any generator without noise, so that two images of the same styles are the same."""
  module = style_mnist.generator(CONFIG)
  variables = noisy(lambda key, z: module.init({"params": key, "dropout": key}, z, True), np.ones((2, 4), np.float32))

  def quiet(path, leaf):
    names = [entry.key for entry in path]
    return 0 * leaf if "noise" in names else 100 * leaf if "mapped" in names else leaf  # which is stored large, and acts small

  variables = jax.tree_util.tree_map_with_path(quiet, variables)
  nobody = Trainable({}, {}, ())
  return gan.State(jnp.int32(0), nobody, nobody, Average(variables, jnp.int32(0)))


def cells(picture, columns):
  """The images of a table, [rows, columns, 32, 32], without the lines between them."""
  return picture[1:, 1:, 0].reshape(-1, 33, columns, 33)[:, :32, :, :32].swapaxes(1, 2).astype(int)


@pytest.mark.parametrize("first_fine", [0, 8])
def test_tables_of_styles(state, monkeypatch, first_fine):
  monkeypatch.setattr(style_mnist, "FIRST_FINE", first_fine)
  pictures = style_mnist.pictures(CONFIG, state)
  table = cells(pictures["mixing"], COLUMNS + 1)
  assert table.shape[:2] == (ROWS + 1, COLUMNS + 1)
  assert not table[0, 0].any()
  coarse, fine, mixed = table[1:, :1], table[:1, 1:], table[1:, 1:]
  # With all styles coarse, an image is that of its row; with none, that of its column.
  assert np.abs(mixed - (coarse if first_fine else fine)).max() <= 1
  assert np.abs(mixed - (fine if first_fine else coarse)).max((2, 3)).mean() > 2
  by_psi = cells(pictures["truncation"], len(PSI))
  assert by_psi.shape[:2] == (ROWS, len(PSI))
  farther = np.abs(by_psi - by_psi[:1, :1]).mean((0, 2, 3))  # from the mean image, which is the first of every row
  assert farther[0] <= 1 / 100
  assert (np.diff(farther) > 0).all(), farther
