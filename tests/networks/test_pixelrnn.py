"""The LSTM layers against the paper's equations pixel by pixel in NumPy, what they see, and drawing against whole passes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from gm_jax.networks import image_lstm, pixelrnn
from tests.networks import causality, tools
from tests.networks.causality import HEIGHT, WIDTH, picture, random_variables, sees


def row_lstm(channels, layers=1, reach=1, **options):
  return recurrent(functools.partial(image_lstm.RowLSTM, reach=reach), channels, layers, **options)


def diagonal(channels, layers=1, **options):
  return recurrent(image_lstm.DiagonalBiLSTM, channels, layers, **options)


def recurrent(layer, channels, layers, **options):
  return pixelrnn.PixelRNN(2 * channels, layer, channels, 6 * channels, layers, num_classes=3, rate=0.5, **options)


NETWORKS = {"row": row_lstm, "diagonal": diagonal}
networks = pytest.mark.parametrize("name", NETWORKS)
colours = pytest.mark.parametrize("channels", [1, 3])


@networks
@colours
@pytest.mark.parametrize("train", [False, True], ids=["evaluating", "training"])
def test_no_output_sees_what_comes_after_it_or_another_image(name, channels, train):
  causality.check_order(NETWORKS[name](channels), channels, train)


@pytest.mark.parametrize(
  "network",
  [row_lstm(1, layers=2, reach=2, first_reach=2), row_lstm(3), diagonal(1, layers=2, first_reach=2), diagonal(3)],
  ids=["grey row", "colour row", "grey diagonal", "colour diagonal"],
)
def test_pixel_by_pixel_is_the_whole_image(network):
  causality.check_pixel_by_pixel(network, pixelrnn.cached(), network.groups)


@colours
def test_one_diagonal_layer_sees_what_comes_before(channels):
  """All of it but one: the last channel of the last pixel of the row above is seen by the first convolution alone."""
  x = picture(channels)
  network = diagonal(channels, first_reach=1)
  own, _ = sees(network, random_variables(network, x), x, False)
  size = HEIGHT * WIDTH * channels
  row, column, channel = np.unravel_index(np.arange(size), (HEIGHT, WIDTH, channels))
  last_above = (row[None] == row[:, None] - 1) & (column[None] == WIDTH - 1) & (channel[None] == channels - 1)
  last_above &= column[:, None] + network.first_reach < WIDTH - 1
  np.testing.assert_array_equal(own.sum(0) > 0, np.tril(np.ones((size, size), bool), -1) & ~last_above)


def test_a_row_layer_sees_a_triangle():
  """One more pixel to each side with every row further up; two more to the left, by the windows of the convolutions."""
  x = picture(1)
  network = row_lstm(1, first_reach=1)
  own, _ = sees(network, random_variables(network, x), x, False)
  own = own.sum(0).reshape(HEIGHT, WIDTH, HEIGHT, WIDTH)
  rows, columns = np.mgrid[:HEIGHT, :WIDTH]
  for row, column in np.ndindex(HEIGHT, WIDTH):
    up, right = row - rows, columns - column
    inside = (up >= 0) & (-up - 2 <= right) & (right <= np.where(up > 0, up, -1))
    np.testing.assert_array_equal(own[row, column] > 0, inside, err_msg=f"{row}, {column}")


# The paper's equations, one pixel at a time.


def lstm(gates, cell, groups):
  """Gates [4 F] in groups -> state, cell; the gate f is moved by one."""
  o, f, i, g = np.concatenate(np.split(gates, groups)).reshape(groups, 4, -1).transpose(1, 0, 2).reshape(4, -1)
  cell = expit(f + 1) * cell + expit(i) * np.tanh(g)
  return expit(o) * np.tanh(cell), cell


def masked(kernel, groups):
  """Mask B: group by group, those up to itself."""
  kernel = np.array(kernel, np.float64)
  inputs, outputs = kernel.shape
  for i, o in np.ndindex(inputs, outputs):
    if i * groups // inputs > o * groups // outputs:
      kernel[i, o] = 0
  return kernel


def row_by_hand(params, x, groups, reach):
  """One image [H, W, I] -> states [H, W, F]."""
  height, width, _ = x.shape
  near = np.split(np.float64(params["state_to_state"]), 2 * reach + 1)
  left, own = np.float64(params["left"]["Conv_0"]["kernel"])[0], params["own"]
  states, cells = np.zeros((2, height + 1, width, len(near[0])))  # the first row lies above the image
  for i, j in np.ndindex(height, width):
    gates = x[i, j] @ masked(own["kernel"], groups) + own["bias"]
    gates += sum(x[i, j - k] @ left[reach - k] for k in range(1, reach + 1) if j >= k)
    gates += sum(states[i, j + k] @ near[reach + k] for k in range(-reach, reach + 1) if 0 <= j + k < width)
    states[i + 1, j], cells[i + 1, j] = lstm(gates, cells[i, j], groups)
  return states[1:]


def diagonal_by_hand(params, x, groups):
  def one_direction(params, step, start):
    left, above = np.split(np.float64(params["state_to_state"]), 2)
    states, cells = {}, {}
    zero = np.zeros(len(left))
    for i in range(height):
      for j in range(start, start + step * width, step):
        before = (i, j - step)
        gates = x[i, j] @ masked(params["own"]["kernel"], groups) + params["own"]["bias"]
        gates += states.get(before, zero) @ left + states.get((i - 1, j), zero) @ above
        states[i, j], cells[i, j] = lstm(gates, cells.get(before, zero), groups)
    return states

  height, width, _ = x.shape
  right, left = one_direction(params["rightwards"], 1, 0), one_direction(params["leftwards"], -1, width - 1)
  states = [[right[i, j] + (left[i - 1, j] if i else 0) for j in range(width)] for i in range(height)]
  return np.array(states)


LAYERS = {
  "row": (lambda groups: image_lstm.RowLSTM(6, groups, reach=1), functools.partial(row_by_hand, reach=1)),
  "wide row": (lambda groups: image_lstm.RowLSTM(6, groups, reach=2), functools.partial(row_by_hand, reach=2)),
  "diagonal": (lambda groups: image_lstm.DiagonalBiLSTM(6, groups), diagonal_by_hand),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("shape", [(5, 4), (1, 3), (3, 1)])
def test_layers_are_the_equations(name, groups, shape):
  make, by_hand = LAYERS[name]
  layer, x = make(groups), np.random.default_rng(0).normal(size=(2, *shape, 9)).astype(np.float32)
  variables = tools.noisy(layer.init, x)
  states = jax.jit(layer.apply)(variables, x)
  for image, ours in zip(x, states):
    np.testing.assert_allclose(ours, by_hand(variables["params"], image, groups), rtol=1e-4, atol=1e-5)


@networks
def test_without_what_is_added_a_layer_is_the_identity(name):
  x = picture(1)
  deep, flat = NETWORKS[name](1, layers=2), NETWORKS[name](1, layers=0)
  params = random_variables(deep, x)["params"]
  still = {key: jax.tree.map(np.zeros_like, part) if key.startswith("up") else part for key, part in params.items()}

  @functools.partial(jax.jit, static_argnums=0)
  def run(network, params):
    return network.apply({"params": params}, x, train=False, label=causality.LABEL)

  np.testing.assert_array_equal(run(deep, still), run(flat, params))
  assert not np.allclose(run(deep, params), run(flat, params))


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (1, 4), (4, 1)])
def test_a_skewed_image_has_its_diagonals_as_columns(shape):
  height, width = shape
  x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
  by_hand = np.zeros((height + width - 1, 2, height, 3), np.float32)
  for i, j in np.ndindex(height, width):
    by_hand[i + j, :, i] = x[:, i, j]
  np.testing.assert_array_equal(image_lstm.skew(x), by_hand)
  np.testing.assert_array_equal(image_lstm.unskew(image_lstm.skew(x)), x)

  # It only moves numbers, so its transpose is `unskew`, and that of `unskew` is `skew`.
  y = jnp.asarray(np.random.default_rng(1).normal(size=by_hand.shape), jnp.float32)
  np.testing.assert_array_equal(jax.vjp(image_lstm.skew, x)[1](y)[0], image_lstm.unskew(y))
  np.testing.assert_array_equal(jax.vjp(image_lstm.unskew, y)[1](x)[0], image_lstm.skew(x))
