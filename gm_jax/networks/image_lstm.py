"""Long short-term memories that run over an image, row by row or diagonal by diagonal, and never look ahead.

van den Oord et al. 2016a (https://arxiv.org/abs/1601.06759).  At each pixel a layer has a state h and a cell c of its own,

    o, f, i, g = (input-to-state of the layer's input) + (state-to-state of h at pixels that came before)
    c = sigmoid(f) c_before + sigmoid(i) tanh(g)
    h = sigmoid(o) tanh(c)

All input-to-state terms are computed at once and the scan is left with one matrix product per row or diagonal.  There are two
layers, and each has two ways to run, with the same parameters:

    layer(x)                             x [B, H, W, I] -> h [B, H, W, F], the whole image, for training
    layer.pixel(memory, x, column)       x [B, 1, 1, I], one pixel -> (h [B, 1, 1, F], memory), after `layer.row` for each row

Features are in groups, one for each channel of the image; gates stay within their group.  A pixel's own input is seen by the
groups up to itself (mask B), earlier pixels by all.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.networks.causal import CausalConv, Pixelwise


class RowMemory(NamedTuple):
  """What a `RowLSTM` keeps: of the row above until the next begins, of this row from pixel to pixel."""

  from_above: Any  # [B, 1, W, 4 F], state-to-state
  cells_above: Any  # [B, 1, W, F]
  inputs: Any  # [B, 1, reach + W, I], behind zeros
  states: Any  # [B, 1, W, F]
  cells: Any  # [B, 1, W, F]


class RowLSTM(nn.Module):
  """A row at a time, from above: each pixel has the states of the 2 reach + 1 pixels over it, and the cell of the one over it.

  So it sees a triangle above itself, and from its own row what the input-to-state convolution reaches.
  """

  features: int  # F
  groups: int = 1
  reach: int = 1

  def setup(self):
    gates, size = 4 * self.features, (2 * self.reach + 1) * self.features
    self.left = CausalConv(gates, (0, 0), (-self.reach, -1), use_bias=False)
    self.own = Pixelwise(gates, self.groups)
    self.state_to_state = self.param("state_to_state", nn.initializers.lecun_normal(), (size, gates))

  def __call__(self, x):
    given = (self.left(x) + self.own(x)).swapaxes(0, 1)  # [H, B, W, 4 F]
    start = jnp.zeros((*given.shape[1:3], self.features), x.dtype)

    def row(carry, given):
      states, cells = carry
      states, cells = _unit(given + self._from_above(states), cells, self.groups)
      return (states, cells), states

    return _scan(row, (start, start), given).swapaxes(0, 1)

  def begin(self, x) -> RowMemory:
    """Nothing seen; x [B, 1, W, I] says of which shape."""
    zeros = lambda features, more=0: jnp.zeros((len(x), 1, more + x.shape[2], features), x.dtype)
    one = zeros(self.features)
    return RowMemory(zeros(4 * self.features), one, zeros(x.shape[3], self.reach), one, one)

  def row(self, memory: RowMemory, row) -> RowMemory:
    """Before the first pixel of a row."""
    del row  # the first is like the others: above it are zeros
    return memory._replace(from_above=self._from_above(memory.states), cells_above=memory.cells)

  def pixel(self, memory: RowMemory, x, column):
    window = jnp.concatenate([_columns(memory.inputs, column, self.reach), x], 2)
    given = self.left(window)[:, :, -1:] + self.own(x) + _columns(memory.from_above, column)
    state, cell = _unit(given, _columns(memory.cells_above, column), self.groups)
    return state, memory._replace(
      inputs=_write(memory.inputs, x, self.reach + column),
      states=_write(memory.states, state, column),
      cells=_write(memory.cells, cell, column),
    )

  def _from_above(self, states):
    """[..., W, F], a row -> state-to-state of the row below it, [..., W, 4 F]."""
    reach, width = self.reach, states.shape[-2]
    padded = jnp.pad(states, [(0, 0)] * (states.ndim - 2) + [(reach, reach), (0, 0)])
    near = [padded[..., shift : shift + width, :] for shift in range(2 * reach + 1)]
    return jnp.concatenate(near, -1) @ self.state_to_state


class DiagonalMemory(NamedTuple):
  """What a `DiagonalBiLSTM` keeps: of the row above until the next begins, of this row from pixel to pixel."""

  from_above: Any  # [B, 1, W, 4 F], state-to-state of the direction to the right
  leftwards: Any  # [B, 1, W, F], states of the direction to the left in the row above
  inputs: Any  # [B, 1, W, I]
  states: Any  # [B, 1, 1 + W, F] of the direction to the right, behind a zero
  cells: Any  # [B, 1, 1 + W, F], likewise


class DiagonalBiLSTM(nn.Module):
  """Two directions, each with parameters of its own, which together see the layer's input at every pixel that comes before.

  The map that runs to the left is taken from the row above: in the pixel's own row it has seen what comes after.
  """

  features: int  # F
  groups: int = 1

  def setup(self):
    self.rightwards = _Diagonal(self.features, self.groups)
    self.leftwards = _Diagonal(self.features, self.groups)

  def __call__(self, x):
    leftwards = jnp.flip(self.leftwards(jnp.flip(x, 2)), 2)
    return self.rightwards(x) + jnp.pad(leftwards[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))

  def begin(self, x) -> DiagonalMemory:
    """Nothing seen; x [B, 1, W, I] says of which shape."""
    zeros = lambda features, more=0: jnp.zeros((len(x), 1, more + x.shape[2], features), x.dtype)
    one, behind_zero = zeros(self.features), zeros(self.features, 1)
    return DiagonalMemory(zeros(4 * self.features), one, zeros(x.shape[3]), behind_zero, behind_zero)

  def row(self, memory: DiagonalMemory, row) -> DiagonalMemory:
    """Before the first pixel of a row: the one above is known in full now, so that the direction to the left can run."""
    leftwards = jnp.flip(self.leftwards.along(jnp.flip(memory.inputs, 2), jnp.flip(memory.leftwards, 2)), 2)
    return memory._replace(
      from_above=self.rightwards.from_above(memory.states[:, :, 1:]),
      leftwards=jnp.where(row > 0, leftwards, 0),
    )

  def pixel(self, memory: DiagonalMemory, x, column):
    given = self.rightwards.own(x) + _columns(memory.from_above, column)
    before = _columns(memory.states, column), _columns(memory.cells, column)
    state, cell = self.rightwards.follow(given, *before)
    return state + _columns(memory.leftwards, column), memory._replace(
      inputs=_write(memory.inputs, x, column),
      states=_write(memory.states, state, 1 + column),
      cells=_write(memory.cells, cell, 1 + column),
    )


class _Diagonal(nn.Module):
  """One direction: each pixel has the states of those to its left and above it, and the cell of the one to its left."""

  features: int
  groups: int

  def setup(self):
    gates = 4 * self.features
    self.own = Pixelwise(gates, self.groups)
    self.state_to_state = self.param("state_to_state", nn.initializers.lecun_normal(), (2 * self.features, gates))

  def __call__(self, x):
    """x [B, H, W, I] -> [B, H, W, F], all pixels of a diagonal at once."""
    given = skew(self.own(x))  # [H + W - 1, B, H, 4 F]
    start = jnp.zeros((*given.shape[1:3], self.features), x.dtype)

    def diagonal(carry, given):
      states, cells = carry
      # The pixel above is one diagonal earlier too.  What lies left of the image stays zero, because its gates are.
      above = jnp.pad(states[:, :-1], ((0, 0), (1, 0), (0, 0)))
      states, cells = _unit(given + jnp.concatenate([states, above], -1) @ self.state_to_state, cells, self.groups)
      return (states, cells), states

    return unskew(_scan(diagonal, (start, start), given))

  def from_above(self, states):
    return states @ self.state_to_state[self.features :]

  def follow(self, given, state, cell):
    """State and cell of a pixel, given all of its gates but what the pixel to the left says."""
    return _unit(given + state @ self.state_to_state[: self.features], cell, self.groups)

  def along(self, x, above):
    """One row: x [B, 1, W, I], states above it [B, 1, W, F] -> its states."""
    given = (self.own(x) + self.from_above(above)).swapaxes(0, 2)  # [W, 1, B, 4 F]
    start = jnp.zeros((*given.shape[1:3], self.features), x.dtype)

    def pixel(carry, given):
      carry = self.follow(given, *carry)
      return carry, carry[0]

    return _scan(pixel, (start, start), given).swapaxes(0, 2)


def skew(x):
  """[B, H, W, F] -> [H + W - 1, B, H, F]: row i is shifted right by i, so that diagonals become columns, and these lead."""
  num, height, width, features = x.shape
  # In memory, rows that are one longer than they are read as begin one later each.
  x = jnp.pad(x, ((0, 0), (0, 0), (0, height), (0, 0))).reshape(num, -1, features)[:, :-height]
  return x.reshape(num, height, height + width - 1, features).transpose(2, 0, 1, 3)


def unskew(x):
  """[H + W - 1, B, H, F] -> [B, H, W, F], the inverse of `skew`."""
  columns, num, height, features = x.shape
  x = jnp.pad(x.transpose(1, 2, 0, 3).reshape(num, -1, features), ((0, 0), (0, height), (0, 0)))
  return x.reshape(num, height, columns + 1, features)[:, :, : columns + 1 - height]


def _unit(gates, cell, groups: int):
  """Gates o, f, i, g side by side within each group [..., 4 F], cell before [..., F] -> state and cell, both [..., F].

  The gate f begins at sigmoid(1) and not at a half, so that cells are kept long enough to learn from.
  """
  parts = gates.reshape(*gates.shape[:-1], groups, 4, -1)
  o, f, i, g = (parts[..., part, :].reshape(cell.shape) for part in range(4))
  cell = nn.sigmoid(f + 1) * cell + nn.sigmoid(i) * jnp.tanh(g)
  return nn.sigmoid(o) * jnp.tanh(cell), cell


def _scan(step, start, given):
  """All states, stacked.  The gates are computed again on the way back: cheaper than to write and read them."""
  return jax.lax.scan(jax.checkpoint(step, prevent_cse=False), start, given)[1]


def _columns(x, column, num: int = 1):
  """The columns from `column` of a row [B, 1, W, F]: [B, 1, num, F]."""
  return jax.lax.dynamic_slice_in_dim(x, column, num, 2)


def _write(x, new, column):
  return jax.lax.dynamic_update_slice_in_dim(x, new, column, 2)
