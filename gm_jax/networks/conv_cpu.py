"""One convolution, in the forms that XLA's CPU compiler has fast kernels for.

Its fast kernel takes neither an image that is to grow nor one with zeros between its pixels; such images are padded, or
convolved in parts, before it.  Kernels nearly as large as the image are products of matrices.  Large convolutions by three rows
of float32 take half of the products (Winograd's minimal filtering), unless a precision is asked for.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

NHWC = ("NHWC", "HWIO", "NHWC")
Pair = tuple[int, int]

_MANY = 2**13  # inputs times outputs: with fewer, sums of rows take as long as the products that they save


class Window(NamedTuple):
  """How a kernel moves over an image; every field but the last two has one entry per spatial axis (H, W)."""

  strides: Pair = (1, 1)
  padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
  input_dilation: Pair = (1, 1)
  kernel_dilation: Pair = (1, 1)
  groups: int = 1
  precision: Any = None


def is_plain(window: Window) -> bool:
  """Whether nothing is strided, dilated or grouped."""
  return window._replace(padding=(), precision=None) == Window(padding=())


def lax_conv(x, w, *, window: Window):
  """x [N, H, W, G * I], w [h, w, I, G * O] -> [N, H', W', G * O], as XLA does it."""
  return jax.lax.conv_general_dilated(
    x, w, window.strides, window.padding, window.input_dilation, window.kernel_dilation, NHWC, window.groups,
    precision=window.precision,
  )  # fmt: skip


def fast_conv(x, w, *, window: Window):
  """The same as `lax_conv`, faster on a CPU."""
  if window.input_dilation != (1, 1) and window.strides == window.kernel_dilation == (1, 1):
    return _by_phases(x, w, window)
  if window.input_dilation == (1, 1):  # negative padding gave PixelCNN++ wrong gradients on eight devices, not on one
    x = _padded(x, [[min(0, side) for side in pair] for pair in window.padding])
    window = window._replace(padding=tuple(tuple(max(0, side) for side in pair) for pair in window.padding))
  if not is_plain(window):
    return lax_conv(x, w, window=window)
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
  return lax_conv(x, w, window=window)


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
  return [lax_conv(*pair, window=window._replace(padding=((0, 0), columns))) for pair in zip(images, kernels)]


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
    return fast_conv(x, w[top::a, left::b], window=window._replace(padding=(rows, columns), input_dilation=(1, 1)))

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
