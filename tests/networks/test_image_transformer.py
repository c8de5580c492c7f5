"""The image transformer: its attention against a loop over pixels, what it can see at all, and examples that are their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import rows
from gm_jax.networks.image_transformer import ImageTransformer, RowsAttention
from tests.networks import tools

HEIGHT, WIDTH = 6, 3


def picture(num=3, channels=1, seed=0):
  return np.random.default_rng(seed).normal(size=(num, HEIGHT, WIDTH, channels)).astype(np.float32)


def by_hand(params, x, heads, reach):
  """Attention of every pixel in turn, over the list of the pixels that it may look at; float64."""
  params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  into, bias, out = params["Dense_0"]["kernel"], params["bias"], params["Dense_1"]
  size, result = x.shape[-1] // heads, np.zeros(x.shape)
  for image, row, column in np.ndindex(x.shape[:3]):
    q, k, v = np.split(x[image] @ into, 3, -1)  # each [H, W, heads * size]
    seen = [(i, j) for i in range(HEIGHT) for j in range(WIDTH) if row - reach <= i and (i, j) <= (row, column)]
    for head in range(heads):
      own = slice(head * size, (head + 1) * size)
      scores = [
        q[row, column, own] @ k[i, j, own] / np.sqrt(size) + bias[head, i - row + bias.shape[1] - 1, j - column + WIDTH - 1]
        for i, j in seen
      ]
      weights = np.exp(scores) / np.exp(scores).sum()
      result[image, row, column, own] = sum(weight * v[i, j, own] for weight, (i, j) in zip(weights, seen))
  return result @ out["kernel"] + out["bias"]


@pytest.mark.parametrize("reach", [0, 2, HEIGHT + 1, None])
@pytest.mark.parametrize("heads", [1, 3])
def test_attention_is_softmax_over_the_pixels_before(heads, reach):
  x, layer = np.random.default_rng(1).normal(size=(2, HEIGHT, WIDTH, 6)).astype(np.float32), RowsAttention(heads, reach)
  variables = tools.noisy(layer.init, x, size=1.0)
  expected = by_hand(variables["params"], x, heads, HEIGHT - 1 if reach is None else reach)
  np.testing.assert_allclose(jax.jit(layer.apply)(variables, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("layers", "reach"), [(1, 0), (1, 2), (2, 1), (2, 2), (1, None)])
def test_exactly_so_many_rows_are_seen(layers, reach):
  """Each layer looks `reach` rows further up; the first token of the topmost row tells of one pixel more, the last above it."""
  x = picture(2)
  network = ImageTransformer(1, features=6, heads=3, layers=layers, reach=reach)
  variables = tools.noisy(network.init, x, False)
  jacobian = jax.jit(jax.jacrev(lambda x: network.apply(variables, x, False).sum(0)[..., 0]))(x)  # [H, W, B, H, W, 1]
  seen = np.abs(jacobian).sum((2, 5)).reshape(HEIGHT * WIDTH, HEIGHT * WIDTH) > 0
  place = np.arange(HEIGHT * WIDTH)
  first = (place // WIDTH - HEIGHT * layers if reach is None else place // WIDTH - reach * layers) * WIDTH - 1
  np.testing.assert_array_equal(seen, (place[None] >= first[:, None]) & (place[None] < place[:, None]))


def test_memory_grows_with_the_rows_that_are_seen():
  """No array of the program is as large as all pairs of pixels, where few rows are looked at."""
  shape, heads, reach = (1, 16, 16, 4), 2, 1
  layer = RowsAttention(heads, reach)
  variables = tools.noisy(layer.init, np.zeros(shape, np.float32))
  program = jax.make_jaxpr(jax.grad(lambda x: layer.apply(variables, x).sum()))(np.zeros(shape, np.float32))
  sizes = [var.aval.size for equation in program.eqns for var in equation.outvars]
  pixels = shape[1] * shape[2]
  assert max(sizes) == heads * pixels * (reach + 1) * shape[2] < heads * pixels**2


def test_examples_and_their_labels_are_their_own():
  x, label = picture(channels=2), jnp.array([0, 2, 1])
  network = ImageTransformer(4, features=8, heads=2, layers=1, num_classes=3)
  variables = tools.noisy(network.init, x, False, label)
  apply = jax.jit(lambda x, label: network.apply(variables, x, False, label))
  tools.assert_rows_are_their_own(apply, x, label)
  order = np.array([2, 0, 1])
  tools.assert_equal(apply(x[order], label[order]), apply(x, label)[order])
  assert np.abs(apply(x, label[order]) - apply(x, label)).min((1, 2, 3)).min() > 0  # a label tells at each pixel


def test_an_example_drops_the_same_however_the_batch_is_cut():
  x = picture(4)
  network = ImageTransformer(1, features=8, heads=2, layers=2, rate=0.5)
  variables = tools.noisy(network.init, x, False)
  run = lambda x, key: jax.jit(lambda x: network.apply(variables, x, True, rngs={"dropout": jax.random.key(key)}))(x)
  whole = run(x, 1)
  with rows.view(first=1):
    np.testing.assert_allclose(run(x[1:3], 1), whole[1:3], rtol=1e-5, atol=1e-5)
  assert np.abs(whole - run(x, 2)).max() > 0.1
  twins = run(np.broadcast_to(x[:1], x.shape), 1)
  assert all(np.abs(twins[i] - twins[0]).max() > 0.1 for i in range(1, 4))


def test_every_parameter_is_used():
  x = picture(channels=2)
  network = ImageTransformer(4, features=8, heads=2, layers=1, num_classes=3)
  label = jnp.array([0, 2, 1])
  variables = tools.noisy(network.init, x, False, label)
  loss = lambda variables: jnp.square(network.apply(variables, x, False, label)).sum()
  tools.assert_all_used(jax.jit(jax.grad(loss))(variables))


def test_features_that_heads_cannot_share_are_refused():
  with pytest.raises(ValueError, match="8 features cannot be shared by 3 heads"):
    jax.eval_shape(lambda x: RowsAttention(3).init(jax.random.key(0), x), jnp.zeros((1, HEIGHT, WIDTH, 8)))
