"""Drawn shapes of which everything is known: which shape, how large, how turned and where.

A small set in the manner of dSprites (Matthey et al. 2017, https://github.com/google-deepmind/dsprites-dataset), drawn here and
not downloaded: every combination of the factors, one white shape on black.
"""

import itertools
from typing import NamedTuple

import numpy as np

from gm_jax.data import noise
from gm_jax.data.dataset import Dataset
from gm_jax.errors import UserError

SHAPES = ("square", "ellipse", "heart")
FACTORS = ("shape", "scale", "orientation", "column", "row")


class Grid(NamedTuple):
  """How many values each factor has besides the three shapes, spread evenly: half size to full, a full turn, across, down."""

  scales: int = 4
  orientations: int = 8
  columns: int = 10
  rows: int = 10


def sprites(split: str, size: int = 32, grid: Grid | None = None, seed: int = 0) -> Dataset:
  """All shapes, uint8 black and white [N, size, size, 1], with "factors" int32 [N, 5] in the order of FACTORS.

  Every sixth image of a shuffle by `seed` is "test", the others are "train"; the label is the shape.
  """
  if split not in ("train", "test"):
    raise UserError(f"sprites has no split {split!r}; there are train, test")
  grid = grid or Grid()
  factors = np.array(list(itertools.product(range(len(SHAPES)), *map(range, grid))), np.int32)
  factors = factors[np.random.Generator(noise.bits(seed, noise.POINTS, size)).permutation(len(factors))]
  factors = factors[(np.arange(len(factors)) % 6 == 5) == (split == "test")]
  arrays = {"image": draw(factors, size, grid), "label": factors[:, 0].copy(), "factors": factors}
  protocol = {"data": "sprites", "split": split, "binarization": "static", "grid": list(grid), "sprites_seed": seed}
  return Dataset(arrays, protocol)


def draw(factors, size: int, grid: Grid) -> np.ndarray:
  """The images of factors int [N, 5]: uint8 0 / 255, [N, size, size, 1]."""
  shape, scale, orientation, column, row = np.asarray(factors).T[..., None, None]
  along = lambda value, count: value / max(count - 1, 1)
  radius = size * (0.09 + 0.09 * along(scale, grid.scales))
  angle = 2 * np.pi * orientation / grid.orientations
  margin = 0.27 * size
  place = lambda value, count: margin + (size - 1 - 2 * margin) * along(value, count)
  pixel = np.arange(size)
  y, x = pixel[None, :, None] - place(row, grid.rows), pixel[None, None, :] - place(column, grid.columns)
  # Turned back and scaled to one, y upwards.
  u = (np.cos(angle) * x - np.sin(angle) * y) / radius
  v = -(np.sin(angle) * x + np.cos(angle) * y) / radius
  inside = [
    np.maximum(abs(u), abs(v)) <= 0.9,
    u**2 / 1.3**2 + v**2 / 0.7**2 <= 1,
    ((u / 1.1) ** 2 + (v + 0.15) ** 2 - 1) ** 3 - (u / 1.1) ** 2 * (v + 0.15) ** 3 <= 0,
  ]
  return (255 * np.choose(np.broadcast_to(shape, inside[0].shape), inside)).astype(np.uint8)[..., None]
