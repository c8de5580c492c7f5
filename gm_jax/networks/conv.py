"""Convolution layers whose gradients are as fast as their forward pass on a CPU, inside loops too.

XLA's CPU compiler has a fast kernel for convolutions in one form: no input dilation, layout (N, H, W, C) x (H, W, I, O).
The weight gradients that JAX derives are in another form.  At the top level of a program the compiler rewrites most of
them; inside `lax.scan`, `while` and `cond`, and for transposed convolutions everywhere, they run in a naive loop, 5 to 100
times slower.

A convolution is bilinear, so all of its derivatives, of every order and in both modes, follow from its two transposes.  Here
it is a primitive whose transposes are again that primitive, in the fast form.  With stride s, kernel dilation r, low padding p
and input dilation a, y[o] = sum_k x[(o s + k r - p) / a] w[k], and

  dx   is dy * w with w turned round, s and a exchanged;
  dw   is x * dy with s and r exchanged, channels taking the place of examples;
  dw   where a > 1 is dy * x, turned round, so that the kernel is dilated and not the input.

Which program the primitive becomes is in conv_cpu.py.

On other backends `convolve` is `lax.conv_general_dilated` itself, letter for letter, so that their compilers find the
patterns they know.  That is decided while tracing, by `jax.default_backend()`: a choice at lowering time
(`lax.platform_dependent`) would put a branch into every program and its gradient.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.linear import canonicalize_padding, default_kernel_init
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from gm_jax.networks.conv_cpu import NHWC, Pair, Window, fast_conv, is_plain, lax_conv

_FEW = 32  # outputs: with fewer, a weight gradient takes down to a quarter of the time if images and kernels change places


def convolve(
  x,
  w,
  window_strides,
  padding,
  lhs_dilation=None,
  rhs_dilation=None,
  dimension_numbers=NHWC,
  feature_group_count=1,
  precision=None,
):
  """`lax.conv_general_dilated` of images: x [N, H, W, G * I], w [h, w, I, G * O] -> [N, H', W', G * O]."""
  if x.ndim != 4:
    raise ValueError(f"this convolution takes images [N, H, W, C], not an array of shape {x.shape}; use flax.linen.Conv")
  if jax.default_backend() != "cpu":
    return jax.lax.conv_general_dilated(
      x, w, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count, precision=precision
    )
  ones = (1, 1)
  lhs_dilation, rhs_dilation = tuple(lhs_dilation or ones), tuple(rhs_dilation or ones)
  if isinstance(padding, str):
    padding = jax.lax.padtype_to_pads(x.shape[1:3], _spans(w.shape[:2], rhs_dilation), window_strides, padding)
  padding = tuple((int(low), int(high)) for low, high in padding)
  window = Window(tuple(window_strides), padding, lhs_dilation, rhs_dilation, feature_group_count, precision)
  return conv_p.bind(x, w, window=window)


def double(x):
  """Nearest neighbours: [N, H, W, C] -> [N, 2 H, 2 W, C]."""
  return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)


def convolve_doubled(
  x,
  w,
  window_strides=(1, 1),
  padding="SAME",
  lhs_dilation=None,
  rhs_dilation=None,
  dimension_numbers=NHWC,
  feature_group_count=1,
  precision=None,
):
  """`convolve` of `double(x)` by a kernel of 3 x 3, [N, H, W, I] -> [N, 2 H, 2 W, O], by half of the products or a little more.

  A window of 3 x 3 on the doubled image sees 2 x 2 pixels of x, in one of four ways: by where its middle is in its block of
  2 x 2.  So there are four kernels of 2 x 2, whose entries are sums of those of w.
  """
  moved = [tuple(pair or (1, 1)) for pair in (window_strides, lhs_dilation, rhs_dilation)]
  if w.shape[:2] != (3, 3) or {*moved} != {(1, 1)} or feature_group_count != 1 or padding != "SAME":
    raise ValueError("a doubled image is convolved by one plain kernel of 3 x 3, with padding 'SAME'")
  (n, height, width, _), features = x.shape, w.shape[-1]
  # Of three neighbours in a doubled row two are one pixel: the last two around a pair's first, the first two around its second.
  pixels = lambda w: [jnp.stack([w[0], w[1] + w[2]]), jnp.stack([w[0] + w[1], w[2]])]
  kernels = [both.swapaxes(0, 1) for rows in pixels(w) for both in pixels(rows.swapaxes(0, 1))]  # 4 of [2, 2, I, O]
  around = ((1, 1), (1, 1))
  y = convolve(x, jnp.concatenate(kernels, -1), (1, 1), around, precision=precision)  # [N, H + 1, W + 1, 4 O]
  y = y.reshape(n, height + 1, width + 1, 2, 2, features)
  place = lambda row, column: y[:, row : row + height, column : column + width, row, column]
  rows = [jnp.stack([place(row, 0), place(row, 1)], 3) for row in (0, 1)]  # [N, H, W, 2, O]
  return jnp.stack(rows, 2).reshape(n, 2 * height, 2 * width, features)


class Conv(nn.Conv):
  """`flax.linen.Conv` for images [..., H, W, C].  An integer `kernel_size` k means k x k."""

  conv_general_dilated: Callable = convolve

  def __post_init__(self):
    self.kernel_size = _pair(self.kernel_size)
    super().__post_init__()


class ConvTranspose(nn.Module):
  """`flax.linen.ConvTranspose` for images [..., H, W, C].  An integer `kernel_size` k means k x k.

  Padding "SAME" makes the output `strides` times as large as the input; pairs are the padding of the dilated input.  With
  `transpose_kernel` the kernel is that of the convolution whose transpose this is: [h, w, features, C], turned round.
  """

  features: int
  kernel_size: int | Sequence[int]
  strides: int | Sequence[int] | None = None
  padding: str | int | Sequence = "SAME"
  kernel_dilation: int | Sequence[int] | None = None
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32
  precision: Any = None
  kernel_init: Callable = default_kernel_init
  bias_init: Callable = nn.initializers.zeros_init()
  transpose_kernel: bool = False

  @nn.compact
  def __call__(self, inputs):
    kernel_size, strides, dilation = (_pair(size or 1) for size in (self.kernel_size, self.strides, self.kernel_dilation))
    channels = (self.features, inputs.shape[-1]) if self.transpose_kernel else (inputs.shape[-1], self.features)
    kernel = self.param("kernel", self.kernel_init, kernel_size + channels, self.param_dtype)
    bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
    inputs, kernel, bias = nn.dtypes.promote_dtype(inputs, kernel, bias, dtype=self.dtype)
    if self.transpose_kernel:
      kernel = _turn(kernel).swapaxes(2, 3)

    padding = canonicalize_padding(self.padding, 2)
    if isinstance(padding, str):
      spans = _spans(kernel_size, dilation)
      padding = [_transposed_padding(span, stride, padding) for span, stride in zip(spans, strides)]
    images = inputs.reshape(-1, *inputs.shape[-3:])
    y = convolve(images, kernel, (1, 1), padding, strides, dilation, precision=self.precision)
    y = y.reshape(*inputs.shape[:-3], *y.shape[1:])
    return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


def _transposed_padding(span: int, stride: int, padding: str) -> Pair:
  """Padding of the dilated input for an output of H * stride ("SAME"), or of all that the input reaches ("VALID")."""
  if padding not in ("SAME", "VALID"):
    raise ValueError(f"padding {padding!r} is unknown; take 'SAME', 'VALID' or pairs")
  if padding == "VALID":
    return span - 1, max(span, stride) - 1
  total = span + stride - 2
  low = span - 1 if stride >= span else math.ceil(total / 2)
  return low, total - low


def _pair(size) -> Pair:
  return (size, size) if isinstance(size, int) else tuple(size)


def _spans(sizes, dilation) -> Pair:
  """Extent of `sizes` pixels that are `dilation` apart."""
  return tuple((size - 1) * d + 1 for size, d in zip(sizes, dilation))


def _turn(w):
  return jax.lax.rev(w, (0, 1))


# The primitive.


def _input_gradient(dy, x, w, *, window: Window):
  height_width = x.aval.shape[1:3]
  padding = tuple(
    (kernel - 1 - low, image + low - output)
    for kernel, image, output, (low, _) in zip(
      _spans(w.shape[:2], window.kernel_dilation),
      _spans(height_width, window.input_dilation),
      _spans(dy.shape[1:3], window.strides),
      window.padding,
    )
  )
  h, k, i, go = w.shape
  w = w.reshape(h, k, i, window.groups, -1).transpose(0, 1, 4, 3, 2).reshape(h, k, go // window.groups, -1)
  w = _turn(jax.lax.optimization_barrier(w))  # apart: XLA's loop that does both at once takes half as long again
  swapped = window._replace(strides=window.input_dilation, input_dilation=window.strides, padding=padding)
  return conv_p.bind(dy, w, window=swapped)


def _weight_gradient(dy, x, w, *, window: Window):
  if window.input_dilation != (1, 1) and window.strides == (1, 1):
    return _weight_gradient_of_transposed(dy, x, w, window)
  padding = tuple(
    (low, output - image + kernel - 1 - low)
    for kernel, image, output, (low, _) in zip(
      _spans(w.aval.shape[:2], window.kernel_dilation),
      _spans(x.shape[1:3], window.input_dilation),
      _spans(dy.shape[1:3], window.strides),
      window.padding,
    )
  )
  if dy.shape[3] < min(_FEW, x.shape[3]) and is_plain(window):  # images and kernels change places
    padding = tuple((size - 1 - low, size - 1 - high) for size, (low, high) in zip(w.aval.shape[:2], padding))
    dw = conv_p.bind(_channels_first(dy, 1), x.transpose(1, 2, 0, 3), window=window._replace(padding=padding))  # [O, h, w, I]
    return _turn(dw.transpose(1, 2, 3, 0))
  swapped = window._replace(strides=window.kernel_dilation, kernel_dilation=window.strides, padding=padding)
  dw = conv_p.bind(_channels_first(x, window.groups), dy.transpose(1, 2, 0, 3), window=swapped)  # [I, h, w, G * O]
  return dw.transpose(1, 2, 0, 3)


def _weight_gradient_of_transposed(dy, x, w, window: Window):
  padding = tuple(
    (kernel - 1 - low, image + low - output)
    for kernel, image, output, (low, _) in zip(
      _spans(w.aval.shape[:2], window.kernel_dilation),
      _spans(x.shape[1:3], window.input_dilation),
      dy.shape[1:3],
      window.padding,
    )
  )
  swapped = Window(window.kernel_dilation, padding, (1, 1), window.input_dilation, window.groups, window.precision)
  dw = conv_p.bind(_channels_first(dy, window.groups), x.transpose(1, 2, 0, 3), window=swapped)  # [O, h, w, G * I]
  dw = dw.reshape(*dw.shape[:3], window.groups, -1).transpose(1, 2, 4, 3, 0)  # [h, w, I, G, O]
  return _turn(dw.reshape(w.aval.shape))


def _channels_first(x, groups: int):
  """[N, H, W, G * C] -> [C, H, W, G * N]: channels become examples, and examples channels."""
  n, height, width, _ = x.shape
  x = x.reshape(n, height, width, groups, -1).transpose(4, 1, 2, 3, 0)
  return x.reshape(-1, height, width, groups * n)


def _batch(arrays, axes, *, window: Window):
  (x, w), (x_axis, w_axis) = arrays, axes
  if w_axis is not None:  # a kernel per example is another operation: XLA's own
    return jax.vmap(lambda x, w: lax_conv(x, w, window=window), axes)(x, w), 0
  x = jnp.moveaxis(x, x_axis, 0)
  y = conv_p.bind(x.reshape(-1, *x.shape[2:]), w, window=window)
  return y.reshape(*x.shape[:2], *y.shape[1:]), 0


def _abstract_eval(x, w, *, window: Window):
  y = jax.eval_shape(lambda x, w: lax_conv(x, w, window=window), x, w)
  return x.update(shape=y.shape, dtype=y.dtype, weak_type=False)


conv_p = Primitive("gm_jax_conv")
conv_p.def_impl(lax_conv)
conv_p.def_abstract_eval(_abstract_eval)
ad.defbilinear(conv_p, _input_gradient, _weight_gradient)
batching.primitive_batchers[conv_p] = _batch
mlir.register_lowering(conv_p, mlir.lower_fun(fast_conv, multiple_results=False))
