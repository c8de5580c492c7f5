"""Players that grow: the fade-in is exact at both ends, on both players and on the data."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.networks.conv import double
from gm_jax.networks.progressive import Discriminator, Generator, enlarge, halve, seen_at
from tests.networks.tools import assert_all_used, assert_equal, noisy

Z = jax.random.normal(jax.random.key(0), (8, 5))
X = jax.random.uniform(jax.random.key(1), (8, 12, 8, 2), minval=-1)
GENERATOR, CRITIC = Generator((12, 8, 2), (4, 3, 2)), Discriminator((4, 3, 2))
LEVELS = range(3)


@pytest.fixture(scope="module")
def made():
  return noisy(lambda key, z: GENERATOR.init(key, z, True), Z)


@pytest.fixture(scope="module")
def judged():
  return noisy(lambda key, x: CRITIC.init(key, x, True), X, size=1.0)


@jax.jit
def draw_traced(params, level, alpha):
  return GENERATOR.apply(params, Z, True, level=level, alpha=alpha)


@jax.jit
def judge_traced(params, x, level, alpha):
  return CRITIC.apply(params, x, True, level=level, alpha=alpha)


def _draw(params, alpha, level):
  return GENERATOR.apply(params, Z, True, level=level, alpha=alpha)


def _judge(params, x, alpha, level):
  return CRITIC.apply(params, x, True, level=level, alpha=alpha)


draw = jax.jit(_draw, static_argnums=2)
judge = jax.jit(_judge, static_argnums=3)


@pytest.mark.parametrize("level", LEVELS[1:])
def test_generator_fades_from_the_level_before_to_its_own(made, level):
  start, end = draw(made, 0.0, level), draw(made, 1.0, level)
  assert_equal(start, double(draw(made, 1.0, level - 1)), 1e-6)
  assert_equal(draw(made, 0.3, level), 0.7 * start + 0.3 * end)
  # At the end the level before has no part in the image: its own way to an image may be anything.
  layer = f"to_image_{level - 1}"
  changed = {"params": {**made["params"], layer: jax.tree.map(lambda leaf: leaf + 1, made["params"][layer])}}
  np.testing.assert_array_equal(draw(changed, 1.0, level), end)
  assert np.abs(draw(changed, 0.3, level) - draw(made, 0.3, level)).max() > 0.1
  assert np.abs(end - start).max() > 0.1


@pytest.mark.parametrize("level", LEVELS[1:])
def test_critic_fades_from_the_level_before_to_its_own(judged, level):
  x = halve(X, 2 - level)
  start, end = judge(judged, x, 0.0, level), judge(judged, x, 1.0, level)
  assert_equal(start, judge(judged, halve(x), 1.0, level - 1))
  layer = f"from_image_{level - 1}"
  changed = {"params": {**judged["params"], layer: jax.tree.map(lambda leaf: leaf + 1, judged["params"][layer])}}
  np.testing.assert_array_equal(judge(changed, x, 1.0, level), end)
  assert np.abs(judge(changed, x, 0.3, level) - judge(judged, x, 0.3, level)).max() > 1e-3
  assert np.abs(end - start).max() > 1e-3
  # At the start, what halving does not show is not seen.
  checks = 0.5 * (-1.0) ** jnp.arange(x.shape[2])[None, None, :, None]
  assert_equal(judge(judged, x + checks, 0.0, level), start)
  assert np.abs(judge(judged, x + checks, 1.0, level) - end).max() > 1e-3


@pytest.mark.parametrize("level", LEVELS)
def test_one_program_for_all_levels_is_each_levels_own(made, judged, level):
  images = draw(made, 0.3, level)
  large = enlarge(images, 2 - level)
  assert_equal(draw_traced(made, jnp.int32(level), 0.3), large)
  assert_equal(judge_traced(judged, large, jnp.int32(level), 0.3), judge(judged, images, 0.3, level))
  traced = jax.jit(lambda x, level: seen_at(x, level, 0.3, 2))(X, jnp.int32(level))
  assert_equal(traced, enlarge(seen_at(X, level, 0.3, 2), 2 - level))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_output_is_of_every_pixel_of_the_faded_image(made, alpha):
  bounded = GENERATOR.clone(output=jnp.tanh)
  for level in LEVELS:
    assert_equal(bounded.apply(made, Z, True, level=level, alpha=alpha), np.tanh(draw(made, alpha, level)))


def test_last_level_is_the_default(made, judged):
  assert_equal(GENERATOR.apply(made, Z, True), draw(made, 1.0, 2))
  assert_equal(CRITIC.apply(judged, X, True), judge(judged, X, 1.0, 2))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("level", LEVELS)
def test_data_fade_in_as_images_do(level, alpha):
  """Averages of squares, mixed with the averages of four times as many pixels: one pixel at a time."""
  x, side = np.asarray(X, np.float64), 1 << (2 - level)
  mean_at = lambda i, j, side: x[:, i * side : (i + 1) * side, j * side : (j + 1) * side].mean((1, 2))
  seen = np.asarray(seen_at(X, level, alpha, 2))
  assert seen.shape == (8, 12 // side, 8 // side, 2)
  for i in range(12 // side):
    for j in range(8 // side):
      own = mean_at(i, j, side)
      expected = (1 - alpha) * mean_at(i // 2, j // 2, 2 * side) + alpha * own if level else own
      np.testing.assert_allclose(seen[:, i, j], expected, atol=1e-6)


def test_a_level_learns_alone(made, judged):
  """Parameters of higher levels get no gradient, all others do; and a fade trains both ways to an image."""
  fakes = lambda params: jnp.sin(3 * draw_traced(params, jnp.int32(1), 0.3)).sum()
  logits = lambda params: jnp.sin(3 * judge_traced(params, X, jnp.int32(1), 0.3)).sum()
  for loss, params, level_of in (
    (fakes, made, {"blocks": 1, "to_image": 1}),
    (logits, judged, {"blocks": 0, "from_image": 1}),  # the critic's first block narrows level 1
  ):
    gradient = jax.jit(jax.grad(loss))(params)["params"]
    for name, leaves in gradient.items():
      kind, _, index = name.rpartition("_")
      if kind in level_of and int(index) > level_of[kind]:
        assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(leaves)), name
      else:
        assert_all_used({name: leaves})


@pytest.mark.parametrize("level", [0, jnp.int32(1), None])
def test_all_parameters_exist_from_the_start(made, judged, level):
  shapes = lambda tree: jax.tree.map(lambda leaf: leaf.shape, tree)
  x = X if level is None or not isinstance(level, int) else halve(X, 2 - level)
  start = jax.eval_shape(lambda: GENERATOR.init(jax.random.key(2), Z, True, level=level))
  assert shapes(start) == shapes(made)
  start = jax.eval_shape(lambda: CRITIC.init(jax.random.key(2), x, True, level=level))
  assert shapes(start) == shapes(judged)


def test_critic_compares_images_in_groups_of_four(judged):
  """Four copies of an image are not judged as four images; the other group of four does not notice."""
  copies = X.at[:4].set(X[:1])
  together, apart = judge(judged, copies, 1.0, 2), judge(judged, X, 1.0, 2)
  assert abs(together[0] - apart[0]) > 1e-3
  np.testing.assert_allclose(together[4:], apart[4:], rtol=1e-5, atol=1e-6)


def test_activations_start_with_unit_power():
  """At any width, images of a new generator and features of a new critic have a mean square of about one."""
  for channels in ((8, 8), (64, 64)):
    images, _ = jax.jit(lambda c=channels: Generator((16, 16, 64), c).init_with_output(jax.random.key(3), Z, True))()
    assert 0.5 < jnp.square(images).mean() < 2
    new = jax.jit(partial(Discriminator(channels).init_with_output, method="features"), static_argnums=2)
    features, _ = new(jax.random.key(3), jax.random.normal(jax.random.key(4), (8, 16, 16, 3)), True)
    assert 0.1 < jnp.square(features).mean() < 2  # averages of four pixels have less power than the pixels


def test_refuses_what_doubling_cannot_make():
  with pytest.raises(UserError, match="10 x 12"):
    Generator((10, 12, 1)).init(jax.random.key(0), Z, True)
