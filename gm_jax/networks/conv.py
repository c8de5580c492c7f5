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

XLA's fast kernel takes neither an image that is to grow nor one with zeros between its pixels; such images are padded, or
convolved in parts, before it.  Large convolutions by three rows of float32 take half of the products (Winograd's minimal
filtering), unless a precision is asked for.

On other backends `convolve` is `lax.conv_general_dilated` itself, letter for letter, so that their compilers find the
patterns they know.  That is decided while tracing, by `jax.default_backend()`: a choice at lowering time
(`lax.platform_dependent`) would put a branch into every program and its gradient.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.linear import canonicalize_padding, default_kernel_init
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

NHWC = ("NHWC", "HWIO", "NHWC")
Pair = tuple[int, int]


_FEW = 32  # channels: a kernel of fewer outputs leaves the processor's vectors empty
_MANY = 2**13  # inputs times outputs: with fewer, sums of rows take as long as the products that they save


class Window(NamedTuple):
  """How a kernel moves over an image; every field but the last two has one entry per spatial axis (H, W)."""

  strides: Pair = (1, 1)
  padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
  input_dilation: Pair = (1, 1)
  kernel_dilation: Pair = (1, 1)
  groups: int = 1
  precision: Any = None


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


def _lax_conv(x, w, *, window: Window):
  return jax.lax.conv_general_dilated(
    x, w, window.strides, window.padding, window.input_dilation, window.kernel_dilation, NHWC, window.groups,
    precision=window.precision,
  )  # fmt: skip


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
  if dy.shape[3] < min(_FEW, x.shape[3]) and _is_plain(window):  # images and kernels change places
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
    return jax.vmap(lambda x, w: _lax_conv(x, w, window=window), axes)(x, w), 0
  x = jnp.moveaxis(x, x_axis, 0)
  y = conv_p.bind(x.reshape(-1, *x.shape[2:]), w, window=window)
  return y.reshape(*x.shape[:2], *y.shape[1:]), 0


def _abstract_eval(x, w, *, window: Window):
  y = jax.eval_shape(lambda x, w: _lax_conv(x, w, window=window), x, w)
  return x.update(shape=y.shape, dtype=y.dtype, weak_type=False)


def _is_plain(window: Window) -> bool:
  return window._replace(padding=(), precision=None) == Window(padding=())


def _fast_conv(x, w, *, window: Window):
  """`_lax_conv`, in the forms that XLA's CPU compiler has fast kernels for."""
  if window.input_dilation != (1, 1) and window.strides == window.kernel_dilation == (1, 1):
    return _by_phases(x, w, window)
  if window.input_dilation == (1, 1):  # negative padding gave PixelCNN++ wrong gradients on eight devices, not on one
    x = _padded(x, [[min(0, side) for side in pair] for pair in window.padding])
    window = window._replace(padding=tuple(tuple(max(0, side) for side in pair) for pair in window.padding))
  if not _is_plain(window):
    return _lax_conv(x, w, window=window)
  outputs = [size + sum(pair) - kernel + 1 for size, kernel, pair in zip(x.shape[1:3], w.shape[:2], window.padding)]
  if math.prod(outputs) <= 4:
    return _by_products(x, w, window, outputs)
  if any(sum(pair) >= kernel for kernel, pair in zip(w.shape[:2], window.padding)):  # the image is to grow
    x = jax.lax.optimization_barrier(_padded(x, window.padding))
    window = window._replace(padding=((0, 0), (0, 0)))
  if x.dtype == jnp.float32 and window.precision is None:
    if w.shape[0] == 3 and outputs[0] >= 7 and w.shape[2] * w.shape[3] >= _MANY:
      return _rows_by_four(x, w, window, outputs[0])
    if outputs[0] == 3 and w.shape[0] >= 7 and len(x) * w.shape[3] >= _MANY:
      return _kernel_rows_by_four(x, w, window)
  return _lax_conv(x, w, window=window)


# Winograd's F(4, 3) along one axis: four rows of outputs and three of a kernel, or the other way round, by six products instead
# of twelve.  Rounding errors are three times those of the sum of twelve.  Lavin and Gray 2016, "Fast algorithms for
# convolutional neural networks", section 4.2, and its transpose; https://arxiv.org/abs/1509.09308

_INPUT = (
  (4, 0, -5, 0, 1, 0),
  (0, -4, -4, 1, 1, 0),
  (0, 4, -4, -1, 1, 0),
  (0, -2, -1, 2, 1, 0),
  (0, 2, -1, -2, 1, 0),
  (0, 4, 0, -5, 0, 1),
)
_KERNEL = tuple(
  (a / 24, b / 24, c / 24) for a, b, c in [(6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24)]
)
_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def _rows_by_four(x, w, window: Window, num: int):
  """A kernel of three rows makes `num` rows of outputs."""
  kernels = [kernel[None] for kernel in _mixed(_KERNEL, w)]
  y = jnp.stack(_mixed(_OUTPUT, _products(x, kernels, window, num)), 2)
  return y.reshape(len(x), -1, *y.shape[3:])[:, :num]


def _kernel_rows_by_four(x, w, window: Window):
  """A kernel of many rows makes three rows of outputs."""
  num = len(w)
  w = jnp.pad(w, ((0, -num % 4), (0, 0), (0, 0), (0, 0)))
  kernels = _mixed(zip(*_OUTPUT), [w[i::4] for i in range(4)])
  return jnp.concatenate(_mixed(zip(*_KERNEL), _products(x, kernels, window, num)), 1)


def _products(x, kernels, window: Window, num: int):
  """Those of the rows of x, four by four with two more around, that take part with `num` rows; and `kernels`."""
  (top, bottom), columns = window.padding
  x = _padded(x, ((top, bottom + -num % 4), (0, 0)))
  images = _mixed(_INPUT, [x[:, i : x.shape[1] - 5 + i : 4] for i in range(6)])
  return [_lax_conv(*pair, window=window._replace(padding=((0, 0), columns))) for pair in zip(images, kernels)]


def _mixed(matrix, arrays):
  """Row by row of the matrix, the sum of the arrays with its entries as weights."""
  return [sum(weight * array for weight, array in zip(row, arrays) if weight) for row in matrix]


def _padded(x, padding):
  return jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*pair, 0) for pair in padding), (0, 0, 0)])


def _by_phases(x, w, window: Window):
  """An image with a - 1 zeros between its pixels: output a m + r sees every a-th row of the kernel, and no zeros."""
  sizes = [
    a * (size - 1) + 1 + sum(pair) - kernel + 1
    for size, a, kernel, pair in zip(x.shape[1:3], window.input_dilation, w.shape[:2], window.padding)
  ]

  def phase(axis: int, r: int):
    """(first row of the kernel, number of them, padding of the image)."""
    a, kernel, (low, _), size = window.input_dilation[axis], w.shape[axis], window.padding[axis], x.shape[1 + axis]
    first = (low - r) % a
    taps = max(0, -(-(kernel - first) // a))
    before = (low - r - first) // a
    return first, taps, (before, -(-sizes[axis] // a) + taps - 1 - size - before)

  def output(down, right):
    (top, height, rows), (left, width, columns) = phase(0, down), phase(1, right)
    if height == 0 or width == 0:
      return jnp.zeros((len(x), -(-sizes[0] // a), -(-sizes[1] // b), w.shape[3]), x.dtype)
    return _fast_conv(x, w[top::a, left::b], window=window._replace(padding=(rows, columns), input_dilation=(1, 1)))

  a, b = window.input_dilation
  y = jnp.stack([jnp.stack([output(down, right) for right in range(b)], 3) for down in range(a)], 2)
  y = y.reshape(len(x), a * y.shape[1], b * y.shape[3], w.shape[3])
  return y[:, : sizes[0], : sizes[1]]


def _by_products(x, w, window: Window, outputs):
  """A kernel as large as the image, nearly, as in the weight gradient of a small one: a product of matrices for each output."""
  x = _padded(x, window.padding)

  def product(i, j):
    seen = x[:, i : i + w.shape[0], j : j + w.shape[1]]
    # Not of matrices made by reshaping: in a weight gradient the channels are examples, which may be cut over devices.
    return jax.lax.dot_general(seen, w, (((1, 2, 3), (0, 1, 2)), ((), ())), precision=window.precision)

  return jnp.stack([jnp.stack([product(i, j) for j in range(outputs[1])], 1) for i in range(outputs[0])], 1)


conv_p = Primitive("gm_jax_conv")
conv_p.def_impl(_lax_conv)
conv_p.def_abstract_eval(_abstract_eval)
ad.defbilinear(conv_p, _input_gradient, _weight_gradient)
batching.primitive_batchers[conv_p] = _batch
mlir.register_lowering(conv_p, mlir.lower_fun(_fast_conv, multiple_results=False))
