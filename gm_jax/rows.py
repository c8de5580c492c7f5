"""Which rows of the global batch is this code looking at?

Every model in gm_jax is written for the whole batch, with no device in sight.  Two situations show it only a part:

- a picture gallery drawn in pieces (images 64 to 127 of seed s), and
- `jax.pmap`, where each device runs the step on its own slice.

In both, what must not change is the meaning of "row i".  A third shows it the whole batch, of which every device holds a part:
what is drawn in the step must be cut like what is fed, or each device would make all of it.  This file holds these facts in a
context variable, read while JAX traces.  What is said of the whole batch looks here: keys, means, the statistics of layers; no
loss does.
"""

import contextlib
import contextvars
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Rows(NamedTuple):
  first: Any = 0  # global index of the first row in view (may be traced)
  axis: str | None = None  # name of the mapped axis, if the batch is cut along one
  place: Callable | None = None  # puts each row of an array on the device that holds the example


_rows: contextvars.ContextVar[Rows | None] = contextvars.ContextVar("gm_jax_rows", default=None)


@contextlib.contextmanager
def view(first=0, axis: str | None = None, place: Callable | None = None):
  """Within the block, row 0 of every batch is row `first` of the global one.

  The batch is cut along the mapped `axis` if one is named, or laid over devices by `place` if one is given.
  """
  token = _rows.set(Rows(first, axis, place))
  try:
    yield
  finally:
    _rows.reset(token)


def _in_view() -> Rows:
  return _rows.get() or Rows()


def indices(num: int) -> jax.Array:
  """Global indices of `num` rows in view, int32 [num]."""
  first, axis, place = _in_view()
  if axis is not None:
    first = first + jax.lax.axis_index(axis) * num
  indices = first + jnp.arange(num, dtype=jnp.int32)
  return place(indices) if place else indices


def mean(tree):
  """Leaf by leaf, the mean of what all cuts of the batch hold; the tree itself when the batch is in one piece.

  Only floating-point leaves are averaged: counters agree on every device already.
  """
  axis = _in_view().axis
  if axis is None:
    return tree
  floating = lambda leaf: jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
  return jax.tree.map(lambda leaf: jax.lax.pmean(leaf, axis) if floating(leaf) else leaf, tree)


def total(tree):
  """Leaf by leaf, the sum of what all cuts of the batch hold; the tree itself when the batch is in one piece."""
  axis = _in_view().axis
  return tree if axis is None else jax.lax.psum(tree, axis)


def batch_mean(tree):
  """Leaf by leaf, the mean over the leading axis of the whole global batch: [B, ...] -> [...]."""
  return mean(jax.tree.map(lambda leaf: leaf.mean(0), tree))
