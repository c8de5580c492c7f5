"""The project's convolutions against flax's: values, and derivatives of first and second order, in both modes."""

import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from gm_jax.networks import conv
from gm_jax.networks.conv import Conv, ConvTranspose, convolve_doubled, double
from tests.networks.tools import assert_equal

IMAGES = jax.random.normal(jax.random.key(0), (3, 7, 6, 4))

PAIRS = [(Conv(5, 4, 2), nn.Conv(5, (4, 4), 2)), (ConvTranspose(5, 4, 2), nn.ConvTranspose(5, (4, 4), (2, 2)))]


def outcomes(layer, params, x):
  """Everything that a layer may be asked for, in one compiled program: value, gradient, gradient of its norm, tangent."""

  def loss(params, x):
    return jnp.sin(layer.apply(params, x)).sum()

  def gradient_norm(params, x):
    return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(jax.grad(loss, (0, 1))(params, x)))

  def all_of_them(params, x):
    return {
      "value": layer.apply(params, x),
      "gradient": jax.grad(loss, (0, 1))(params, x),
      "second gradient": jax.grad(gradient_norm, (0, 1))(params, x),
      "tangent": jax.jvp(layer.apply, (params, x), (params, jnp.cos(x)))[1],
    }

  return jax.jit(all_of_them)(params, x)


def assert_agrees(layer, reference, x=IMAGES):
  params = reference.init(jax.random.key(1), x)
  assert jax.tree.map(jnp.shape, layer.init(jax.random.key(1), x)) == jax.tree.map(jnp.shape, params)
  assert_equal(outcomes(layer, params, x), outcomes(reference, params, x))


# Kernel, strides, padding, kernel dilation, groups.  Each line is there for what stands behind it.
CONVS = [
  (1, 1, "SAME", 1, 1),
  (1, 3, "VALID", 1, 1),  # strides wider than the kernel: pixels that nothing sees
  (2, 1, "SAME", 1, 1),  # even: SAME is asymmetric
  (3, 1, "SAME", 1, 1),
  (3, 2, "SAME", 1, 1),  # sides 7 and 6: with a rest and without
  (4, 2, "SAME", 1, 1),
  (4, 3, "VALID", 1, 1),
  (5, 1, "VALID", 1, 1),
  (5, 3, "SAME", 1, 1),
  (3, 1, ((2, 0), (0, 3)), 1, 1),
  (4, 2, ((0, 1), (3, 2)), 1, 1),
  (2, 3, ((5, 1), (0, 4)), 1, 1),  # padding wider than the kernel
  (3, 1, "SAME", 2, 1),
  (2, 2, "SAME", 3, 1),
  ((3, 2), (1, 3), "SAME", (2, 1), 1),  # nothing square
  (3, 1, "SAME", 1, 2),
  (3, 2, ((1, 2), (0, 1)), 2, 2),
  (4, 2, "SAME", 1, 4),  # a group for every channel
]


@pytest.mark.parametrize(("kernel", "strides", "padding", "dilation", "groups"), CONVS)
def test_conv_is_flaxs(kernel, strides, padding, dilation, groups):
  arguments = {"strides": strides, "padding": padding, "kernel_dilation": dilation, "feature_group_count": groups}
  size = (kernel, kernel) if isinstance(kernel, int) else kernel
  assert_agrees(Conv(8, kernel, **arguments), nn.Conv(8, size, **arguments))


TRANSPOSED = [
  (1, 1, "SAME", 1, False),
  (1, 3, "SAME", 1, False),  # strides wider than the kernel: zeros in the output
  (2, 3, "VALID", 1, True),
  (2, 2, "SAME", 1, False),
  (3, 1, "VALID", 1, True),
  (3, 2, "SAME", 1, False),
  (4, 2, "SAME", 1, False),
  (4, 2, "SAME", 1, True),
  (5, 2, "VALID", 1, False),
  (5, 3, "SAME", 1, True),
  (4, 2, ((1, 2), (0, 3)), 1, False),
  (3, 3, ((0, 0), (4, 1)), 1, True),
  (3, 2, "SAME", 2, False),
  (2, 1, "VALID", 3, True),
  ((4, 3), (2, 3), "SAME", (1, 2), False),
  ((3, 4), (1, 2), "SAME", 1, True),  # dilates one side only
]


@pytest.mark.parametrize(("kernel", "strides", "padding", "dilation", "transpose_kernel"), TRANSPOSED)
def test_conv_transpose_is_flaxs(kernel, strides, padding, dilation, transpose_kernel):
  pair = lambda size: (size, size) if isinstance(size, int) else size
  arguments = {"padding": padding, "transpose_kernel": transpose_kernel}
  layer = ConvTranspose(5, kernel, strides, kernel_dilation=dilation, **arguments)
  assert_agrees(layer, nn.ConvTranspose(5, pair(kernel), pair(strides), kernel_dilation=pair(dilation), **arguments))


def test_input_dilation_with_strides():
  """A gradient that has no fast form still is the right one."""
  arguments = {"strides": 2, "padding": ((2, 1), (1, 1)), "input_dilation": 3, "feature_group_count": 2}
  assert_agrees(Conv(6, 3, **arguments), nn.Conv(6, (3, 3), **arguments))


@pytest.mark.parametrize("layers", PAIRS)
def test_inside_a_scan_under_vmap_and_without_bias(layers):
  """The gradient does not mind where it is taken: descents in a loop, and gradients per example."""
  ours, theirs = (layer.clone(use_bias=False) for layer in layers)

  def descend(layer, params, x):
    gradient = jax.grad(lambda params, x: jnp.square(layer.apply(params, x)).mean())
    step = lambda params, x: (jax.tree.map(jnp.subtract, params, gradient(params, x)), None)
    params, _ = jax.lax.scan(step, params, jnp.stack([x, 2 * x]))
    return params, jax.vmap(lambda x: gradient(params, x[None]))(x), jax.vmap(lambda p: gradient(p, x))(stack(params))

  stack = lambda params: jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), params)
  params = theirs.init(jax.random.key(1), IMAGES)
  assert_equal(*(jax.jit(descend, static_argnums=0)(layer, params, IMAGES) for layer in (ours, theirs)))


def test_leading_axes_and_bfloat16():
  x = IMAGES[None, :2, None]  # [1, 2, 1, H, W, C], and no batch axis at all
  for shaped in (x, IMAGES[0]):
    params = nn.Conv(5, (3, 3)).init(jax.random.key(1), shaped)
    assert_equal(Conv(5, 3).apply(params, shaped), nn.Conv(5, (3, 3)).apply(params, shaped))
    assert_equal(ConvTranspose(5, 3, 2).apply(params, shaped), nn.ConvTranspose(5, (3, 3), (2, 2)).apply(params, shaped))
  for ours, theirs in ((Conv, nn.Conv), (ConvTranspose, nn.ConvTranspose)):
    ours, theirs = (layer(5, (3, 3), (2, 2), dtype=jnp.bfloat16) for layer in (ours, theirs))
    results = [jax.value_and_grad(lambda p, layer=layer: layer.apply(p, IMAGES).sum())(params) for layer in (ours, theirs)]
    dtypes = [[leaf.dtype for leaf in jax.tree.leaves(result)] for result in results]
    assert dtypes[0] == dtypes[1]
    assert_equal(*results, tolerance=0.02)


@pytest.mark.parametrize(
  "layer", [Conv(5, 4, 2), Conv(4, 3, feature_group_count=2), ConvTranspose(5, 4, 2), ConvTranspose(5, 3, 3)]
)
def test_on_the_cpu_nothing_dilates_or_permutes_an_image(layer):
  """These are the slow forms; look for them in the value and in both gradients."""
  params = layer.init(jax.random.key(1), IMAGES)
  gradient = jax.grad(lambda params, x: jnp.square(layer.apply(params, x)).sum(), (0, 1))
  text = jax.jit(gradient).lower(params, IMAGES).as_text()
  convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
  assert len(convolutions) >= 3
  assert all("[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in line for line in convolutions)
  assert not any("lhs_dilate" in line and "lhs_dilate = [1, 1]" not in line for line in convolutions)


@pytest.mark.parametrize("layer", [Conv(5, 2, 3, padding=((5, 1), (0, 4))), Conv(5, 1, 3, "VALID"), ConvTranspose(5, 3, 3)])
def test_on_the_cpu_no_padding_is_negative(layer):
  """Convolutions with negative padding were right on one device and wrong when eight shared the batch."""
  params = layer.init(jax.random.key(1), IMAGES)
  gradient = jax.grad(lambda params, x: jnp.square(layer.apply(params, x)).sum(), (0, 1))
  paddings = re.findall(r"pad = \[\[(.*?)\]\]", jax.jit(gradient).lower(params, IMAGES).as_text())
  assert len(paddings) >= 3
  assert not any("-" in padding for padding in paddings)


@pytest.mark.parametrize("layers", PAIRS)
def test_other_backends_get_flaxs_own_program(layers, monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  params = layers[1].init(jax.random.key(1), IMAGES)

  def program(layer):
    gradient = jax.jit(jax.grad(lambda params, x: jnp.square(layer.apply(params, x)).sum(), (0, 1)))
    return gradient.trace(params, IMAGES).lower(lowering_platforms=("cuda",)).as_text()

  ours, theirs = map(program, layers)
  settings = lambda line: line.split("=", 1)[1].split("(")[0] + line.split(")", 1)[1]  # less the names of the operands
  convolutions = lambda text: [settings(line) for line in text.splitlines() if "convolution" in line]
  assert len(convolutions(theirs)) == 3
  assert convolutions(ours) == convolutions(theirs)


def test_what_it_does_not_take():
  with pytest.raises(ValueError, match="images"):
    Conv(4, 3).init(jax.random.key(0), jnp.ones((2,)))
  with pytest.raises(ValueError, match="CIRCULAR"):
    ConvTranspose(4, 3, padding="CIRCULAR").init(jax.random.key(0), IMAGES)


# Doubled images.


def test_double_repeats_pixels():
  y = double(IMAGES)
  for i in range(14):
    for j in range(12):
      assert (y[:, i, j] == IMAGES[:, i // 2, j // 2]).all()


class DoubleFirst(nn.Module):
  """What stands for itself: the image is doubled, then convolved."""

  features: int

  @nn.compact
  def __call__(self, x):
    return nn.Conv(self.features, (3, 3), name="layer")(double(x))


class Doubled(nn.Module):
  features: int

  @nn.compact
  def __call__(self, x):
    return Conv(self.features, 3, conv_general_dilated=convolve_doubled, name="layer")(x)


@pytest.mark.parametrize("shape", [(3, 7, 6, 4), (1, 1, 1, 2), (2, 1, 4, 3)])
def test_a_doubled_image_is_convolved_without_being_doubled(shape):
  assert_agrees(Doubled(5), DoubleFirst(5), jax.random.normal(jax.random.key(0), shape))


def test_half_of_the_products_are_left():
  count = lambda layer: jax.jit(layer.init_with_output).lower(jax.random.key(0), jnp.ones((1, 32, 32, 16)))
  products = lambda layer: count(layer).cost_analysis()["flops"]
  assert products(Doubled(16)) < 0.55 * products(DoubleFirst(16))


@pytest.mark.parametrize(("size", "options"), [(5, {}), (3, {"strides": 2}), (3, {"padding": "VALID"})])
def test_what_no_doubled_image_is_convolved_by_is_refused(size, options):
  with pytest.raises(ValueError, match="one plain kernel of 3 x 3"):
    Conv(5, size, conv_general_dilated=convolve_doubled, **options).init(jax.random.key(0), IMAGES)


# Large kernels.


def test_a_kernel_as_large_as_the_image_is_a_few_products():
  """The weight gradient of a small kernel is one, which may have padding that reaches over the image."""
  for size, kernel, padding in [((5, 6), (4, 5), "VALID"), ((5, 6), (5, 6), ((0, 1), (1, 0))), ((1, 1), (1, 1), "SAME")]:
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    w = jax.random.normal(jax.random.key(1), (*kernel, 3, 4))
    expected = jax.lax.conv_general_dilated(x, w, (1, 1), padding, dimension_numbers=conv.NHWC)
    convolved = jax.jit(lambda x, w, padding=padding: conv.convolve(x, w, (1, 1), padding))
    assert_equal(convolved(x, w), expected)
    assert "stablehlo.convolution" not in convolved.lower(x, w).as_text()


# Many channels: Winograd's products.


def programs(size, channels, features, padding, precision=None):
  """Ours and XLA's: (x, w) -> value, gradients by both, and how the norm of the gradients changes with w."""
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (2, *size, channels))
  w = jax.random.normal(keys[1], (3, 3, channels, features)) / math.sqrt(9 * channels)

  def of(convolution):
    def everything(x, w):
      convolved = lambda x, w: convolution(x, w, (1, 1), padding, dimension_numbers=conv.NHWC, precision=precision)
      y, gradients = jax.vjp(convolved, x, w)
      dy = jax.random.normal(keys[2], y.shape)
      norm = lambda w: jnp.square(jax.vjp(convolved, x, w)[1](dy)[0]).sum()
      return y, *gradients(dy), jax.grad(norm)(w)

    return jax.jit(everything)

  return of(conv.convolve), of(jax.lax.conv_general_dilated), x, w


def convolutions(program, *arguments) -> int:
  return program.lower(*arguments).as_text().count("stablehlo.convolution")


@pytest.mark.parametrize(
  ("size", "channels", "features", "padding"),
  [
    ((8, 8), 128, 64, "SAME"),  # rows by four, with and without a rest
    ((7, 4), 64, 128, "SAME"),
    ((14, 3), 128, 64, ((0, 2), (0, 0))),
    ((13, 5), 64, 128, "VALID"),
  ],
)
def test_rows_by_four_are_the_same_convolution(size, channels, features, padding):
  ours, xlas, x, w = programs(size, channels, features, padding)
  assert convolutions(ours, x, w) > 3 * convolutions(xlas, x, w)
  for got, expected in zip(ours(x, w), xlas(x, w)):
    assert jnp.abs(got - expected).max() < 1e-5 * jnp.abs(expected).max()


@pytest.mark.parametrize("options", [{"channels": 32, "features": 32}, {"size": (6, 6)}, {"precision": "highest"}])
def test_small_or_precise_convolutions_are_left_alone(options):
  ours, xlas, x, w = programs(**{"size": (8, 8), "channels": 128, "features": 64, "padding": "SAME", **options})
  assert convolutions(ours, x, w) == convolutions(xlas, x, w)


@pytest.mark.parametrize(("channels", "features"), [(8, 1), (40, 3)])
def test_a_kernel_of_few_outputs_has_the_same_gradient(channels, features):
  x = jax.random.normal(jax.random.key(0), (2, 6, 5, channels))
  assert_agrees(Conv(features, (3, 2)), nn.Conv(features, (3, 2)), x)
  assert_agrees(Conv(features, 3, padding=((2, 0), (0, 1))), nn.Conv(features, (3, 3), padding=((2, 0), (0, 1))), x)
