"""The style-based generator: an own kernel for each example, noise by example and key, mixing, truncation, path lengths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import random, rows
from gm_jax.errors import UserError
from gm_jax.networks.style import Discriminator, Generator, Mapping, downsample, modulated, upsample
from tests.networks.tools import assert_all_used, assert_equal, noisy

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(8, 5)).astype(np.float32)
X = RNG.normal(size=(2, 4, 6, 3)).astype(np.float32)
KERNEL = RNG.normal(size=(3, 3, 3, 4)).astype(np.float32)
STYLE = (1 + RNG.normal(size=(2, 3))).astype(np.float32)

GENERATOR = Generator((8, 4, 2), (4, 3), width=5, mapping=2)
KEY = jax.random.key(3)


def awake(variables):
  """The mapping network's weights are stored a hundred times larger than they act: small ones would hide z."""
  grow = lambda path, leaf: 100 * leaf if any(entry.key == "mapped" for entry in path) else leaf
  return jax.tree_util.tree_map_with_path(grow, variables)


@pytest.fixture(scope="module")
def variables():
  """Away from the start, where noise has no strength and the mean of w is zero."""
  return awake(noisy(lambda key, z: GENERATOR.init({"params": key, "dropout": key}, z, True), Z[:2], size=0.5))


@jax.jit
def draw(variables, z, key, psi):
  return GENERATOR.apply(variables, z, False, key=key, psi=psi)


@jax.jit
def mapped(variables, z):
  return GENERATOR.apply(variables, z, False, method="map")


@jax.jit
def synthesize(variables, styles, key):
  return GENERATOR.apply(variables, styles, key, method="synthesize")


# Modulated convolutions.


def by_example(demodulate):
  """Each example with its own kernel, pixel by pixel, in float64."""
  out = np.zeros((2, 4, 6, 4))
  padded = np.pad(X.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
  for b in range(2):
    kernel = KERNEL.astype(np.float64) * STYLE[b][:, None]
    for o in range(4):
      w = kernel[..., o] / np.sqrt(np.square(kernel[..., o]).sum()) if demodulate else kernel[..., o]
      for i in range(4):
        for j in range(6):
          out[b, i, j, o] = (padded[b, i : i + 3, j : j + 3] * w).sum()
  return out


@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_convolution_has_a_kernel_for_each_example(demodulate):
  np.testing.assert_allclose(modulated(X, KERNEL, STYLE, demodulate), by_example(demodulate), atol=1e-4)


def test_demodulated_kernels_have_norm_one_and_keep_the_variance():
  """The response to an impulse in every input channel in turn is the kernel."""
  impulses = np.zeros((3, 5, 5, 3), np.float32)
  impulses[range(3), 2, 2, range(3)] = 1
  for style in STYLE:
    kernels = modulated(impulses, KERNEL, np.tile(style, (3, 1)))
    np.testing.assert_allclose(jnp.square(kernels).sum((0, 1, 2)), 1, rtol=1e-4)
  noise = RNG.normal(size=(2, 64, 64, 3)).astype(np.float32)
  y = np.asarray(modulated(noise, KERNEL, 30 * STYLE))[:, 1:-1, 1:-1]
  np.testing.assert_allclose(y.var((1, 2)), 1, atol=0.25)


# Resampling.


def filtered(x, stretch, low, high):
  """[1, 3, 3, 1] / 8 along both axes of zero-stuffed x with zeros around it, by its definition."""
  b, h, w, c = x.shape
  stuffed = np.zeros((b, h * stretch, w * stretch, c))
  stuffed[:, ::stretch, ::stretch] = x
  stuffed = np.pad(stuffed, ((0, 0), (low, high), (low, high), (0, 0)))
  taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
  sizes = stuffed.shape[1] - 3, stuffed.shape[2] - 3
  return sum(taps[i, j] * stuffed[:, i : i + sizes[0], j : j + sizes[1]] for i in range(4) for j in range(4))


def test_resampling_by_its_definition():
  np.testing.assert_allclose(upsample(X), 4 * filtered(X, 2, 2, 1), atol=1e-6)
  np.testing.assert_allclose(downsample(X), filtered(X, 1, 1, 1)[:, ::2, ::2], atol=1e-6)
  flat = np.ones((1, 6, 6, 1), np.float32)
  np.testing.assert_allclose(upsample(flat)[:, 1:-1, 1:-1], 1)
  np.testing.assert_allclose(downsample(flat)[:, 1:-1, 1:-1], 1)


# Noise.


def test_noise_changes_with_the_key_and_belongs_to_the_example(variables):
  same = jnp.broadcast_to(Z[:1], (8, 5))
  one, two = draw(variables, same, KEY, 1.0), draw(variables, same, jax.random.key(4), 1.0)
  np.testing.assert_array_equal(draw(variables, same, KEY, 1.0), one)
  assert np.abs(one - two).max((1, 2, 3)).min() > 1e-2
  assert np.abs(np.diff(one, axis=0)).max((1, 2, 3)).min() > 1e-2  # no two examples alike
  with rows.view(first=5):
    assert_equal(jax.jit(lambda z: GENERATOR.apply(variables, z, False, key=KEY))(same[5:]), one[5:])


def test_noise_enters_after_every_convolution_and_a_new_generator_has_none(variables):
  layers = lambda tree: tree["params"]["synthesis"].items()
  strengths = lambda tree: {name: layer["noise"] for name, layer in layers(tree) if name.startswith("StyledConv")}
  assert len(strengths(variables)) == 3
  new = jax.jit(lambda: GENERATOR.init({"params": KEY, "dropout": KEY}, Z[:2], True))()
  assert not any(strengths(new).values())
  np.testing.assert_array_equal(draw(new, Z, KEY, 1.0), draw(new, Z, jax.random.key(4), 1.0))
  styles = jnp.ones((2, 4, 5))
  for name in strengths(variables):
    layer = {**new["params"]["synthesis"][name], "noise": jnp.float32(1)}
    loud = {**new, "params": {**new["params"], "synthesis": {**new["params"]["synthesis"], name: layer}}}
    assert np.abs(synthesize(loud, styles, KEY) - synthesize(new, styles, KEY)).max() > 1e-2, name


# Styles.


@pytest.mark.parametrize("crossover", [0, 1, 2, 3, 4, jnp.array([4, 2])])
def test_mixing_crosses_over_before_any_layer(variables, crossover):
  w, other = Z[:2], Z[2:4]
  styles = GENERATOR.apply(variables, w, other, crossover, method="mix")
  for i, layer in enumerate(np.broadcast_to(crossover, 2)):
    np.testing.assert_array_equal(styles[i], np.concatenate([np.tile(w[i], (layer, 1)), np.tile(other[i], (4 - layer, 1))]))


def test_every_layer_listens_to_its_style(variables):
  styles = jnp.asarray(RNG.normal(size=(2, 4, 5)), jnp.float32)
  slopes = jax.jit(jax.jacrev(lambda styles: synthesize(variables, styles, KEY)[:, ::3, ::2].sum((1, 2, 3))))(styles)
  strength = np.abs(slopes).max(-1)  # [image, example, style]
  np.testing.assert_array_equal(strength > 0, np.eye(2)[..., None] * np.ones(4) > 0)


def test_training_mixes_as_often_as_it_should(variables):
  z = jnp.asarray(np.tile(Z[:1], (400, 1)))
  draw_styles = jax.jit(
    lambda z, train: GENERATOR.apply(variables, KEY, z, train, method="styles", mutable=["latent_stats"]), static_argnums=1
  )
  w = mapped(variables, Z)[0]
  assert_equal(draw_styles(z, False)[0], np.tile(w, (400, 4, 1)))  # not in evaluation
  styles = np.asarray(draw_styles(z, True)[0])
  own = np.abs(styles - w[None, None]).max(-1) < 1e-5  # [B, S]
  crossover = own.sum(1)
  np.testing.assert_array_equal(own, np.arange(4)[None] < crossover[:, None])
  share = np.bincount(crossover, minlength=5) / 400
  np.testing.assert_allclose(share, [0, 0.3, 0.3, 0.3, 0.1], atol=5 * np.sqrt(0.25 / 400))
  assert share[0] == 0  # the coarsest style is always of the image's own latents
  # Those of the other latents differ from example to example.
  assert len(np.unique(np.round(styles[:, -1, 0], 5))) > 300


def test_truncation_leaves_all_or_the_mean_alone(variables):
  w, mean, (_, noise_key) = mapped(variables, Z), variables["latent_stats"]["mean"], jax.random.split(KEY)
  repeated = lambda w: np.repeat(w[:2, None], 4, 1)
  assert_equal(draw(variables, Z, KEY, 1.0)[:2], synthesize(variables, repeated(w), noise_key))
  assert_equal(draw(variables, Z, KEY, 0.0)[:2], synthesize(variables, repeated(np.tile(mean, (2, 1))), noise_key))
  half = GENERATOR.apply(variables, w, 0.5, method="truncate")
  assert_equal(half, (w + mean[None]) / 2)
  np.testing.assert_array_equal(GENERATOR.apply(variables, w, 1.0, method="truncate"), w)
  np.testing.assert_array_equal(GENERATOR.apply(variables, w, 0.0, method="truncate"), np.tile(mean, (8, 1)))


def test_the_mean_of_w_runs_in_training_alone_and_over_all_devices(variables):
  learn = jax.jit(
    lambda z, train: GENERATOR.apply(variables, z, train, method="map", mutable=["latent_stats"]), static_argnums=1
  )
  w, moved = learn(Z, True)
  old = variables["latent_stats"]["mean"]
  assert_equal(moved["latent_stats"]["mean"], old + 0.005 * (w.mean(0) - old), 1e-6)
  np.testing.assert_array_equal(learn(Z, False)[1]["latent_stats"]["mean"], old)

  def on_device(z):
    with rows.view(axis="data"):
      return GENERATOR.apply(variables, z, True, method="map", mutable=["latent_stats"])[1]

  pieces = jax.pmap(on_device, "data")(Z.reshape(8, 1, 5))
  assert_equal(pieces["latent_stats"]["mean"], np.tile(moved["latent_stats"]["mean"], (8, 1)), 1e-6)


def test_output_is_of_every_pixel_of_the_finished_image(variables):
  """And |J' y| is of what comes out: here three times as far."""
  other = GENERATOR.clone(output=lambda image: 3 * jnp.tanh(image))
  assert_equal(other.apply(variables, Z, False, key=KEY), 3 * np.tanh(draw(variables, Z, KEY, 1.0)))
  lengths = lambda module: module.apply(variables, KEY, Z[:2], False, method="path_lengths")
  assert_equal(lengths(GENERATOR.clone(output=lambda image: 3 * image)), 3 * lengths(GENERATOR))


# Path lengths.


def test_path_lengths_are_those_of_the_whole_jacobian(variables):
  """|J' y| by the columns of J, found by forward differentiation; the key gives styles, noise and y in this order."""
  lengths = jax.jit(lambda z: GENERATOR.apply(variables, KEY, z, False, method="path_lengths"))(Z[:2])
  _, noise_key, direction_key = jax.random.split(KEY, 3)
  w = mapped(variables, Z)[:2]
  y = np.asarray(random.normal(direction_key, 2, (8, 4, 2)), np.float64) / np.sqrt(8 * 4)
  jacobian = jax.jit(jax.jacfwd(lambda styles: synthesize(variables, styles, noise_key)))(jnp.repeat(w[:, None], 4, 1))
  for i in range(2):
    columns = np.asarray(jacobian[i, ..., i, :, :], np.float64)  # [H, W, C, S, width]
    slopes = (columns * y[i][..., None, None]).sum((0, 1, 2))
    np.testing.assert_allclose(lengths[i], np.sqrt(np.square(slopes).sum(-1).mean()), rtol=1e-4)


def test_path_lengths_can_be_trained_down(variables):
  """Their gradient, of second order, is that of the lengths, by small differences along it (the lengths jump at kinks)."""
  total = jax.jit(
    lambda params: GENERATOR.apply({**variables, "params": params}, KEY, Z[:2], False, method="path_lengths").sum()
  )
  gradient = jax.jit(jax.grad(total))(variables["params"])
  norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(gradient)))
  moved = lambda step: jax.tree.map(lambda leaf, slope: leaf + step / norm * slope, variables["params"], gradient)
  np.testing.assert_allclose((total(moved(3e-4)) - total(moved(-3e-4))) / 6e-4, norm, rtol=0.05)


# The whole.


def test_every_parameter_is_used(variables):
  loss = lambda params: jnp.sin(3 * GENERATOR.apply({**variables, "params": params}, Z, False, key=KEY)).sum()
  assert_all_used(jax.jit(jax.grad(loss))(variables["params"]))


def test_label_steers_the_mapping():
  mapping = Mapping(5, 2, num_classes=3)
  label = jnp.array([0, 2, 1, 1, 0, 0, 2, 1])
  params = jax.tree.map(lambda leaf: 100 * leaf, noisy(mapping.init, Z, label))
  change = np.abs(mapping.apply(params, Z, label.at[2].set(0)) - mapping.apply(params, Z, label)).max(1)
  np.testing.assert_array_equal(change > 1e-5, np.arange(8) == 2)
  with pytest.raises(UserError, match="3 classes"):
    mapping.apply(params, Z, None)
  with pytest.raises(UserError, match="0 classes"):
    Mapping(5, 2, 0).init(KEY, Z, label)


def test_critic_compares_images_in_groups_of_four():
  x = jnp.asarray(RNG.uniform(-1, 1, (8, 8, 4, 2)), jnp.float32)
  critic = Discriminator((4, 3))
  params = noisy(lambda key, x: critic.init(key, x, True), x)
  judge = jax.jit(lambda x: critic.apply(params, x, True))
  changed = np.abs(judge(x.at[1].multiply(-1)) - judge(x))
  assert changed[:4].min() > 1e-6
  np.testing.assert_allclose(changed[4:], 0, atol=1e-6)


def test_refuses_what_doubling_cannot_make():
  with pytest.raises(UserError, match="8 x 5"):
    Generator((8, 5, 1)).init({"params": KEY, "dropout": KEY}, Z, True)
