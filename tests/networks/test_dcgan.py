"""DCGAN's rules, read off the networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.networks.dcgan import Discriminator, Generator, batch_norm
from tests.networks.tools import assert_all_used, assert_equal, assert_rows_are_their_own, noisy

SHAPES = [(8, 8, 1), (28, 28, 1), (32, 32, 3)]
Z = jax.random.normal(jax.random.key(0), (4, 6))


def images(shape, num=4):
  return jax.random.uniform(jax.random.key(1), (num, *shape), minval=-1)


@pytest.mark.parametrize("shape", SHAPES)
def test_critic_without_norm_judges_each_image_alone(shape):
  critic, x = Discriminator(base=4, norm=None), images(shape)
  params = noisy(lambda key, x: critic.init(key, x, True), x, size=0.1)
  assert_rows_are_their_own(jax.jit(lambda x: critic.apply(params, x, True)), x)


def test_critic_with_batch_norm_does_not():
  """... so the test above can fail."""
  critic, x = Discriminator(base=4), images((8, 8, 1))
  variables = critic.init(jax.random.key(2), x, True)
  judge = lambda x: critic.apply(variables, x, True, mutable=["batch_stats"])[0]
  changed = judge(x.at[1].multiply(-3))
  assert jnp.abs(changed - judge(x))[0] > 1e-6


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", [batch_norm, None])
def test_weights_biases_and_norms_stand_where_the_paper_has_them(shape, norm):
  generator, critic = Generator(shape, 4, norm), Discriminator(4, norm)
  variables = generator.init(jax.random.key(2), Z, True)
  made, judged = variables["params"], critic.init(jax.random.key(3), images(shape), True)["params"]
  layers = lambda params: {name for name in params if not name.startswith("BatchNorm")}
  with_bias = lambda params: {name for name in layers(params) if "bias" in params[name]}
  halvings = 3 if shape[0] == 32 else 2
  last = f"ConvTranspose_{halvings - 1}"
  assert with_bias(made) == ({last} if norm else layers(made))
  assert with_bias(judged) == ({"Conv_0", "Dense_0"} if norm else layers(judged))
  assert len(made) - len(layers(made)) == (halvings if norm else 0)  # all layers but the output
  assert len(judged) - len(layers(judged)) == (halvings - 1 if norm else 0)  # all but input and output
  for params in (made, judged):
    kernels = np.concatenate([np.ravel(params[name]["kernel"]) for name in layers(params)])
    assert abs(kernels.std() - 0.02) < 0.02 * 5 / np.sqrt(2 * kernels.size)


@pytest.mark.parametrize("shape", SHAPES)
def test_generator_fills_its_range_and_uses_all_it_has(shape):
  generator = Generator(shape, 4)
  variables = noisy(lambda key, z: generator.init(key, z, True), Z)
  draw = jax.jit(lambda params, z: generator.apply({**variables, "params": params}, z, True, mutable=["batch_stats"])[0])
  x = draw(variables["params"], Z)
  assert x.shape == (4, *shape)
  assert -1 <= x.min() < -0.5
  assert 0.5 < x.max() <= 1
  last = f"ConvTranspose_{2 if shape[0] == 32 else 1}"
  for bias in (-100.0, 100.0):  # out of range is black or white, and does not come round again
    layer = {**variables["params"][last], "bias": jnp.full(shape[2], bias)}
    np.testing.assert_array_equal(draw({**variables["params"], last: layer}, Z), np.sign(bias))
  gradient = jax.grad(lambda params, z: jnp.square(draw(params, z)).sum(), (0, 1))(variables["params"], Z)
  assert_all_used(gradient)


def normalised(x, layer, epsilon=1e-5):
  """By the batch's own statistics."""
  x = (x - x.mean((0, 1, 2))[None, None, None]) / jnp.sqrt(x.var((0, 1, 2)) + epsilon)[None, None, None]
  return x * layer["scale"][None, None, None] + layer["bias"][None, None, None]


def test_the_players_are_the_papers_layer_by_layer():
  """Strides, what is normalised, and each non-linearity, by flax's own layers; 32 x 32 is halved three times."""
  generator, critic, x = Generator((32, 32, 1), 4), Discriminator(4), images((32, 32, 1))
  making, judging = noisy(lambda key, z: generator.init(key, z, True), Z), noisy(lambda key, x: critic.init(key, x, True), x)

  made, layers = (Z @ making["params"]["Dense_0"]["kernel"]).reshape(4, 4, 4, 16), making["params"]
  for level in range(3):
    made = nn.relu(normalised(made, layers[f"BatchNorm_{level}"]))
    up = nn.ConvTranspose(4 * 2 ** (1 - level) if level < 2 else 1, (4, 4), (2, 2), use_bias=level == 2)
    made = up.apply({"params": layers[f"ConvTranspose_{level}"]}, made)
  assert_equal(generator.apply(making, Z, True, mutable=["batch_stats"])[0], jnp.tanh(made), 1e-4)

  seen, layers = x, judging["params"]
  for level in range(3):
    down = nn.Conv(4 * 2**level, (4, 4), (2, 2), use_bias=level == 0)
    seen = down.apply({"params": layers[f"Conv_{level}"]}, seen)
    seen = normalised(seen, layers[f"BatchNorm_{level - 1}"]) if level else seen
    seen = jnp.where(seen > 0, seen, 0.2 * seen)
  logits = (seen.reshape(4, -1) @ layers["Dense_0"]["kernel"])[:, 0] + layers["Dense_0"]["bias"]
  assert_equal(critic.apply(judging, x, True, mutable=["batch_stats"])[0], logits, 1e-4)


def test_dense_layers_are_the_papers_convolutions():
  """The first layer is a transposed convolution of a 1 x 1 image, the critic's last one a convolution of a whole one."""
  z = Z[:, None, None]
  kernel = jax.random.normal(jax.random.key(4), (6, 3 * 2 * 5))
  spatial = jnp.flip(kernel.reshape(6, 3, 2, 5).transpose(1, 2, 0, 3), (0, 1))
  transposed = nn.ConvTranspose(5, (3, 2), padding="VALID", use_bias=False)
  assert_equal((Z @ kernel).reshape(4, 3, 2, 5), transposed.apply({"params": {"kernel": spatial}}, z))
  x, kernel = images((3, 2, 5)), jax.random.normal(jax.random.key(4), (3 * 2 * 5, 1))
  whole = nn.Conv(1, (3, 2), padding="VALID", use_bias=False)
  assert_equal(x.reshape(4, -1) @ kernel, whole.apply({"params": {"kernel": kernel.reshape(3, 2, 5, 1)}}, x)[:, 0, 0])


@pytest.mark.parametrize("size", [(7, 8), (6, 6), (1, 1), (30, 28)])
def test_refuses_what_it_cannot_halve(size):
  message = f"{size[0]} x {size[1]}"
  with pytest.raises(UserError, match=message):
    Generator((*size, 1)).init(jax.random.key(0), Z, True)
  with pytest.raises(UserError, match=message):
    Discriminator().init(jax.random.key(0), images((*size, 1)), True)
