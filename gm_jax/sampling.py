"""A gallery: as many images as you like, in pieces of any size, each a function of (seed, its index) alone."""

import jax
import numpy as np

from gm_jax import parallel, random, rows
from gm_jax.core import GenerativeModel


def draw(model: GenerativeModel, state, *, seed: int, num: int, batch_size: int = 64, condition=None) -> np.ndarray:
  """Images 0 to num - 1 of `seed`, [num, H, W, C].

  Args:
    model: any model; state: its state, wherever it lives.  Devices that each hold all of it draw a part of the images each.
    seed: integer in [0, 2**32).
    num: how many.
    batch_size: how many at a time; the images do not depend on it.
    condition: None, or an array with one row per image (labels, int32 [num]).
  """
  mesh = parallel.mesh_of(state)
  parts = 1 if mesh is None else mesh.size
  batch_size = -(-min(batch_size, num) // parts) * parts
  piece = jax.jit(_piece, static_argnums=(0, 1, 2))
  pieces = []
  for first in range(0, num, batch_size):
    # The last piece is drawn whole and cut, so that everything is compiled once.
    which = np.arange(first, first + batch_size)
    wanted = None if condition is None else np.asarray(condition)[np.minimum(which, num - 1)]
    pieces.append(np.asarray(piece(model.sample, mesh, batch_size, np.int32(first), (np.uint32(seed), state), wanted)))
  return np.concatenate(pieces)[:num]


def _piece(sample, mesh, num, first, shared, condition):
  def draw(first, num, shared, condition):
    seed, state = shared
    with rows.view(first):
      return sample(random.stream(seed, random.SAMPLE), state, num, condition)

  return parallel.in_parts(draw, mesh, num)(first, shared, condition)
