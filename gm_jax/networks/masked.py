"""A multilayer perceptron whose outputs each see only the inputs before them, in any order that one likes.

Every input and every hidden unit has a degree.  Inputs are numbered by their place in the order, 1 to D; a hidden unit of
degree m sees the inputs 1 to m; output d, which predicts input d, sees the units of degree below d.  So a weight is in use if

    degree before <= degree behind    into a hidden layer
    degree before <  degree behind    into the outputs

and the Jacobian of outputs by inputs is strictly triangular in the order (Germain et al. 2015, https://arxiv.org/abs/1502.03509).
Masks are multiplied with the weights where these are used and never written into them: the same weights serve every order.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.networks.dropout import Dropout


class Degrees(NamedTuple):
  """Who sees whom."""

  inputs: jax.Array  # int32 [D], place of each input in the order, from 1
  hidden: tuple[jax.Array, ...]  # int32 [H] for each hidden layer, how many inputs each unit sees


def raster(num_inputs: int, hidden: Sequence[int]) -> Degrees:
  """Inputs in the order in which they come; the units of a layer see 1, ..., D - 1 of them, evenly spread."""
  return Degrees(jnp.arange(1, num_inputs + 1), tuple(_spread(num_inputs, size) for size in hidden))


def in_order(key, order, hidden: Sequence[int]) -> Degrees:
  """Inputs in `order` int [D] (the first, the second, ...); which unit sees how many is drawn from the key."""
  if not hidden:
    return Degrees(_inverse(order) + 1, ())
  # One sort shuffles every layer within itself.
  layers = [_spread(len(order), size) for size in hidden]
  which = jnp.concatenate([jnp.full(size, layer) for layer, size in enumerate(hidden)])
  shuffle = jnp.argsort(jax.random.uniform(key, which.shape) + which)
  degrees = jnp.split(jnp.concatenate(layers)[shuffle], list(itertools.accumulate(hidden))[:-1])
  return Degrees(_inverse(order) + 1, tuple(degrees))


def shuffled(key, num_inputs: int, hidden: Sequence[int]) -> Degrees:
  """Any order is as likely as any other, and so is any choice of units."""
  order_key, hidden_key = jax.random.split(key)
  return in_order(hidden_key, jax.random.permutation(order_key, num_inputs), hidden)


def order_of(degrees: Degrees):
  """The inputs from the first to the last, int32 [D]."""
  return _inverse(degrees.inputs - 1)


class Seen(NamedTuple):
  """What a network that is shown one input at a time has made of them."""

  sums: jax.Array  # [B, H], into the first layer
  values: list  # [B, H] of each hidden layer; zero for a unit that has not yet seen all its inputs
  past: jax.Array  # [B, D], into the outputs without a layer between


class MaskedMLP(nn.Module):
  """x [B, D] and who sees whom -> [B, D], entry d a function of the inputs before d."""

  num_inputs: int  # D
  hidden: Sequence[int]
  activation: Callable = nn.relu
  direct: bool = False  # whether inputs are also connected to the outputs without a layer between
  dropout: float = 0.0  # of the inputs, in training

  def setup(self):
    sizes, zeros = (self.num_inputs, *self.hidden, self.num_inputs), nn.initializers.zeros_init()
    param = lambda name, index, init, *shape: self.param(f"{name}_{index}", init, shape)
    init = nn.initializers.lecun_normal()
    self.kernels = [param("kernel", i, init, *sizes[i : i + 2]) for i in range(len(sizes) - 1)]
    self.biases = [param("bias", i, zeros, size) for i, size in enumerate(sizes[1:])]
    self.shortcut = param("direct", 0, zeros, self.num_inputs, self.num_inputs) if self.direct else None
    self.lose = Dropout(self.dropout)

  def __call__(self, x, degrees: Degrees, train: bool):
    x = self.lose(x, train)
    before, values = degrees.inputs, x
    for kernel, bias, behind in zip(self.kernels, self.biases, degrees.hidden):
      values = self.activation(values @ (kernel * (before[:, None] <= behind[None])) + bias[None])
      before = behind
    outputs = values @ (self.kernels[-1] * (before[:, None] < degrees.inputs[None])) + self.biases[-1][None]
    if self.direct:
      outputs = outputs + x @ (self.shortcut * (degrees.inputs[:, None] < degrees.inputs[None]))
    return outputs

  # One input at a time.  What is to come has not been seen, so no mask is needed.

  def begin(self, num: int) -> Seen:
    """Nothing seen yet, by `num` examples."""
    sums = jnp.broadcast_to(self.biases[0][None], (num, len(self.biases[0])))
    return Seen(sums, [jnp.zeros((num, size)) for size in self.hidden], jnp.zeros((num, self.num_inputs)))

  def output(self, seen: Seen, which):
    """Output `which` int [B], the next in each example's order: [B]."""
    rows = jnp.arange(len(which))
    if self.hidden:
      output = (seen.values[-1] * self.kernels[-1].T[which]).sum(1) + self.biases[-1][which]
    else:
      output = seen.sums[rows, which]
    return output + seen.past[rows, which]

  def see(self, seen: Seen, degrees: Degrees, which, value) -> Seen:
    """The inputs `which` int [B], the next in each example's order, are `value` [B].

    With them the hidden units of their degree have all their inputs: those are computed now and for good.

    Args:
      degrees: with a row for each example, inputs [B, D] and hidden [B, H].
    """
    degree = degrees.inputs[jnp.arange(len(which)), which][:, None]
    sums = below = seen.sums + value[:, None] * self.kernels[0][which]
    values = []
    for old, own, kernel, bias in zip(seen.values, degrees.hidden, self.kernels[1:], self.biases[1:]):
      values.append(jnp.where(own == degree, self.activation(below), old))
      below = values[-1] @ kernel + bias[None]  # what is beyond the last layer is left to `output`
    return Seen(sums, values, seen.past + value[:, None] * self.shortcut[which] if self.direct else seen.past)


def _inverse(permutation):
  return jnp.zeros_like(permutation).at[permutation].set(jnp.arange(len(permutation), dtype=permutation.dtype))


def _spread(num_inputs: int, size: int):
  """Degrees 1, ..., D - 1 for a layer of `size` units, each as often as any other; there is always one of degree 1."""
  return 1 + jnp.arange(size) * max(num_inputs - 1, 1) // size
